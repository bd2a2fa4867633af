"""What a model returned: probabilities and predictions in the wire's form, with the rows that cannot be taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon._capture import frames, labels, named
from zmon._capture.classes import Classes
from zmon._capture.columns import as_array
from zmon._capture.faults import Faults
from zmon._capture.values import is_missing
from zmon.batch import Array
from zmon.errors import ConfigurationError, Rejected

# How far the probabilities of a row may sum to something other than 1: bfloat16, or rounding to two digits, gets there.
SUM_SLACK = 0.02
_ROWS = (list, tuple, np.ndarray)


class Outputs(NamedTuple):
    """Columns of outputs, the classes that they imply, and the names of a frame's columns, if it named classes.

    `predictions` are those that were given and are published, for messages.
    """

    columns: list[tuple[str, Array]]
    classes: Classes | None
    named: Sequence[Any] | None
    predictions: Any = None


def read(probabilities: Any, predictions: Any, task: str, classes: Classes | None) -> Outputs:
    """Read the outputs of a call; Rejected if they cannot be used. Values are checked by `check`."""
    columns: list[tuple[str, Array]] = []
    names: Sequence[Any] | None = None
    given = None if task == "multilabel" and probabilities is not None else predictions
    if probabilities is None and predictions is None:
        raise Rejected("probabilities_missing", "neither probabilities nor predictions given; pass one")
    if task == "multilabel" and probabilities is None:
        # The wire has no column for them; sets of classes are the probabilities 0 and 1.
        probabilities, predictions = _members(predictions, classes), None
    if probabilities is not None:
        if task == "regression":
            raise Rejected("probabilities_task", f"a {task} model publishes predictions=, not probabilities")
        array, classes, names = _probabilities(probabilities, task, classes)
        columns.append(("probabilities", array))
    if predictions is not None and task != "multilabel":
        columns.append(("predictions", _predictions(predictions, task, classes)))
    rows = len(columns[0][1])
    if any(len(array) != rows for _, array in columns):
        raise Rejected("length_mismatch", f"{len(columns[1][1])} predictions for {rows} rows of probabilities")
    return Outputs(columns, classes, names, given)


def check(outputs: Outputs, task: str, rejected: Faults, degraded: Faults) -> list[tuple[str, Array]]:
    """Record rows with invalid values, and return the columns with harmless ones in their place."""
    columns = []
    for name, array in outputs.columns:
        if name == "probabilities":
            if task == "multilabel" and outputs.predictions is not None:
                unknown = np.asarray(np.isnan(array).any(axis=1))
                detail = "a prediction is missing, or holds something other than names of the classes"
                rejected.add("prediction_unknown", detail, unknown)
            array = _check_probabilities(array, task, rejected, degraded)
        elif task == "regression":
            finite = np.isfinite(array)
            if not finite.all():
                rejected.add("predictions_nan", "a prediction is NaN, infinite, or not a number", ~finite)
                array = np.where(finite, array, 0.0)
        else:
            assert outputs.classes is not None
            array = np.maximum(labels.explain(array, outputs.predictions, outputs.classes, "predictions", rejected), 0)
        columns.append((name, array))
    return columns


def _probabilities(value: Any, task: str, classes: Classes | None) -> tuple[Array, Classes, Sequence[Any] | None]:
    names: Sequence[Any] | None = None
    columns = named.read(value, "probabilities")
    if columns is None:
        if classes is not None and frames.is_series(value) and _indexed_by(value, classes):
            raise Rejected("classes_order", "probabilities are a Series of classes; pass a frame, as frame.iloc[[i]]")
        array = as_array(_rows(value), "probabilities")
        if array.dtype.kind == "O":
            array = _objects(array)
    else:
        array, names = named.aligned(columns, classes, "probabilities")
    if array.dtype.char not in "efd":
        if array.dtype.kind not in "fiub":
            raise Rejected("probabilities_dtype", f"probabilities of dtype {array.dtype}; expected floats")
        array = array.astype(np.float64)
    shape, multilabel = array.shape, task == "multilabel"
    dimensions = len(shape)
    if dimensions == 2 and shape[1] == 1 and not multilabel:
        array, dimensions = array[:, 0], 1
    if classes is None:
        width = 2 if dimensions == 1 else shape[-1] if shape else 0
        if dimensions not in ((2,) if multilabel else (1, 2)) or width < (1 if multilabel else 2):
            raise Rejected(
                "probabilities_shape",
                f"probabilities of shape {shape}; expected (n, n_classes), or (n,) of two classes",
            )
        classes = _new_classes(width if names is None else names, multilabel)
    width = len(classes)
    if not (dimensions == 2 and shape[1] == width) and not (dimensions == 1 and width == 2 and not multilabel):
        expected = f"(n, {width})" + (" or (n,)" if width == 2 and not multilabel else "")
        raise Rejected("probabilities_shape", f"probabilities of shape {shape}; expected {expected}")
    return array, classes, names


def _indexed_by(series: Any, classes: Classes) -> bool:
    """Return whether a series of one dimension has a value for each class, rather than for each row."""
    index = series.index if hasattr(series, "to_dict") else ()
    return len(index) == len(classes) and {str(name) for name in index} == set(classes.names)


def _rows(value: Any) -> Any:
    """Return a list of rows as an array of objects if one of them is missing; anything else as it is."""
    if not isinstance(value, list) or not any(map(is_missing, value)):
        return value
    rows = np.empty(len(value), dtype=object)
    rows[:] = value
    return rows


def _objects(array: Array) -> Array:
    """Return numbers, or rows of numbers, as floats, NaN where missing."""
    values = array.ravel().tolist()
    width = next((len(row) for row in values if isinstance(row, _ROWS) and not is_missing(row)), None)
    try:
        if width is None:
            return np.array([np.nan if is_missing(each) else each for each in values], float).reshape(array.shape)
        rows = [[np.nan] * width if is_missing(row) else row for row in values]
        return np.array([[np.nan if is_missing(each) else each for each in row] for row in rows], float)
    except (TypeError, ValueError):
        raise Rejected("probabilities_dtype", "probabilities hold something other than numbers") from None


def _new_classes(given: Any, multilabel: bool) -> Classes:
    try:
        return Classes(given, 1 if multilabel else 2)
    except ConfigurationError as error:
        raise Rejected("probabilities_shape", f"the columns' names cannot be classes: {error}") from None


def _check_probabilities(array: Array, task: str, rejected: Faults, degraded: Faults) -> Array:
    """Record rows with NaN, and rows that are no distribution; the shared checks see to the range."""
    floats = array.astype(np.float32) if array.dtype == np.float16 else array
    sums = floats if array.ndim == 1 else np.einsum("ij->i", floats)  # without threads, unlike @
    off = np.abs(sums - 1.0) if array.ndim == 2 and task == "classification" else None
    if (off is not None and off.max() <= SUM_SLACK) or (off is None and np.isfinite(sums).all()):
        return array
    finite = np.isfinite(sums)
    if not finite.all():
        rejected.add("probabilities_nan", "a probability is NaN or infinite", ~finite)
        array = np.where(finite if array.ndim == 1 else finite[:, np.newaxis], array, array.dtype.type(0))
    if off is not None:
        wrong = finite & (off > SUM_SLACK)
        degraded.add(
            "probabilities_sum",
            f"the probabilities of a row sum to {sums[wrong][0] if wrong.any() else 1:.4g}, not 1; independent classes "
            'need task="multilabel", logits output="logits"',
            wrong,
        )
    return array


def _predictions(value: Any, task: str, classes: Classes | None) -> Array:
    if task == "regression":
        found, wrong = labels.targets(value, "predictions")
        found[wrong] = np.nan
        return found
    if classes is None:
        raise Rejected("classes_missing", "predictions= of a classifier need classes=[…] in the constructor")
    return labels.indices(value, classes, "predictions")


def _members(value: Any, classes: Classes | None) -> Array:
    """Return predicted sets of classes as the probabilities 0 and 1, NaN where they are not known."""
    if classes is None:
        raise Rejected("classes_missing", "predictions= of a multilabel model need classes=[…] in the constructor")
    found, _ = labels.members(value, classes, "predictions")
    return np.where(found < 0, np.nan, found).astype(np.float32)
