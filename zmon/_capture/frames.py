"""Columns of pandas, polars and pyarrow frames and series; of other frames through narwhals. Pure.

None of these libraries is imported here: a service that publishes arrays need not load them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zmon.batch import Array
from zmon.errors import Rejected

WIDE = 64  # columns of a frame from which they are read in blocks, and columns of a block
_LIBRARIES = ("pandas", "polars", "pyarrow")
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class ColumnData(NamedTuple):
    """A column: an array of numbers, booleans or times, or a list of any values.

    `category` says that the type of the column makes its values categories, whatever they are.
    """

    values: Array | list[Any]
    category: bool = False


def is_lazy(value: Any) -> bool:
    """Return whether a frame has no rows before it is collected."""
    return hasattr(type(value), "collect") and not hasattr(type(value), "__len__")


def is_frame(value: Any) -> bool:
    """Return whether a value has columns with names."""
    kind = type(value)  # asking the value itself may compute something, or warn
    return (hasattr(kind, "columns") or hasattr(kind, "column_names")) and hasattr(kind, "__len__")


def is_series(value: Any) -> bool:
    """Return whether a value is one column of a library of frames."""
    return type(value).__name__ in ("Series", "ChunkedArray") and type(value).__module__.partition(".")[0] in _LIBRARIES


def records(value: Any) -> list[dict[Any, Any]] | None:
    """Return a list of dicts as it is, with an empty one for None, and of a pandas frame's rows as dicts; else None."""
    kinds: set[type] = set(map(type, value)) if isinstance(value, list) else set()
    if dict in kinds and kinds <= {dict, type(None)}:
        return [row or {} for row in value]
    if len(kinds) == 1 and is_series(value[0]) and hasattr(value[0], "to_dict"):
        return [row.to_dict() for row in value]
    return None


def length(value: Any) -> int | None:
    """Return the number of values of a column; None for a single value."""
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return None
    try:
        return len(value)
    except TypeError:  # an array without dimensions
        return None


def columns(frame: Any) -> tuple[tuple[Any, ...], Callable[[int], ColumnData]]:
    """Return the names of a frame's columns, and a function that reads the column at a place."""
    root = type(frame).__module__.partition(".")[0]
    if root == "pandas":
        names = tuple(frame.columns)
        return names, _Blocks(frame).column if len(names) > WIDE else _InOrder(frame).column
    if root == "polars":
        return tuple(frame.columns), lambda i: _of_polars(frame.to_series(i))
    if root == "pyarrow":
        return tuple(frame.schema.names), lambda i: _of_arrow(frame.column(i))
    import narwhals.stable.v1 as nw

    narwhal = nw.from_native(frame, eager_only=True, pass_through=True)
    if not isinstance(narwhal, nw.DataFrame):
        raise Rejected("inputs_dtype", f"inputs of type {type(frame).__name__} are not a frame that narwhals supports")
    others = list(narwhal.columns)
    return tuple(others), lambda i: data(narwhal.get_column(others[i]))


class _InOrder:
    """Columns of a pandas frame, for readers that go from left to right: this is many times faster than ``iloc``."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._items = enumerate(frame.items())
        self._next = 0

    def column(self, place: int) -> ColumnData:
        if place >= self._next:
            for i, (_, series) in self._items:
                self._next = i + 1
                if i == place:
                    return _of_pandas(series)
        return _of_pandas(self._frame.iloc[:, place])


class _Blocks:
    """Columns of a wide pandas frame: those of one plain type are read together, `WIDE` at a time."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        places: dict[Any, list[int]] = {}
        self._groups: dict[int, list[int]] = {}  # by place: the columns that are read with it
        for i, dtype in enumerate(frame.dtypes):
            if getattr(dtype, "kind", "") in "fiuO" and (isinstance(dtype, np.dtype) or dtype == "str"):
                group = places.setdefault(dtype, [])
                if len(group) == WIDE:
                    group = places[dtype] = []
                group.append(i)
                self._groups[i] = group
        self._read: dict[int, ColumnData] = {}

    def column(self, place: int) -> ColumnData:
        group = self._groups.get(place)
        if group is None:
            return _of_pandas(self._frame.iloc[:, place])
        if place not in self._read:
            block = self._frame.iloc[:, group].to_numpy()
            rows = block.T if block.dtype.kind in "fiu" else block.T.tolist()
            self._read = {i: ColumnData(column) for i, column in zip(group, rows, strict=True)} | self._read
        return self._read.pop(place)


