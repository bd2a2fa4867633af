"""Labels, and predictions of classes, in any form as indices of classes; targets of a regression. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from zmon._capture import frames, named
from zmon._capture.classes import FRACTION, OUTSIDE, UNKNOWN, UNLABELLED, Classes
from zmon._capture.columns import as_array, as_list
from zmon._capture.faults import Faults
from zmon._capture.values import is_missing
from zmon.batch import Array
from zmon.errors import Rejected

NOT_ONE_HOT = -5
_COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)
# By code: the reason for a label, that for a prediction, and what is wrong.
FAULTS = {
    UNLABELLED: ("", "predictions_nan", "is not one of the classes"),
    UNKNOWN: ("label_unknown", "prediction_unknown", "is not one of the classes"),
    OUTSIDE: ("label_index", "prediction_index", "is not an index of the classes"),
    FRACTION: ("labels_dtype", "predictions_dtype", "is a fraction, neither a name nor an index of the classes"),
    NOT_ONE_HOT: (
        "label_one_hot",
        "prediction_one_hot",
        "is not a row with a single 1 and otherwise 0 for the classes",
    ),
}


def read(value: Any, task: str, classes: Classes | None, faults: Faults) -> Array:
    """Return the labels of rows in the wire's form; a label that cannot be read is missing. Rejected if none can be."""
    rows = faults.rows
    if task == "regression":
        labels, wrong = targets(value, "labels")
        _same_length(labels, rows)
        infinite = np.isinf(labels)
        faults.add("labels_dtype", "a label is not a finite number", wrong | infinite)
        labels[infinite] = np.nan
        return labels
    if classes is None:
        raise Rejected("classes_missing", "labels need classes=[…] in the constructor, or probabilities")
    if task == "multilabel":
        labels, wrong = members(value, classes, "labels")
        _same_length(labels, rows)
        example = _example(value, int(wrong.argmax())) if wrong.any() else ""
        detail = f"label {example} holds something other than 0, 1 and names of the classes {_short(classes)}"
        faults.add("label_unknown", detail, wrong)
        return labels
    labels = indices(value, classes, "labels")
    _same_length(labels, rows)
    return explain(labels, value, classes, "labels", faults)


def indices(value: Any, classes: Classes, what: str) -> Array:
    """Return class indices as int64, or a negative code for a row without one.

    The value holds names or indices, (n,) or (n, 1); or is one-hot, (n, n_classes), in a frame aligned by name.
    """
    columns = None if isinstance(value, list) else named.read(value, what) if _has_names(value) else None
    if columns is not None:
        array, _ = named.aligned(columns, classes, what)
        return _one_hot(array, classes, what)
    value = _single(value)
    if not isinstance(value, list) or (value and all(isinstance(row, list | np.ndarray) for row in value)):
        array = as_array(value, what)
        if array.ndim == 2 and array.shape[1] > 1:
            return _one_hot(array, classes, what)
        value = as_list(array, what)
    elif value and all(isinstance(row, dict) for row in value):
        raise Rejected(f"{what}_dtype", f"{what} hold dicts; expected names, indices, or one-hot rows")
    return classes.indices(as_list(value, what), what.removesuffix("s"))


def explain(codes: Array, value: Any, classes: Classes, what: str, faults: Faults) -> Array:
    """Record the rows without a class by reason, and return the indices, −1 for these rows."""
    if not len(codes) or codes.min() >= 0:
        return codes
    for code, (label, prediction, detail) in FAULTS.items():
        reason = label if what == "labels" else prediction
        wrong = codes == code
        if reason and wrong.any():
            example = _example(value, int(wrong.argmax()))
            hint = "; pass None where the label is unknown" if what == "labels" else ""
            faults.add(reason, f"{what.removesuffix('s')} {example} {detail} {_short(classes)}{hint}", wrong)
    return np.maximum(codes, UNLABELLED)


def members(value: Any, classes: Classes, what: str) -> tuple[Array, Array]:
    """Return which classes each row belongs to, (n, n_classes) int8 with −1 where unknown, and which rows hold errors.

    The value is an array of 0 and 1, a frame of such columns aligned by name, or a collection of names for each row.
    """
    columns = named.read(value, what) if not isinstance(value, list) and _has_names(value, least=1) else None
    if columns is not None:
        array, _ = named.aligned(columns, classes, what)
    elif isinstance(value, list) or as_array(value, what).dtype.kind == "O":
        rows = value if isinstance(value, list) else as_array(value, what).tolist()
        if not _are_flags(rows, len(classes)):
            return _members_by_name(rows, classes, what)
        array = as_array([[np.nan] * len(classes) if is_missing(row) else row for row in rows], what)
    else:
        array = as_array(value, what)
    if array.ndim == 1 and len(classes) == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] != len(classes) or array.dtype.kind not in "fiub":
        raise Rejected(f"{what}_shape", f"{what} of shape {array.shape}; expected (n, {len(classes)}) of 0 and 1")
    unknown = np.isnan(array) if array.dtype.kind == "f" else array == -1
    wrong = ~(unknown | (array == 0) | (array == 1))
    return np.where(unknown | wrong, -1, array == 1).astype(np.int8), wrong.any(axis=1)


