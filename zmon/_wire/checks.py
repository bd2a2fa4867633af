"""Checks of schemas and columns, for both sides of the wire: what passes here, a collector accepts. Pure.

Every check raises WireError with a reason for counting and a detail for people, which names the column or class, the
value, and the limit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from zmon.batch import KINDS, SLACK, TASKS, Array, Names, Schema
from zmon.errors import WireError
from zmon.names import LENGTH, is_name, readable

MAX_ROWS = 2**20  # of one message
MAX_COLUMNS = 2**16
MAX_CELLS = 2**25  # rows times features of one message: rows that have some features may get a column of each
MAX_NAME = 1024  # characters of the name of a feature
MAX_TAGS = 64
MAX_SEGMENTS = 8  # columns by whose values series are split: each value has accumulators of its own
MAX_VECTORS = 2  # columns of kind "vector" whose values are sent: each is an array of its own, and messages have 16
MAX_DETAIL = 200  # characters of a detail that is sent, stored or shown
A_NAME = f"names have 1 to {LENGTH} printable characters"
ROUNDING = 1e-6  # how far a probability may lie outside of [0, 1]; it is clipped

NUMBERS = frozenset({"<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"})
_TEXT = re.compile(r"\|S([1-9][0-9]{0,2})")
_LEAST_CLASSES = {"classification": 2, "multilabel": 1}
# name → allowed numbers of dimensions, allowed dtype kinds. Arrays with other names, from a newer minor, are ignored.
_ARRAYS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "probabilities": ((1, 2), "f"),
    "predictions": ((1,), "if"),
    "inputs": ((2,), "fiub"),
    "labels": ((1, 2), "if"),
    "ids": ((1,), "iuS"),
    "timestamps": ((1,), "i"),
    "codes": ((2,), "i"),
    "segments": ((2,), "i"),
    "hashes": ((2,), "u"),
    "lengths": ((2,), "i"),
}
_EXACT = {"timestamps": "<i8", "hashes": "<u8"}  # arrays of one dtype only

# The names of the schema that an array has a column for each of.
_NAMES_OF = {
    "inputs": "numeric",
    "codes": "categorical",
    "segments": "segments",
    "hashes": "hashed",
    "lengths": "hashed",
}


def short_detail(detail: str) -> str:
    """Return a detail as it may be sent, stored and shown: printable, and at most MAX_DETAIL characters.

    >>> short_detail("column 'a\\n' " + "x" * 300)[-3:], len(short_detail("x" * 300))
    ('xx…', 200)
    """
    if len(detail) > MAX_DETAIL:
        detail = detail[: MAX_DETAIL - 1] + "…"
    return detail if detail.isprintable() else "".join(c if c.isprintable() else "�" for c in detail)


# --- schemas --------------------------------------------------------------------------------------------------------


def check_schema(schema: Schema) -> None:
    """Check the names, kinds and numbers of a schema; WireError ``schema`` or ``task`` if one is not allowed."""
    if schema.task not in TASKS:
        raise WireError("task", f"{schema.task!r:.60}; expected one of {', '.join(TASKS)}")
    for what in ("classes", "features", "segments", "hashed"):
        check_names(what, getattr(schema, what))
    if len(schema.kinds) != len(schema.features):
        raise WireError("schema", f"{len(schema.kinds)} kinds for {len(schema.features)} features")
    unknown = set(schema.kinds) - set(KINDS)
    if unknown:
        raise WireError("schema", f"unknown kind {min(unknown)!r:.60}; expected one of {', '.join(KINDS)}")
    kinds = dict(zip(schema.features, schema.kinds, strict=True)) if schema.hashed else {}
    for name in schema.hashed:
        if kinds.get(name) != "categorical":
            raise WireError("schema", f"hashed names {name!r:.80}, which is not a categorical feature")
    least = _LEAST_CLASSES.get(schema.task)
    if len(schema.classes) < (least or 0) or (least is None and schema.classes):
        raise WireError("schema", f"{len(schema.classes)} classes for task {schema.task!r}")
    if not 0 <= schema.threshold <= 1:
        raise WireError("schema", f"threshold {schema.threshold!r:.40} outside of [0, 1]")
    if len(schema.tags) > MAX_TAGS:
        raise WireError("schema", f"{len(schema.tags)} tags; at most {MAX_TAGS}")
    for tag, value in schema.tags.items():
        if not 0 < len(tag) <= MAX_NAME or not 0 < len(value) <= MAX_NAME:
            raise WireError("schema", f"tag {tag!r:.60}: names and values have 1 to {MAX_NAME} characters")


def published(schema: Schema) -> Schema:
    """Return a publisher's schema with the names of its columns readable, as tables may give them any characters.

    WireError ``schema`` if a class, a segment or a tag has a name that no publisher gives. `check_schema` allows them,
    because the joint schema of a window has what several publishers sent, perhaps to an earlier release.
    """
    if len(schema.segments) > MAX_SEGMENTS:
        raise WireError("schema", f"{len(schema.segments)} segments; a publisher has at most {MAX_SEGMENTS}")
    long = [name for name in schema.segments if len(name) > LENGTH]
    if long:
        raise WireError("schema", f"the segment {long[0]!r:.80} has {len(long[0])} characters; {A_NAME}")
    tags = (text for pair in schema.tags.items() for text in pair)
    for what, given in (("class", schema.classes), ("tag", tags)):
        for name in given:
            if not is_name(name):
                raise WireError("schema", f"a {what} is named {name!r:.80}; {A_NAME}")
    columns = (schema.features, schema.segments, schema.hashed)
    features, segments, hashed = (tuple(readable(name, MAX_NAME) for name in names) for names in columns)
    if (features, segments, hashed) == columns:
        return schema
    schema = replace(schema, features=features, segments=segments, hashed=hashed)
    check_schema(schema)
    return schema


def check_names(what: str, names: Names) -> None:
    """Check names of classes, features or segments; WireError ``schema`` if one is empty, too long or repeated."""
    if len(names) > MAX_COLUMNS:
        raise WireError("schema", f"{len(names)} {what}; at most {MAX_COLUMNS}")
    for place, name in enumerate(names):
        if not 0 < len(name) <= MAX_NAME:
            raise WireError("schema", f"{what}[{place}] has {len(name)} characters; names have 1 to {MAX_NAME}")
    if len(set(names)) != len(names):
        name, _ = Counter(names).most_common(1)[0]
        raise WireError("schema", f"{what} repeat the name {name!r:.80}")


# --- arrays ---------------------------------------------------------------------------------------------------------


def check_array(name: str, dtype: str, shape: Sequence[int], rows: int) -> int | None:
    """Return the size in bytes of an element of the array; None if this release does not read arrays of this name.

    WireError ``dtype`` or ``shape`` if it is not allowed for a message of so many rows.
    """
    if name not in _ARRAYS:
        return None
    dimensions, kinds = _ARRAYS[name]
    itemsize = _itemsize(dtype)
    if dtype[1] not in kinds or dtype != _EXACT.get(name, dtype):
        raise WireError("dtype", f"{name} as {dtype}")
    if len(shape) not in dimensions or not all(type(n) is int and 0 <= n <= MAX_ROWS for n in shape):
        raise WireError("shape", f"{name} of shape {shape!r:.60}")
    if shape[0] != rows or (len(shape) == 2 and not 1 <= shape[1] <= MAX_COLUMNS):
        raise WireError("shape", f"{name} of shape {shape} for {rows} rows")
    return itemsize


def _itemsize(dtype: str) -> int:
    if dtype in NUMBERS:
        return int(dtype[2])
    text = _TEXT.fullmatch(dtype)
    if text is None:
        raise WireError("dtype", repr(dtype)[:40])
    return int(text[1])


# --- columns --------------------------------------------------------------------------------------------------------


def check_columns(columns: Mapping[str, Array], schema: Schema) -> Mapping[str, Array]:
    """Return the columns of a batch, with probabilities clipped to [0, 1]; WireError if they do not fit the schema."""
    probabilities = columns.get("probabilities")
    if probabilities is not None:
        clipped = _probabilities(probabilities, schema)
        if clipped is not probabilities:
            columns = {**columns, "probabilities": clipped}
    if schema.task == "regression":
        _check_regression(columns)
    else:
        if probabilities is None and (schema.task == "multilabel" or "predictions" not in columns):
            raise WireError("probabilities_missing", f"task {schema.task!r} needs probabilities")
        if "predictions" in columns:
            if schema.task == "multilabel":
                raise WireError("predictions_shape", "a multilabel model sends probabilities, and no predictions")
            _check_indices("predictions", columns["predictions"], 0, len(schema.classes))
        if "labels" in columns:
            _check_class_labels(columns["labels"], schema)
    if ("hashes" in columns) != ("lengths" in columns):
        raise WireError("hashes_shape", "hashes and lengths come together")
    for name, column in columns.items():
        if name in _NAMES_OF and column.shape[1] != (width := len(getattr(schema, _NAMES_OF[name]))):
            raise WireError(f"{name}_shape", f"{column.shape[1]} columns, {width} in the schema")
    _check_times(columns)
    return columns


def most_rows(schema: Schema) -> int:
    """Return how many rows one message may have: a publisher cuts a larger batch.

    >>> most_rows(Schema("regression", (), ("x",), ("numeric",)))
    1048576
    """
    return min(MAX_ROWS, MAX_CELLS // max(1, len(schema.features)))


def check_labels(columns: Mapping[str, Array], schema: Schema) -> None:
    """Check ids and labels that arrive after their predictions; WireError if they do not fit the schema."""
    labels = columns["labels"]
    if schema.task != "regression":
        _check_class_labels(labels, schema)
    elif labels.dtype.kind != "f" or labels.ndim != 1:
        raise WireError("labels_dtype", f"{labels.dtype} of shape {labels.shape}; a regression has float labels")
    _check_times(columns)


def _probabilities(p: Array, schema: Schema) -> Array:
    classes = len(schema.classes)
    if schema.task == "regression":
        raise WireError("probabilities_task", "a regression publishes predictions, not probabilities")
    if p.ndim == 1 and (classes != 2 or schema.task == "multilabel"):
        raise WireError("probabilities_shape", f"one column for {classes} classes")
    if p.ndim == 2 and p.shape[1] != classes:
        raise WireError("probabilities_shape", f"{p.shape[1]} columns for {classes} classes")
    low, high = np.minimum.reduce(p, None), np.maximum.reduce(p, None)  # as min() and max(), without their detour
    if low >= 0.0 and high <= 1.0:
        return p
    most = SLACK if p.dtype == np.float16 else 1.0 + ROUNDING
    if not (low >= -ROUNDING and high <= most):  # also if one is NaN
        wrong = float(high if high > most else low)
        raise WireError("probabilities_range", f"a probability is {wrong:.9g}; expected values in [0, 1]")
    return np.clip(p, 0.0, 1.0)


def _check_regression(columns: Mapping[str, Array]) -> None:
    predictions = columns.get("predictions")
    if predictions is None:
        raise WireError("predictions_missing", "a regression needs predictions")
    for name in ("predictions", "labels"):
        column = columns.get(name)
        if column is not None and (column.dtype.kind != "f" or column.ndim != 1):
            raise WireError("predictions_missing", f"{name} are {column.dtype}; a regression has floats, one a row")
    if not np.isfinite(predictions).all():
        raise WireError("predictions_nan", "a prediction is NaN or infinite")


def _check_class_labels(labels: Array, schema: Schema) -> None:
    classes = len(schema.classes)
    if schema.task != "multilabel":
        _check_indices("labels", labels, -1, classes)
        return
    if labels.ndim != 2 or labels.shape[1] != classes:
        raise WireError("labels_shape", f"shape {labels.shape}; a multilabel model has one column a class ({classes})")
    if labels.dtype != np.int8:
        raise WireError("labels_dtype", f"{labels.dtype}; multilabel labels are int8")
    if labels.min() < -1 or labels.max() > 1:
        raise WireError("labels_index", "a multilabel label is not 0, 1, or −1 for missing")


def _check_indices(name: str, column: Array, least: int, classes: int) -> None:
    if column.ndim != 1:
        raise WireError(f"{name}_shape", f"shape {column.shape}; expected one index a row")
    if column.dtype.kind != "i":
        raise WireError(f"{name}_dtype", f"{column.dtype}; expected integers")
    low, high = int(column.min()), int(column.max())
    if low < least or high >= classes:
        raise WireError(f"{name}_index", f"index {low if low < least else high} with {classes} classes")


def _check_times(columns: Mapping[str, Array]) -> None:
    times = columns.get("timestamps")
    if times is not None and times.min() < 0:
        raise WireError("timestamp_invalid", "a timestamp is before 1970")
