"""From one publish call's arguments to pieces for the ring: check shapes, snapshot once. Runs in the model's thread.

What a check costs is paid by the model, so only what is cheap is settled here; the collector checks the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zmon.batch import Array, Schema
from zmon.buffer import Layout, Piece
from zmon.columns import as_array, class_labels, identifiers, nanoseconds, targets
from zmon.errors import ConfigurationError, Rejected
from zmon.inputs import FeaturePlan, matrix
from zmon.settings import name
from zmon.wire import MAX_COLUMNS, MAX_ROWS, encode_schema, schema_hash

MESSAGE_BYTES = 4 * 2**20  # a larger batch travels as several messages
SCHEMA_LIMIT = 64  # schemas one publisher may go through; a column set that changes with every call is a mistake

_FLOATS = frozenset("efd")
_WIRE_DTYPES: dict[np.dtype[Any], str] = {
    np.dtype(code): np.dtype(code).newbyteorder("<").str
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
}


class Capture:
    """Turns arguments into pieces under the publisher's schema. Holds no lock: every method may run in many threads."""

    def __init__(
        self,
        *,
        task: str,
        classes: Sequence[object] | int | None,
        features: Sequence[str] | None,
        include: Sequence[str] | None,
        exclude: Sequence[str] | None,
        threshold: float,
        tags: dict[str, str],
        sample_rate: float,
    ) -> None:
        self.task = task
        self.threshold = threshold
        self.tags = tags
        self.include, self.exclude = include, exclude
        self.features = None if features is None else tuple(features)
        self.rate = sample_rate
        self.random = np.random.default_rng()
        self.schemas: dict[bytes, bytes] = {}  # body by hash: what the transport sends
        self._latest: bytes | None = None
        self._plans: dict[tuple[str, ...] | int | None, tuple[FeaturePlan | None, bytes]] = {}
        self.classes: tuple[str, ...] = ()
        self._indices: dict[object, int] = {}
        if task == "classification" and classes is not None:
            self._name_classes(classes)

    def _name_classes(self, classes: Sequence[object] | int) -> None:
        if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
            given: list[object] = [f"class_{i}" for i in range(int(classes))]
        elif isinstance(classes, str) or not hasattr(classes, "__iter__"):
            raise ConfigurationError(f"classes must be a sequence of names or a count, got {classes!r:.60}")
        else:
            given = [each.item() if isinstance(each, np.generic) else each for each in classes]
        if len(given) < 2:
            raise ConfigurationError(f"classes must be at least two, got {given}; a binary model has two")
        if len(given) > MAX_COLUMNS:
            raise ConfigurationError(f"{len(given)} classes; at most {MAX_COLUMNS}")
        if len({isinstance(each, str) for each in given}) != 1:
            raise ConfigurationError(f"classes mix text and numbers: {given[:5]}")
        names = tuple(name("a class name", str(each)) for each in given)
        if len(set(names)) != len(names):
            twice = sorted(each for each in set(names) if names.count(each) > 1)
            raise ConfigurationError(f"classes repeat a name: {twice[:5]}")
        self._indices = {each: i for i, each in enumerate(given)}
        self.classes = names

    # --- one call ----------------------------------------------------------------------------------------------------

    def pieces(
        self,
        probabilities: Any,
        inputs: Any,
        labels: Any,
        predictions: Any,
        ids: Any,
        timestamps: Any,
        now: int,
    ) -> tuple[list[tuple[Layout, Piece, int]], int]:
        """Snapshots of the rows, each with its layout and size in bytes, and the number of rows sampled out.

        Raises Rejected with the reason when the arguments cannot be a batch.
        """
        columns: list[tuple[str, Array]] = []
        if probabilities is not None:
            columns.append(("probabilities", self._probabilities(probabilities)))
        if predictions is not None:
            columns.append(("predictions", self._predictions(predictions)))
        if not columns:
            raise Rejected("probabilities_missing", "neither probabilities nor predictions were given")
        rows = len(columns[0][1])
        if not rows:
            return [], 0
        plan, schema = None, self._latest
        if inputs is not None:
            array, plan, schema = self._inputs(inputs)
            self._latest = schema  # a later call without inputs then speaks of the same columns
            columns.append(("inputs", array))
        if labels is not None:
            columns.append(("labels", self._labels(labels)))
        if ids is not None:
            columns.append(("ids", identifiers(ids)))
        if timestamps is not None:
            when = nanoseconds(timestamps)
            if isinstance(when, int):
                now = when
            else:
                columns.append(("timestamps", when))
        for column, array in columns:
            if len(array) != rows:
                raise Rejected("length_mismatch", f"{column} of {len(array)} rows beside {columns[0][0]} of {rows}")
        if plan is not None and plan.where is not None:
            columns = [(n, array[:, plan.where] if n == "inputs" else array) for n, array in columns]
        kept = rows
        if self.rate < 1.0:
            mask = self.random.random(rows) < self.rate
            kept = int(np.count_nonzero(mask))
            columns = [(n, array[mask]) for n, array in columns]
        if schema is None:
            schema = self._plan(None)[1]
        return self._snapshots(schema, columns, kept, now), rows - kept

    def _snapshots(
        self, schema: bytes, columns: list[tuple[str, Array]], rows: int, now: int
    ) -> list[tuple[Layout, Piece, int]]:
        if not rows:
            return []
        arrays = []
        nbytes = 0
        for i, (column, array) in enumerate(columns):
            code = _WIRE_DTYPES.get(array.dtype)
            if code is None:
                array = _native(array)
                columns[i] = (column, array)
                code = _WIRE_DTYPES.get(array.dtype, array.dtype.str)
            arrays.append((column, code, array.shape[1] if array.ndim == 2 else None))
            nbytes += array.nbytes
        layout = Layout(schema, tuple(arrays))
        if nbytes <= MESSAGE_BYTES and rows <= MAX_ROWS:
            return [(layout, Piece(rows, now, [array.tobytes() for _, array in columns]), nbytes)]
        step = min(MESSAGE_BYTES * rows // nbytes, MAX_ROWS)
        cut = []
        for start in range(0, rows, step):
            buffers = [array[start : start + step].tobytes() for _, array in columns]
            count = min(step, rows - start)
            cut.append((layout, Piece(count, now, buffers), sum(map(len, buffers))))
        return cut

    # --- columns -----------------------------------------------------------------------------------------------------

    def _probabilities(self, value: Any) -> Array:
        if self.task != "classification":
            raise Rejected("probabilities_task", f"a {self.task} model publishes predictions=, not probabilities")
        array = as_array(value, "probabilities")
        if array.dtype.char not in _FLOATS:
            array = _floats(array)
        shape = array.shape
        dimensions = len(shape)
        if dimensions == 2 and shape[1] == 1:
            array, dimensions = array[:, 0], 1
        if not self.classes:
            self._infer_classes(2 if dimensions == 1 else shape[-1], dimensions)
        width = len(self.classes)
        if not (dimensions == 2 and shape[1] == width) and not (dimensions == 1 and width == 2):
            expected = f"(n, {width})" + (" or (n,)" if width == 2 else "")
            raise Rejected("probabilities_shape", f"probabilities of shape {shape}; expected {expected}")
        # One pass settles NaN, infinities and most values that are no probabilities: the squares of a row sum to at
        # most 1. The collector checks the range exactly.
        flat = array.reshape(-1)
        if array.dtype.char == "e":
            flat = flat.astype(np.float32)
        squares = float(np.vdot(flat, flat))
        if not squares <= shape[0] * 1.0001:
            _explain(array)
        return array

    def _infer_classes(self, width: int, dimensions: int) -> None:
        if dimensions not in (1, 2) or width < 2:
            raise Rejected("probabilities_shape", "probabilities name no classes; expected (n, n_classes)")
        self._name_classes(width)

    def _predictions(self, value: Any) -> Array:
        if self.task == "regression":
            array = targets(value, "predictions")
            if not np.isfinite(array).all():
                raise Rejected("predictions_nan", "a prediction is NaN or infinite")
            return array
        if not self.classes:
            raise Rejected("classes_missing", "predictions= of a classifier need classes=[…] in the constructor")
        try:
            array = class_labels(value, self.classes, self._indices)
        except Rejected as error:
            reason = error.reason.replace("labels", "predictions").replace("label", "prediction")
            raise Rejected(reason, str(error)) from None
        if (array < 0).any():
            raise Rejected("predictions_nan", "a prediction is None or NaN")
        return array

    def _labels(self, value: Any) -> Array:
        if self.task == "regression":
            return targets(value, "labels")
        return class_labels(value, self.classes, self._indices)

    def _inputs(self, value: Any) -> tuple[Array, FeaturePlan, bytes]:
        array, names = matrix(value, self.features)
        known = self._plans.get(array.shape[1] if names is None else names)
        plan, schema = known if known is not None else self._plan(array.shape[1] if names is None else names)
        if plan is None or plan.width != array.shape[1]:
            expected = self.features and len(self.features)
            raise Rejected("inputs_shape", f"inputs of {array.shape[1]} columns; {expected} features were declared")
        if array.dtype not in _WIRE_DTYPES:
            array = _native(array)
        return array, plan, schema

    def _plan(self, key: tuple[str, ...] | int | None) -> tuple[FeaturePlan | None, bytes]:
        """The column plan and schema for inputs of these names, of this width, or for no inputs at all (None)."""
        known = self._plans.get(key)
        if known is not None:
            return known
        if len(self._plans) >= SCHEMA_LIMIT:
            raise Rejected("schema_changes", f"inputs changed columns {SCHEMA_LIMIT} times; name features=[…]")
        if self.features is not None:
            given = self.features
        elif isinstance(key, int):
            given = tuple(f"feat_{i}" for i in range(key))
        else:
            given = key or ()
        if not given and key is None:
            plan = None
        else:
            if not 1 <= len(given) <= MAX_COLUMNS or len(set(given)) != len(given):
                raise Rejected("inputs_columns", f"{len(given)} features, or two of one name")
            plan = FeaturePlan(given, self.include, self.exclude)
            if not plan.names:
                raise Rejected("inputs_columns", "include and exclude leave no feature")
        names = plan.names if plan else ()
        body = encode_schema(
            Schema(self.task, self.classes, names, ("numeric",) * len(names), self.threshold, self.tags)
        )
        digest = schema_hash(body)
        self.schemas[digest] = body
        self._plans[key] = (plan, digest)
        return plan, digest


def _floats(array: Array) -> Array:
    if array.dtype.kind not in "fiub":
        raise Rejected("probabilities_dtype", f"probabilities of dtype {array.dtype}; expected floats")
    return array.astype(np.float64)


def _native(array: Array) -> Array:
    """The same values in a dtype the wire knows: little-endian, at most 64 bits."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="))


def _explain(array: Array) -> None:
    """Raise Rejected for values that are no probabilities; return if they are after all."""
    if not np.isfinite(array).all():
        raise Rejected("probabilities_nan", "a probability is NaN or infinite")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1.0001:
        raise Rejected("probabilities_range", f"probabilities from {low:.4g} to {high:.4g}; are these logits?")
