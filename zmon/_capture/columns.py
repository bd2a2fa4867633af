"""Arguments as arrays, and what is known of arguments that cannot be published. Pure."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from zmon.batch import Array
from zmon.errors import Rejected

_TIMES = {np.datetime64, np.timedelta64}


def as_array(value: Any, what: str) -> Array:
    """Make an array of anything that has ``__array__`` or is a list; Rejected ``<what>_dtype`` for the rest.

    What is masked becomes NaN, or None where the values are no numbers.
    """
    if type(value) is np.ndarray:
        # NumPy's own kinds are known; those of extensions, such as bfloat16, are floats.
        if value.dtype.kind != "V" or value.dtype.names:
            return value
        if value.dtype.type is np.void:
            raise Rejected(f"{what}_dtype", f"{what} of dtype {value.dtype}, which is raw memory; view it as numbers")
        return value.astype(np.float32)
    try:
        if is_masked_array(value):
            return filled(value, numeric=True)
        if hasattr(value, "toarray"):  # a sparse matrix
            value = value.toarray()
        if type(value) is list and _TIMES.intersection(map(type, value)):  # of several units NumPy makes one that wraps
            times = np.empty(len(value), dtype=object)
            times[:] = value
            return times
        array = _polars(value) if type(value).__module__.startswith("polars") else np.asarray(value)
    except Exception as error:  # noqa: BLE001 - ragged lists, tensors that refuse
        raise Rejected(f"{what}_dtype", f"{what} of type {type(value).__name__} are not an array: {error}") from None
    if array.dtype.kind == "O" and not array.ndim and hasattr(value, "__iter__"):
        raise Rejected(f"{what}_dtype", f"{what} are a {type(value).__name__}, not an array; pass a list or an array")
    return array


def _polars(series: Any) -> Array:
    """Return a polars series or frame as an array; NumPy has no integers of 128 bits."""
    if "128" in str(getattr(series, "dtype", "")):
        return np.array([*series.to_list(), None], dtype=object)[:-1]
    return np.asarray(series)


def filled(masked: np.ma.MaskedArray[Any, Any], *, numeric: bool = False) -> Array:
    """Return an array in which what is masked is NaN, NaT, or None where the type of the values has neither.

    With `numeric`, integers and booleans become floats for it.
    """
    if not np.ma.is_masked(masked):
        return np.asarray(masked)
    if numeric and masked.dtype.kind in "iub":
        return np.ma.filled(masked.astype(np.float64), np.nan)
    if masked.dtype.kind in "fMm":
        return np.ma.filled(masked, np.nan if masked.dtype.kind == "f" else masked.dtype.type("NaT"))
    objects: Array = masked.data.astype(object)  # filled(None) would fill in a default
    objects[np.ma.getmaskarray(masked)] = None
    return objects


def is_masked_array(value: Any) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Return whether a value is a masked array.

    NumPy loads its module of masked arrays at first use, which takes 50 ms of the interpreter: plain arrays and values
    of other types do not make it.
    """
    kind = type(value)
    return kind is not np.ndarray and issubclass(kind, np.ndarray) and issubclass(kind, np.ma.MaskedArray)


def form_of(array: Array) -> str:
    """Return what an array is, for messages.

    >>> form_of(np.zeros((2, 3))), form_of(np.array("x"))
    ('of shape (2, 3)', 'are a single str')
    """
    if array.ndim:
        return f"of shape {array.shape}"
    return f"are a single {type(array.item()).__name__}"


def as_list(value: Any, what: str) -> list[Any] | Array:
    """Return a column as an array of numbers or times, or as a list of values in which the missing ones are missing.

    Rejected ``<what>_shape`` if it has another number of dimensions than one.
    """
    if type(value) is list:  # NumPy would turn a NaN among strings into a string
        if value and all(map(_is_column, value)):
            raise Rejected(f"{what}_shape", f"{what} hold a {type(value[0]).__name__}; expected one value a row")
        return value
    array = as_array(value, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise Rejected(f"{what}_shape", f"{what} {form_of(array)}; expected (n,)")
    return array if array.dtype.kind in "fiubMm" else array.tolist()


def _is_column(value: Any) -> bool:
    return isinstance(value, list | dict) or (isinstance(value, np.ndarray) and value.ndim > 0)


def rows_of(*values: Any) -> int:
    """Return the number of rows of something that cannot be published, as far as it is known; at least 1."""
    first = next((value for value in values if value is not None), ())
    try:
        return max(1, len(first))
    except Exception:  # noqa: BLE001 - a model's results and a caller's arguments may do anything here
        return 1


def rejection(error: Exception, *values: Any) -> tuple[str, str, int]:
    """Return the arguments of `Publisher.reject` for values that raised this error instead of being published."""
    if isinstance(error, Rejected):
        return error.reason, str(error), rows_of(*values)
    return "internal", f"{type(error).__name__}: {error}", rows_of(*values)