def targets(value: Any, what: str) -> tuple[Array, Array]:
    """Return values of a regression as floats, NaN where missing, and which rows hold something else."""
    values = as_list(_single(value), what)
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "Mm":
            raise Rejected(f"{what}_dtype", f"{what} of dtype {values.dtype}; expected numbers")
        return values.astype(np.float64), np.zeros(len(values), dtype=bool)
    found, wrong = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for i, number in enumerate(values):
        if not is_missing(number):
            with suppress(TypeError, ValueError, OverflowError):
                found[i] = np.nan if isinstance(number, str | bytes) else float(number)
            wrong[i] = bool(np.isnan(found[i]))
    if len(wrong) and wrong.all():
        raise Rejected(f"{what}_dtype", f"{what} hold something other than numbers")
    return found, wrong


def _short(classes: Classes) -> str:
    return f"{list(classes.names[:5])}"[:-1] + (", …]" if len(classes) > 5 else "]")


def _same_length(labels: Array, rows: int) -> None:
    if len(labels) != rows:
        raise Rejected("length_mismatch", f"{len(labels)} labels for {rows} rows")


def _has_names(value: Any, least: int = 2) -> bool:
    """Return whether a value has at least so many columns with names."""
    if isinstance(value, dict):
        return True
    if isinstance(value, np.ndarray) and value.dtype.names is not None:
        return len(value.dtype.names) >= least
    if isinstance(value, np.ndarray | list) or not frames.is_frame(value) or frames.is_lazy(value):
        return frames.is_lazy(value)
    return len(frames.columns(value)[0]) >= least


def _single(value: Any) -> Any:
    """Return the values of a frame's only column; anything else as it is."""
    if isinstance(value, np.ndarray | list) or not frames.is_frame(value):
        return value
    names, column = frames.columns(value)
    return column(0).values if len(names) == 1 else value


def _one_hot(array: Array, classes: Classes, what: str) -> Array:
    if array.ndim != 2 or array.shape[1] != len(classes):
        raise Rejected(f"{what}_shape", f"{what} of shape {array.shape}; expected (n,) or (n, {len(classes)}) one-hot")
    if array.dtype.kind == "O":
        array = np.where(np.vectorize(is_missing, otypes=[bool])(array), np.nan, array).astype(np.float64)
    if array.dtype.kind not in "iufb":
        raise Rejected(f"{what}_dtype", f"one-hot {what} of dtype {array.dtype}")
    missing = np.isnan(array).all(axis=1) if array.dtype.kind == "f" else np.zeros(len(array), dtype=bool)
    ones, zeros = array == 1, array == 0
    valid = (ones | zeros).all(axis=1) & (ones.sum(axis=1) == 1)
    codes: Array = np.where(valid, ones.argmax(axis=1), NOT_ONE_HOT).astype(np.int64)
    codes[missing] = UNLABELLED
    return codes


def _are_flags(rows: list[Any], classes: int) -> bool:
    """Return whether rows of a multilabel model are 0 and 1 for each class, rather than names."""
    given = [row for row in rows if not is_missing(row)]
    return all(
        isinstance(row, list | tuple | np.ndarray)
        and len(row) == classes
        and all(isinstance(flag, int | float | np.number | np.bool_) for flag in row)
        for row in given
    )


def _members_by_name(rows: list[Any], classes: Classes, what: str) -> tuple[Array, Array]:
    found = np.zeros((len(rows), len(classes)), dtype=np.int8)
    wrong = np.zeros(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        if is_missing(row):
            found[i] = UNLABELLED
        elif not isinstance(row, _COLLECTIONS):
            if not any(isinstance(each, _COLLECTIONS) for each in rows):
                raise Rejected(
                    f"{what}_dtype", f"{what} hold a {type(row).__name__}; expected a list of names for each row"
                )
            found[i], wrong[i] = UNLABELLED, True
        elif len(row):
            codes = classes.indices(list(row), what.removesuffix("s"))
            if (codes < 0).any():
                found[i], wrong[i] = UNLABELLED, True
            else:
                found[i, codes] = 1
    return found, wrong


def _example(value: Any, i: int) -> str:
    try:
        return f"{np.asarray(value, dtype=object)[i] if not isinstance(value, list) else value[i]!r:.60}"
    except Exception:  # noqa: BLE001 - only an example for a message
        return f"of row {i}"
