"""The inputs of a publish call: a plain matrix of numbers, or a table of columns that have kinds. Pure.

A matrix is passed on unchanged. Columns of a table are converted to the form of their kind, declared or inferred once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon._capture import kinds
from zmon._capture.columns import as_array
from zmon.batch import CODED_KINDS, SKIPPED_KINDS, Array
from zmon.categories import Dictionaries
from zmon.errors import Rejected

NUMBERS = "fiu"


class InputColumn(NamedTuple):
    """A column as it was given: its kind if its type tells (else empty), and how to read it."""

    kind: str
    array: Callable[[], Array] | None  # numbers, booleans or times, without looking at single values
    values: Callable[[], list[Any]]


class Matrix(NamedTuple):
    """Numbers throughout, (n, n_features); `names` is None if they came without names."""

    names: tuple[str, ...] | None
    array: Array


class Table(NamedTuple):
    """Columns by name, all of `rows` values; `names` is None if they came without names."""

    names: tuple[str, ...] | None
    columns: Sequence[InputColumn]
    rows: int


class FeaturePlan:
    """The columns to capture of inputs with these names, their names and their kinds.

    A kind is empty while every value of the column has been missing; such a column is not part of the schema yet.
    """

    __slots__ = ("given", "kinds", "names", "plain", "schemas", "where", "width")

    def __init__(self, given: Sequence[str], where: Sequence[int], kinds: Sequence[str]) -> None:
        self.given = tuple(given)
        self.width = len(given)
        self.where = np.array(where, dtype=np.intp) if len(where) < len(given) else None
        self.names = tuple(given[i] for i in where)
        self.kinds = tuple(kinds)
        self.plain = not set(kinds) - {"numeric"}
        self.schemas: dict[tuple[str, ...], bytes] = {}  # hash of the schema by names of segments

    def places(self) -> Sequence[int]:
        """Return the index of each captured column among the given ones."""
        return range(self.width) if self.where is None else self.where.tolist()


def read(value: Any, names: Sequence[str] | None) -> Matrix | Table:
    """Read inputs as an (n, n_features) array of numbers, or as a table.

    `names` are the declared features: of inputs that have names, these columns are read, in this order.
    """
    if type(value) is np.ndarray and value.dtype.kind in NUMBERS:
        return Matrix(None, _checked(value))
    if isinstance(value, list | tuple) and value:
        if all(isinstance(row, dict) for row in value):
            return _dicts(value, names)
        if any(isinstance(row, list | tuple) for row in value):
            return _array(_rows(value), names)
    if hasattr(value, "columns") or hasattr(value, "column_names"):
        return _frame(value, names)
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind not in NUMBERS:
        return _array(_filled(value), names)
    return _array(as_array(value, "inputs"), names)


def convert(table: Table, plan: FeaturePlan, declared: Mapping[str, str]) -> tuple[list[Any], tuple[str, ...]]:
    """Return the captured columns in the form of their kinds, and those kinds: the plan's, or inferred if it has none.

    Raises Rejected ``inputs_kind`` for a column whose kind differs from the plan's, unless the kind was declared and
    the values can be converted to it.
    """
    actual = list(plan.kinds)
    converted: list[Any] = []
    for i, (place, name, kind) in enumerate(zip(plan.places(), plan.names, plan.kinds, strict=True)):
        column = table.columns[place]
        if kind in SKIPPED_KINDS:
            converted.append(None)
        elif column.array is not None and kind in ("", column.kind):
            actual[i] = column.kind
            array = column.array()
            converted.append(kinds.booleans(array, name) if column.kind == "boolean" else array)
        else:
            values = column.values()
            inferred = kind if name in declared else column.kind or kinds.kind_of(values, name)
            if kind and not kinds.fits(inferred, kind) and not all(map(kinds.missing, values)):
                raise kinds.changed(name, kind, inferred)
            actual[i] = kind or inferred
            converted.append(kinds.in_kind(values, actual[i], name))
    return converted, tuple(actual)


def stack_columns(
    columns: Sequence[Any], column_kinds: Sequence[str], rows: int
) -> tuple[Array | None, Array | None, Dictionaries]:
    """Return the numeric columns as a matrix, and the others as a matrix of codes with their dictionaries."""
    pairs = list(zip(columns, column_kinds, strict=True))
    numeric = [column for column, kind in pairs if kind == "numeric"]
    coded = [column for column, kind in pairs if kind in CODED_KINDS]
    matrix = codes = None
    if numeric:
        dtype = np.result_type(*{column.dtype for column in numeric})
        matrix = np.empty((rows, len(numeric)), dtype=dtype if dtype.kind in NUMBERS else np.float64)
        for i, column in enumerate(numeric):
            matrix[:, i] = column
    if coded:
        codes = np.empty((rows, len(coded)), dtype=np.int32)
        for i, column in enumerate(coded):
            codes[:, i] = column.codes
    return matrix, codes, tuple(column.names for column in coded)


# --- sources --------------------------------------------------------------------------------------------------------


def _checked(array: Array) -> Array:
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise Rejected("inputs_shape", f"inputs of shape {array.shape}; expected (n, n_features)")
    return array


def _rows(value: Sequence[Any]) -> Array:
    """Read a list of rows: numbers as NumPy reads them, else objects, so that no number becomes a string."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise Rejected("inputs_dtype", f"inputs are rows of different lengths: {error}") from None
    return array if array.dtype.kind in NUMBERS + "b" else np.array(value, dtype=object)


