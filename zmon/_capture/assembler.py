"""From one publish call's arguments to pieces for the ring: check shapes, snapshot once. Runs in the model's thread.

What a check costs is paid by the model, so only what is cheap is settled here; the collector checks the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon import categories
from zmon._capture import inputs
from zmon._capture.columns import as_array, class_labels, identifiers, nanoseconds, targets
from zmon._capture.fast_path import FastPath
from zmon._capture.inputs import FeaturePlan
from zmon._capture.kinds import categorical
from zmon._transport.buffer_pool import BufferPool
from zmon._transport.ring import Bytes, RingLayout, RingPiece
from zmon._transport.settings import name
from zmon._wire.frames import BLOBS, MAX_COLUMNS, MAX_ROWS, encode_schema, schema_hash
from zmon.batch import KINDS, SLACK, Array, Schema
from zmon.categories import Dictionaries
from zmon.errors import ConfigurationError, Rejected

MESSAGE_BYTES = 4 * 2**20  # a larger batch travels as several messages
SCHEMA_LIMIT = 64  # sets of columns one publisher may go through; one that changes with every call is a mistake
SEGMENTS = 8  # columns of segments

_FLOATS = frozenset("efd")
_WIRE_DTYPES: dict[np.dtype[Any], str] = {
    np.dtype(code): np.dtype(code).newbyteorder("<").str
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
}

Pieces = list[tuple[RingLayout, RingPiece, int]]  # of one batch, each with the bytes of its buffers


class Rows(NamedTuple):
    """Columns of one length, and the dictionaries of those that hold codes."""

    columns: list[tuple[str, Array]]
    dictionaries: dict[str, Dictionaries]

    def take(self, index: Any) -> Rows:
        return Rows([(each, array[index]) for each, array in self.columns], self.dictionaries)


class Assembler:
    """Turns arguments into pieces under the publisher's schema. Holds no lock: every method may run in many threads.

    The parameters are the publisher's, and `memory`: bytes kept for further snapshots of large batches.
    """

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
        kinds: Mapping[str, str] | None = None,
        memory: int = 0,
    ) -> None:
        self.task = task
        self.threshold = threshold
        self.tags = tags
        self.include, self.exclude = include, exclude
        self.features = None if features is None else tuple(features)
        self.rate = sample_rate
        self.kinds = dict(kinds or {})
        wrong = {each: kind for each, kind in self.kinds.items() if kind not in KINDS}
        if wrong:
            raise ConfigurationError(f"kinds are {', '.join(KINDS)}; got {dict(list(wrong.items())[:3])}")
        self.random = np.random.default_rng()
        self.schemas: dict[bytes, bytes] = {}  # body by hash: what the transport sends
        self._latest = FeaturePlan((), (), ())
        self._plans: dict[tuple[str, ...] | int, FeaturePlan] = {}
        self._better: dict[tuple[FeaturePlan, tuple[str, ...]], FeaturePlan] = {}
        self._copies = BufferPool(memory)
        self._forms = FastPath(MESSAGE_BYTES, self._copies)
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
        segments: Any = None,
    ) -> tuple[Pieces, int]:
        """Snapshots of the rows, each with its layout and size in bytes, and the number of rows sampled out.

        Raises Rejected with the reason when the arguments cannot be a batch.
        """
        plain = labels is None and predictions is None and ids is None and timestamps is None and segments is None
        if plain and (short := self._forms.take(probabilities, inputs, self._latest, now)) is not None:
            layout, self._latest, piece, nbytes = short
            return [(layout, piece, nbytes)], 0
        columns: list[tuple[str, Array]] = []
        dictionaries: dict[str, Dictionaries] = {}
        if probabilities is not None:
            columns.append(("probabilities", self._probabilities(probabilities)))
        if predictions is not None:
            columns.append(("predictions", self._predictions(predictions)))
        if not columns:
            raise Rejected("probabilities_missing", "neither probabilities nor predictions were given")
        rows = len(columns[0][1])
        if not rows:
            return [], 0
        plan = self._latest
        if inputs is not None:
            plan = self._inputs(inputs, columns, dictionaries)
            self._latest = plan  # a later call without inputs then speaks of the same columns
        segment_names = () if segments is None else _segments(segments, rows, columns, dictionaries)
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
        taken, kept = Rows(columns, dictionaries), rows
        if self.rate < 1.0:
            mask = self.random.random(rows) < self.rate
            kept = int(np.count_nonzero(mask))
            taken = taken.take(mask)
        schema = plan.schemas.get(segment_names) or self._schema(plan, segment_names)
        made = _snapshots(schema, taken, kept, now, self._copies)
        if plain and self.rate == 1.0 and (inputs is None or (plan.plain and plan.where is None)):
            self._forms.learn(probabilities, inputs, made[0][0], plan)
        return made, rows - kept

    def label_pieces(self, ids: Any, labels: Any, timestamps: Any, now: int) -> Pieces:
        """Snapshots of labels that come after their predictions, as `pieces` gives them.

        Raises Rejected with the reason when the arguments cannot be ids with their labels.
        """
        if self.task == "classification" and not self.classes:
            raise Rejected("classes_missing", "publish_labels() of a classifier needs classes=[…] in the constructor")
        columns = [("ids", identifiers(ids)), ("labels", self._labels(labels))]
        if timestamps is not None:
            when = nanoseconds(timestamps)
            if isinstance(when, int):
                now = when
            else:
                columns.append(("timestamps", when))
        rows = len(columns[0][1])
        for column, array in columns:
            if len(array) != rows:
                raise Rejected("length_mismatch", f"{column} of {len(array)} rows beside ids of {rows}")
        schema = self._latest.schemas.get(()) or self._schema(self._latest, ())
        return [
            (layout._replace(kind="labels"), piece, nbytes)
            for layout, piece, nbytes in _snapshots(schema, Rows(columns, {}), rows, now, self._copies)
        ]

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
        flat = array.reshape(-1)
        if array.dtype.char == "e":
            flat = flat.astype(np.float32)
        squares = float(np.vdot(flat, flat))
        if not squares <= shape[0] * SLACK:
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

    def _inputs(
        self, value: Any, columns: list[tuple[str, Array]], dictionaries: dict[str, Dictionaries]
    ) -> FeaturePlan:
        """Add the captured inputs to the columns; the plan they follow."""
        given = inputs.read(value, self.features)
        width = given.array.shape[1] if isinstance(given, inputs.Matrix) else len(given.columns)
        key = width if given.names is None else given.names
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans.setdefault(key, self._plan(key, isinstance(given, inputs.Matrix)))
        if plan.width != width:
            expected = self.features and len(self.features)
            raise Rejected("inputs_shape", f"inputs of {width} columns; {expected} features were declared")
        if isinstance(given, inputs.Matrix):
            if plan.plain:
                array = given.array
                columns.append(("inputs", array if plan.where is None else array[:, plan.where]))
                return plan
            given = inputs.of_matrix(given)
        converted, found = inputs.convert(given, plan, self.kinds)
        while found != plan.kinds and len(self._better) < SCHEMA_LIMIT:
            # The first values of a column settled its kind. Of two threads that do so at once one wins.
            better = FeaturePlan(plan.given, plan.places(), found)
            plan = self._plans[key] = self._better.setdefault((plan, found), better)
            converted, found = inputs.convert(given, plan, self.kinds)
        matrix, codes, names = inputs.assembled(converted, plan.kinds, given.rows)
        if matrix is not None:
            columns.append(("inputs", matrix))
        if codes is not None:
            columns.append(("codes", codes))
            dictionaries["codes"] = names
        return plan

    def _plan(self, key: tuple[str, ...] | int, numeric: bool) -> FeaturePlan:
        """What is captured of inputs of these names, or of this width."""
        if len(self._plans) >= SCHEMA_LIMIT:
            raise Rejected("schema_changes", f"inputs changed columns {SCHEMA_LIMIT} times; name features=[…]")
        if self.features is not None:
            given = self.features
        else:
            given = tuple(f"feat_{i}" for i in range(key)) if isinstance(key, int) else key
        if not 1 <= len(given) <= MAX_COLUMNS or len(set(given)) != len(given):
            raise Rejected("inputs_columns", f"{len(given)} features, or two of one name")
        where = inputs.chosen(given, self.include, self.exclude)
        if not where:
            raise Rejected("inputs_columns", "include and exclude leave no feature")
        return FeaturePlan(given, where, [self.kinds.get(given[i], "numeric" if numeric else "") for i in where])

    def _schema(self, plan: FeaturePlan, segments: tuple[str, ...]) -> bytes:
        """The hash of the schema for this plan, kept for the transport. Columns of no known kind are not in it."""
        known = [(feature, kind) for feature, kind in zip(plan.names, plan.kinds, strict=True) if kind]
        names, kinds = zip(*known, strict=True) if known else ((), ())
        body = encode_schema(Schema(self.task, self.classes, names, kinds, self.threshold, self.tags, segments))
        digest = schema_hash(body)
        if digest not in self.schemas and len(self.schemas) >= 2 * SCHEMA_LIMIT:
            raise Rejected("schema_changes", f"columns, kinds or segments changed {SCHEMA_LIMIT} times; name features=")
        self.schemas[digest] = body
        plan.schemas[segments] = digest
        return digest


def _segments(
    value: Any, rows: int, columns: list[tuple[str, Array]], dictionaries: dict[str, Dictionaries]
) -> tuple[str, ...]:
    """Add the segments' codes to the columns; their names."""
    if not isinstance(value, Mapping) or not all(isinstance(each, str) and 0 < len(each) <= 150 for each in value):
        raise Rejected("segments_invalid", "segments are no mapping of names, at most 150 characters, to columns")
    if not 1 <= len(value) <= SEGMENTS:
        raise Rejected("segments_invalid", f"{len(value)} segments; from 1 to {SEGMENTS}")
    coded = []
    for each, column in value.items():
        array = as_array(column, "segments")
        if array.ndim != 1:
            raise Rejected("segments_invalid", f"segment {each!r} of shape {array.shape}; expected (n,)")
        if len(array) != rows:
            raise Rejected("length_mismatch", f"segment {each!r} of {len(array)} values for {rows} rows")
        coded.append(categorical(array.tolist(), each))
    columns.append(("segments", np.column_stack([each.codes for each in coded])))
    dictionaries["segments"] = tuple(each.names for each in coded)
    return tuple(value)


