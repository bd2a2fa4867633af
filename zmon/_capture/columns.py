"""Converts the row columns of a publish call (labels, ids, timestamps) to the wire's form. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from zmon.batch import Array
from zmon.errors import Rejected

UNLABELLED = -1
SECONDS_LIMIT = 1e11  # the year 5138; larger numbers are milliseconds or smaller units
LATEST = 9.2e9  # seconds; int64 nanoseconds reach no further
ID_BYTES = 256


def as_array(value: Any, what: str) -> Array:
    """Make an array of anything that has ``__array__`` or is a list; Rejected ``<what>_dtype`` for the rest."""
    if type(value) is np.ndarray:
        return value
    try:
        array = np.asarray(value)
    except Exception as error:  # noqa: BLE001 - ragged lists, tensors that refuse
        raise Rejected(f"{what}_dtype", f"{what} of type {type(value).__name__} are not an array: {error}") from None
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return np.ma.filled(value.astype(np.float64), np.nan)
    return array


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


def class_labels(value: Any, names: Sequence[str], indices: Mapping[object, int]) -> Array:
    """Return labels as int64 class indices, −1 where unlabelled.

    Parameters
    ----------
    value : array_like
        (n,) indices, names, None or NaN; or (n, n_classes) one-hot with a single 1 per row.
    names : sequence of str
        Class names in the order of the probabilities' columns.
    indices : mapping
        Index of each class by its name as the user gave it (string, number or bool).
    """
    array = as_array(value, "labels")
    if array.dtype.kind == "U" and isinstance(value, list | tuple):
        array = np.array(value, dtype=object)  # NumPy would turn a NaN among strings into a string
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        return _one_hot(array, len(names))
    if array.ndim != 1:
        raise Rejected("labels_shape", f"labels of shape {array.shape}; expected (n,) or (n, {len(names)}) one-hot")
    kind = array.dtype.kind
    numeric_names = not isinstance(next(iter(indices)), str)
    if kind in "iub" and not numeric_names:
        return _checked(array.astype(np.int64), len(names))
    if kind == "f" and not numeric_names:
        missing = np.isnan(array)
        filled = np.where(missing, 0, array)
        if not (filled == np.floor(filled)).all():
            raise Rejected("labels_dtype", "labels are fractional numbers; expected class indices or names")
        with np.errstate(invalid="ignore"):
            whole = _checked(filled.astype(np.int64), len(names))
        whole[missing] = UNLABELLED
        return whole
    return np.fromiter((_index(label, indices, len(names)) for label in array.tolist()), np.int64, len(array))


def _one_hot(array: Array, classes: int) -> Array:
    if array.shape[1] != classes:
        raise Rejected("labels_shape", f"one-hot labels of width {array.shape[1]} for {classes} classes")
    if array.dtype.kind not in "iufb":
        raise Rejected("labels_dtype", f"one-hot labels of dtype {array.dtype}")
    missing = np.isnan(array).all(axis=1) if array.dtype.kind == "f" else np.zeros(len(array), dtype=bool)
    ones, zeros = array == 1, array == 0
    if not (((ones | zeros).all(axis=1) & (ones.sum(axis=1) == 1)) | missing).all():
        raise Rejected("label_one_hot", "a one-hot row must hold a single 1 and otherwise 0")
    labels: Array = ones.argmax(axis=1).astype(np.int64)
    labels[missing] = UNLABELLED
    return labels


def _checked(labels: Array, classes: int) -> Array:
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise Rejected(
            "label_index", f"label {wrong} is not an index of {classes} classes; pass None or NaN for unlabelled rows"
        )
    return labels


def _index(label: Any, indices: Mapping[object, int], classes: int) -> int:
    if label is None or type(label).__name__ in {"NAType", "NaTType"} or label != label:
        return UNLABELLED
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    try:
        index = indices.get(label)
    except TypeError:  # unhashable
        raise Rejected("labels_dtype", f"a label is a {type(label).__name__}") from None
    if index is not None:
        return index
    if isinstance(label, int | float) and isinstance(next(iter(indices)), str):
        if 0 <= label < classes and label == int(label):
            return int(label)
        raise Rejected("label_index", f"label {label} is not an index of {classes} classes")
    raise Rejected("label_unknown", f"label {label!r:.60} is not one of the classes")


def targets(value: Any, what: str) -> Array:
    """Return regression values as floats, NaN where missing."""
    array = as_array(value, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise Rejected(f"{what}_shape", f"{what} of shape {array.shape}; expected (n,)")
    if array.dtype.kind == "O":
        try:
            array = np.array([np.nan if number is None else number for number in array.tolist()], dtype=np.float64)
        except (TypeError, ValueError):
            raise Rejected(f"{what}_dtype", f"{what} hold something other than numbers") from None
    if array.dtype.kind not in "iufb":
        raise Rejected(f"{what}_dtype", f"{what} of dtype {array.dtype}; expected numbers")
    return array.astype(np.float64)


def identifiers(value: Any) -> Array:
    """Return ids as int64, uint64 or UTF-8 bytes of at most 256 each."""
    array = as_array(value, "ids")
    if array.ndim != 1:
        raise Rejected("ids_invalid", f"ids of shape {array.shape}; expected (n,)")
    if array.dtype.kind in "iu":
        return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)
    ids = array.tolist()
    if array.dtype.kind in "UOS" and all(type(name) in (str, bytes) for name in ids):
        encoded = [name.encode() if isinstance(name, str) else name for name in ids]
        longest = max(map(len, encoded), default=1)
        if longest <= ID_BYTES and not any(b"\0" in name for name in encoded):
            return np.array(encoded, dtype=f"S{max(longest, 1)}")
        raise Rejected("ids_invalid", f"an id has {longest} bytes, or a NUL; at most {ID_BYTES} bytes without NUL")
    if array.dtype.kind == "O" and all(type(name) is int for name in ids):
        raise Rejected("ids_invalid", "an id is beyond 64 bits; pass it as a string")
    raise Rejected("ids_invalid", f"ids of dtype {array.dtype}; expected integers or strings, all of one type")


def nanoseconds(value: Any) -> int | Array:
    """Return the epoch nanoseconds of one time, or of one per row.

    Numbers are seconds; datetimes without a zone, and datetime64, are UTC.
    """
    if isinstance(value, datetime):
        return _datetime(value)
    array = as_array(value, "timestamps")
    kind = array.dtype.kind
    if kind == "O":
        if not all(isinstance(time, datetime) for time in array.flat):
            raise Rejected("timestamp_invalid", "timestamps hold something other than numbers or datetimes")
        array = np.array([_datetime(time) for time in array.flat], dtype=np.int64).reshape(array.shape)
    elif kind == "M":
        if np.isnat(array).any():
            raise Rejected("timestamp_invalid", "a timestamp is NaT")
        array = array.astype("datetime64[ns]").astype(np.int64)
    elif kind in "iuf":
        array = _seconds(array)
    else:
        raise Rejected("timestamp_invalid", f"timestamps of dtype {array.dtype}; expected epoch seconds or datetimes")
    if array.size and array.min() < 0:
        raise Rejected("timestamp_invalid", "a timestamp lies before 1970")
    if array.ndim == 0:
        return int(array)
    if array.ndim != 1:
        raise Rejected("timestamp_invalid", f"timestamps of shape {array.shape}; expected one, or (n,)")
    return array


def _seconds(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise Rejected("timestamp_invalid", "a timestamp is NaN or infinite")
    if array.size and array.max() > SECONDS_LIMIT:
        raise Rejected("timestamp_unit", f"timestamp {array.max()} is not in seconds; divide by 1000 or 1e9")
    if array.size and array.min() < 0:
        raise Rejected("timestamp_invalid", "a timestamp lies before 1970")
    if array.size and array.max() > LATEST:
        raise Rejected("timestamp_invalid", f"timestamp {array.max()} lies beyond the year 2262")
    # Convert whole seconds and fractions separately: a float64 of epoch seconds times 1e9 would lose the last digits.
    whole = np.floor(array)
    return whole.astype(np.int64) * 1_000_000_000 + np.rint((array - whole) * 1e9).astype(np.int64)


def _datetime(value: datetime) -> int:
    if value != value:
        raise Rejected("timestamp_invalid", "a timestamp is NaT")
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    whole = aware.replace(microsecond=0)
    nanos = int(whole.timestamp()) * 1_000_000_000 + aware.microsecond * 1000
    if nanos < 0:
        raise Rejected("timestamp_invalid", f"timestamp {value} lies before 1970")
    return nanos