def _array(array: Array, names: Sequence[str] | None) -> Matrix | Table:
    if array.dtype.kind in NUMBERS:
        return Matrix(None, _checked(array))
    if array.dtype.names is not None:
        wanted = _declared(names, array.dtype.names)
        return Table(wanted, [_of_array(array[name]) for name in wanted], len(array))
    if array.dtype.kind not in "bOUSMm" or not array.ndim:
        raise Rejected("inputs_dtype", f"inputs of dtype {array.dtype}; expected numbers, booleans or categories")
    return of_matrix(Matrix(None, _checked(array)))


def _filled(masked: np.ma.MaskedArray[Any, Any]) -> Array:
    """Return a masked array as objects, None where masked; a structured one stays masked until its columns are read."""
    if masked.dtype.names:
        return masked
    filled: Array = masked.data.astype(object)  # filled(None) would fill in a default
    filled[np.ma.getmaskarray(masked)] = None
    return filled


def of_matrix(matrix: Matrix) -> Table:
    """Turn a matrix into a table, for features of other kinds."""
    array = matrix.array
    return Table(matrix.names, [_of_array(array[:, i]) for i in range(array.shape[1])], len(array))


def _of_array(column: Array) -> InputColumn:
    if isinstance(column, np.ma.MaskedArray):
        column = _filled(column)
    kind = column.dtype.kind
    if column.ndim != 1:
        return InputColumn("vector", None, column.tolist)
    if kind in NUMBERS:
        return InputColumn("numeric", lambda: column, column.tolist)
    if kind == "b":
        return InputColumn("boolean", lambda: column, column.tolist)
    if kind in "Mm":
        return InputColumn("numeric", lambda: kinds.times(column), lambda: list(column))
    return InputColumn("", None, column.tolist)


def _dicts(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None) -> Table:
    wanted = tuple(names or dict.fromkeys(str(key) for row in rows for key in row))
    columns = [InputColumn("", None, lambda name=name: [row.get(name) for row in rows]) for name in wanted]  # type: ignore[misc]
    return Table(wanted, columns, len(rows))


def _declared(names: Sequence[str] | None, there: Sequence[str]) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, there))
    missing = [name for name in names if name not in there]
    if missing:
        raise Rejected("inputs_columns", f"inputs lack the declared features {missing[:5]}")
    return tuple(names)


def _frame(value: Any, names: Sequence[str] | None) -> Matrix | Table:
    import narwhals.stable.v1 as nw  # here: a service that publishes arrays need not load it

    if nw.dependencies.is_pandas_dataframe(value):
        return _pandas(value, names)
    frame = nw.from_native(value, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        raise Rejected("inputs_dtype", f"inputs of type {type(value).__name__} are not a frame that narwhals supports")
    if names is not None:
        frame = frame.select(list(_declared(names, frame.columns)))
    series = zip(frame.iter_columns(), frame.schema.values(), strict=True)
    return Table(tuple(frame.columns), [_of_series(column, dtype) for column, dtype in series], len(frame))


def _pandas(frame: Any, names: Sequence[str] | None) -> Matrix | Table:
    """Read a pandas frame directly: most batches are small, and narwhals would cost more than the copy itself."""
    there = tuple(map(str, frame.columns))
    wanted = _declared(names, there)
    if wanted != there:
        frame = frame.iloc[:, [there.index(name) for name in wanted]]
    dtypes = set(frame.dtypes)
    if len(dtypes) == 1:
        (dtype,) = dtypes
        if isinstance(dtype, np.dtype) and dtype.kind in NUMBERS:
            return Matrix(wanted, frame.to_numpy())  # one plain dtype throughout: a single copy
    return Table(wanted, [_of_pandas(series) for _, series in frame.items()], len(frame))


def _of_pandas(series: Any) -> InputColumn:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _of_array(series.to_numpy())
    kind = getattr(dtype, "kind", "O")  # an extension: nullable, arrow, categories, zones
    return InputColumn("numeric" if kind in NUMBERS else "boolean" if kind == "b" else "", None, series.tolist)


def _of_series(series: Any, dtype: Any) -> InputColumn:
    import narwhals.stable.v1 as nw

    if dtype.is_numeric():
        return InputColumn(
            "numeric", lambda: np.asarray(series.cast(nw.Float64).to_numpy(), np.float64), series.to_list
        )
    if dtype == nw.Boolean:
        whole = not series.is_null().any()
        return InputColumn("boolean", (lambda: series.to_numpy().astype(bool)) if whole else None, series.to_list)
    return InputColumn("vector" if dtype.is_nested() else "", None, series.to_list)