def _snapshots(schema: bytes, taken: Rows, rows: int, now: int, copies: BufferPool) -> Pieces:
    """The rows as bytes, in as many pieces as their size asks for."""
    if not rows:
        return []
    nbytes = sum(array.nbytes for _, array in taken.columns)
    if rows == 1 or (nbytes <= MESSAGE_BYTES and rows <= MAX_ROWS):
        layout, buffers = _bytes(schema, taken, copies)
        nbytes = sum(map(len, buffers))
        if nbytes <= MESSAGE_BYTES or rows == 1:
            return [(layout, RingPiece(rows, now, buffers), nbytes)]
    step = max(1, min(MESSAGE_BYTES * rows // nbytes, MAX_ROWS))
    cut = []
    for start in range(0, rows, step):
        part = taken.take(slice(start, start + step))
        cut += _snapshots(schema, part, min(step, rows - start), now, copies)
    return cut


def _bytes(schema: bytes, taken: Rows, copies: BufferPool) -> tuple[RingLayout, list[Bytes]]:
    arrays: list[tuple[str, str, int | None]] = []
    buffers: list[Bytes] = []
    for column, array in taken.columns:
        if column in taken.dictionaries:
            array, names = categories.compact(array, taken.dictionaries[column])
            array = categories.narrow(array, names)
            blob = next(each for each, of in BLOBS.items() if of == column)
            arrays.append((blob, "|u1", None))
            buffers.append(categories.encode(len(array), names))
        code = _WIRE_DTYPES.get(array.dtype)
        if code is None:
            array = _native(array)
            code = _WIRE_DTYPES.get(array.dtype, array.dtype.str)
        arrays.append((column, code, array.shape[1] if array.ndim == 2 else None))
        buffers.append(copies.take(array))
    return RingLayout(schema, tuple(arrays)), buffers


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
    if low < 0 or high > SLACK:
        raise Rejected("probabilities_range", f"probabilities from {low:.4g} to {high:.4g}; are these logits?")
