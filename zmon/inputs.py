"""The inputs of a publish call: a frame, array or list of dicts becomes a numeric matrix with feature names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from zmon.batch import Array
from zmon.columns import as_array
from zmon.errors import Rejected

NUMBERS = "fiub"


class FeaturePlan:
    """Which columns of inputs with these names are captured, and under which names."""

    __slots__ = ("names", "where", "width")

    def __init__(self, given: Sequence[str], include: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
        kept = [
            i
            for i, feature in enumerate(given)
            if (not include or any(fnmatchcase(feature, glob) for glob in include))
            and not any(fnmatchcase(feature, glob) for glob in exclude or ())
        ]
        self.width = len(given)
        self.names = tuple(given[i] for i in kept)
        self.where = None if len(kept) == len(given) else np.array(kept, dtype=np.intp)


def matrix(value: Any, names: Sequence[str] | None) -> tuple[Array, tuple[str, ...] | None]:
    """Inputs as an (n, n_features) array of numbers, and the names they brought along, if any.

    `names` are the declared features: a frame is read by these names, in this order.
    """
    if type(value) is np.ndarray:
        return _checked(value), None
    if isinstance(value, list | tuple) and value and all(isinstance(row, dict) for row in value):
        columns = tuple(names or dict.fromkeys(str(key) for row in value for key in row))
        rows = [[_number(row.get(column), column) for column in columns] for row in value]
        return np.array(rows, dtype=np.float64).reshape(len(value), len(columns)), columns
    if hasattr(value, "columns") or hasattr(value, "column_names"):
        return _frame(value, names)
    return _checked(as_array(value, "inputs")), None


def _checked(array: Array) -> Array:
    if array.dtype.kind not in NUMBERS:
        raise Rejected("inputs_dtype", f"inputs of dtype {array.dtype}; this release takes numeric features only")
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise Rejected("inputs_shape", f"inputs of shape {array.shape}; expected (n, n_features)")
    return array


def _number(value: Any, column: str) -> float:
    if value is None:
        return np.nan
    if isinstance(value, str | bytes):
        raise Rejected("inputs_dtype", f"feature {column!r} holds text; this release takes numeric features only")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Rejected("inputs_dtype", f"feature {column!r} holds a {type(value).__name__}") from None


def _frame(value: Any, names: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    import narwhals.stable.v1 as nw  # here: a service that publishes arrays need not load it

    frame = nw.from_native(value, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        raise Rejected("inputs_dtype", f"inputs of type {type(value).__name__} are no frame that narwhals knows")
    if names is not None:
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise Rejected("inputs_columns", f"inputs lack the declared features {missing[:5]}")
        frame = frame.select(list(names))
    dtypes = frame.schema
    for name, dtype in dtypes.items():
        if not (dtype.is_numeric() or dtype == nw.Boolean):
            raise Rejected("inputs_dtype", f"feature {name!r} is {dtype}; this release takes numeric features only")
    columns = tuple(str(name) for name in dtypes)
    if len(set(dtypes.values())) == 1 and frame.implementation.is_pandas() and value.dtypes.iloc[0].kind in NUMBERS:
        return frame.to_numpy(), columns  # one plain dtype throughout: a single copy
    floats = [frame[name].cast(nw.Float64).to_numpy() for name in dtypes]
    shape = (len(frame), len(columns))
    return np.column_stack([np.asarray(c, dtype=np.float64) for c in floats]) if floats else np.empty(shape), columns
