"""Inputs in any form as columns that are read one by one, when they are needed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon._capture import frames
from zmon._capture.columns import as_array, filled, form_of, is_masked_array
from zmon._capture.frames import ColumnData
from zmon.batch import Array
from zmon.errors import Rejected

NUMBERS = "fiu"
SPARSE_COLUMNS = 4096  # of a sparse matrix, which is dense on the wire


class Table(NamedTuple):
    """Columns by place, each read by a call.

    Attributes
    ----------
    names : tuple or None
        As they were given; None if the columns came without names.
    width, rows : int
    column : callable
        Returns the data of the column at a place.
    matrix : ndarray or None
        All columns, if they are numbers of one type.
    optional : bool
        Whether rows need not name every column.
    """

    names: tuple[Any, ...] | None
    width: int
    rows: int
    column: Callable[[int], ColumnData]
    matrix: Array | None = None
    optional: bool = False


def read(value: Any, rows: int) -> Table:
    """Read inputs; Rejected if they are no table."""
    if isinstance(value, list):
        if records := frames.records(value):
            return _of_dicts(records)
        if any(isinstance(row, list) for row in value):
            return _of_array(_rows(value))
        if any(isinstance(cell, str | bytes) for cell in value):
            return Table(None, 1, len(value), lambda _: ColumnData(value))  # NumPy would turn NaN into a string
    elif isinstance(value, dict):
        return _of_columns(value, rows)
    elif frames.is_lazy(value):
        raise Rejected("inputs_dtype", f"inputs are a {type(value).__name__}, which has no rows yet; call .collect()")
    elif frames.is_frame(value):
        names, column = frames.columns(value)
        return Table(names, len(names), len(value), column, frames.matrix(value))
    elif frames.is_series(value):
        if rows == 1 != len(value) and hasattr(value, "to_dict"):  # a row of a pandas frame
            return _of_dicts([value.to_dict()])
        return Table(None, 1, len(value), lambda _: frames.data(value))
    elif hasattr(value, "toarray") and hasattr(value, "nnz"):
        return _of_sparse(value)
    return _of_array(value if is_masked_array(value) else as_array(value, "inputs"))


def _of_array(array: Array) -> Table:
    names = array.dtype.names
    if names is not None:
        if array.ndim > 1:
            raise Rejected("inputs_shape", f"structured inputs of shape {array.shape}; expected (n,)")
        whole = array.reshape(-1)  # a single row has no dimension
        return Table(names, len(names), len(whole), lambda i: _plain(whole[names[i]]))
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise Rejected("inputs_shape", f"inputs {form_of(array)}; expected (n, n_features)")
    if array.dtype.kind in NUMBERS and is_masked_array(array):
        array = filled(array, numeric=True)
    matrix = array if array.dtype.kind in NUMBERS else None
    if matrix is None and array.dtype.kind not in "bOUSTMm":
        raise Rejected("inputs_dtype", f"inputs of dtype {array.dtype}; expected numbers, booleans or categories")
    return Table(None, array.shape[1], len(array), lambda i: _plain(array[:, i]), matrix)


def _plain(column: Array) -> ColumnData:
    if is_masked_array(column):
        column = filled(column)
    if column.ndim != 1 or column.dtype.kind not in NUMBERS + "bMm":
        return ColumnData(column.tolist() if column.ndim == 1 else list(column))
    return ColumnData(column)


def _of_sparse(matrix: Any) -> Table:
    width = matrix.shape[1] if matrix.ndim > 1 else 1
    if width > SPARSE_COLUMNS:
        raise Rejected(
            "inputs_columns",
            f"a sparse matrix of {width} columns; at most {SPARSE_COLUMNS} are captured: pass those that matter",
        )
    dense: Array = matrix.toarray()
    return _of_array(dense.astype(np.float64) if dense.dtype.kind == "b" else dense)


def _rows(value: Sequence[Any]) -> Array:
    """Read a list of rows: numbers as NumPy reads them, else objects, so that no number becomes a string."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in NUMBERS + "b":
            return array
        width = {len(row) for row in value}
        if len(width) == 1:
            objects = np.empty((len(value), width.pop()), dtype=object)
            for i, row in enumerate(value):
                objects[i] = row  # a cell may be a list
            return objects
    except (ValueError, TypeError) as error:
        raise Rejected("inputs_dtype", f"inputs are rows of different lengths: {error}") from None
    raise Rejected("inputs_dtype", "inputs are rows of different lengths")


def _of_dicts(rows: Sequence[Mapping[Any, Any]]) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row))

    def column(i: int) -> ColumnData:
        key = keys[i]
        return ColumnData([row.get(key) for row in rows])

    return Table(tuple(keys), len(keys), len(rows), column, optional=True)


def _of_columns(columns: Mapping[Any, Any], rows: int) -> Table:
    keys = list(columns)
    for key in keys:
        size = frames.length(columns[key])
        if size != rows:
            found = "a single value" if size is None else f"{size} values"
            raise Rejected("length_mismatch", f"column {key!r:.60} of the inputs has {found} for {rows} rows")

    def column(i: int) -> ColumnData:
        value = columns[keys[i]]
        if isinstance(value, list):
            return ColumnData(value)
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
        return _plain(value) if isinstance(value, np.ndarray) else frames.data(value)

    return Table(tuple(keys), len(keys), rows, column)