def matrix(frame: Any) -> Array | None:
    """Return the values of a frame of which all columns have one plain type of numbers, copied once."""
    root = type(frame).__module__.partition(".")[0]
    if root == "pandas":
        dtypes = set(frame.dtypes)
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        return frame.to_numpy() if isinstance(dtype, np.dtype) and dtype.kind in "fiu" else None
    if root == "polars":
        dtypes = set(frame.dtypes)
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        if dtype is not None and (dtype.is_float() or dtype.is_integer()) and "128" not in str(dtype):
            found: Array = frame.to_numpy()
            return found if found.dtype.kind in "fiu" else None
    return None


def data(series: Any) -> ColumnData:
    """Return the values of a series of any of these libraries."""
    root = type(series).__module__.partition(".")[0]
    if root == "pandas":
        return _of_pandas(series)
    if root == "polars":
        return _of_polars(series)
    if root == "pyarrow":
        return _of_arrow(series)
    values = getattr(series, "to_list", None)
    return ColumnData(values() if values is not None else list(series))


def _of_pandas(series: Any) -> ColumnData:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind in "fiubMm":
            return ColumnData(series.to_numpy())
        return ColumnData(series.tolist())
    kind = getattr(dtype, "kind", "O")  # an extension: nullable, arrow, categories, zones
    if hasattr(dtype, "categories"):
        return ColumnData(series.tolist(), category=True)
    if kind == "O" and str(dtype).startswith("dictionary"):  # of Arrow
        return ColumnData(series.tolist(), category=True)
    if kind in "fiu" and not hasattr(dtype, "subtype"):
        return ColumnData(series.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind == "M" and hasattr(dtype, "tz") and hasattr(dtype, "unit"):
        return ColumnData(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    return ColumnData(series.tolist())


def _of_polars(series: Any) -> ColumnData:
    dtype = series.dtype
    name = type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__
    if dtype.is_float() or dtype.is_integer():
        if not series.null_count() and "128" not in name:  # NumPy has no such integers
            return ColumnData(series.to_numpy())
        return ColumnData(_floats(series.cast(float).to_numpy()))
    if name in ("Datetime", "Duration"):
        whole = _floats(series.to_physical().cast(float).to_numpy())
        return ColumnData(whole / _PER_SECOND[dtype.time_unit])
    if name == "Date":
        return ColumnData(_floats(series.to_physical().cast(float).to_numpy()) * 86400.0)
    if name == "Boolean" and not series.null_count():
        return ColumnData(series.to_numpy())
    return ColumnData(series.to_list(), category=name in ("Categorical", "Enum"))


def _of_arrow(column: Any) -> ColumnData:
    kind = str(column.type)
    if kind in ("float", "double", "halffloat") or kind.startswith(("int", "uint")):
        found = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
        return ColumnData(found if found.dtype.kind in "fiu" else found.astype(np.float64))
    if kind.startswith(("timestamp", "duration")):
        whole = column.cast("int64")
        numbers = whole.to_numpy() if hasattr(whole, "chunks") else whole.to_numpy(zero_copy_only=False)
        return ColumnData(numbers.astype(np.float64) / _PER_SECOND[column.type.unit])
    return ColumnData(column.to_pylist(), category=kind.startswith("dictionary"))


def _floats(array: Any) -> Array:
    return np.asarray(array, dtype=np.float64)
