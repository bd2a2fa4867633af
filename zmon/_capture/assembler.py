"""From one publish call's arguments to pieces for the ring: checks and layout. Runs in the engine's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon import categories
from zmon._capture import inputs
from zmon._capture.columns import as_array, class_labels, identifiers, nanoseconds, targets
from zmon._capture.fast_path import MESSAGE_BYTES, FastPath
from zmon._capture.inputs import FeaturePlan
from zmon._capture.kinds import categorical
from zmon._capture.selection import Selection
from zmon._capture.snapshot import Arguments, Unusable
from zmon._transport.buffer_pool import BufferPool
from zmon._transport.conversion import Conversion, Loss
from zmon._transport.intake import Snapshot
from zmon._transport.ring import Bytes, RingLayout, RingPiece
from zmon._transport.settings import name
from zmon._wire.checks import MAX_COLUMNS, MAX_ROWS, NUMBERS
from zmon._wire.frames import BLOBS, encode_schema, schema_hash
from zmon.batch import KINDS, SLACK, Array, Schema
from zmon.categories import Dictionaries
from zmon.errors import ConfigurationError, Rejected

SCHEMA_LIMIT = 64  # sets of columns that one publisher may go through; a set that changes every call is a mistake
SEGMENTS = 8  # columns of segments

_FLOATS = frozenset("efd")
_WIRE_DTYPES: dict[np.dtype[Any], str] = {np.dtype(code): code for code in NUMBERS}

Pieces = list[tuple[RingLayout, RingPiece, int]]  # of one batch, with the bytes of each piece's buffers


class Rows(NamedTuple):
    """Columns of one length, and the dictionaries of those that hold codes."""

    columns: list[tuple[str, Array]]
    dictionaries: dict[str, Dictionaries]

    def select(self, index: Any) -> Rows:
        return Rows([(column, array[index]) for column, array in self.columns], self.dictionaries)


class Assembler:
    """Turns arguments into pieces under the publisher's schema. The parameters are those of the publisher."""

    def __init__(
        self,
        *,
        task: str,
        classes: Sequence[object] | int | None,
        features: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        threshold: float = 0.5,
        tags: Mapping[str, str] | None = None,
        sample_rate: float = 1.0,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.task = task
        self.threshold = threshold
        self.tags = dict(tags or {})
        self.selection = Selection(include, exclude)
        self.features = None if features is None else tuple(features)
        self.rate = sample_rate
        self.kinds = dict(kinds or {})
        wrong = {feature: kind for feature, kind in self.kinds.items() if kind not in KINDS}
        if wrong:
            raise ConfigurationError(f"kinds must be among {', '.join(KINDS)}; got {dict(list(wrong.items())[:3])}")
        self.random = np.random.default_rng()
        self.schemas: dict[bytes, bytes] = {}  # bodies by hash, for the sender
        self._latest = FeaturePlan((), (), ())
        self._plans: dict[tuple[str, ...] | int, FeaturePlan] = {}
        self._better: dict[tuple[FeaturePlan, tuple[str, ...]], FeaturePlan] = {}
        self._buffers = BufferPool(0)
        self._fast_path = FastPath(self._buffers)
        self.classes: tuple[str, ...] = ()
        self._indices: dict[object, int] = {}  # by class as it was given: a string or a number
        if task == "classification" and classes is not None:
            self._name_classes(classes)

    def class_names(self, default: Sequence[object]) -> list[object]:
        """Return the classes as they were given; if there are none, the classes become `default`."""
        if not self.classes:
            self._name_classes(default)
        return list(self._indices)

    def _name_classes(self, classes: Sequence[object] | int) -> None:
        if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
            given: list[object] = [f"class_{i}" for i in range(int(classes))]
        elif isinstance(classes, str) or not hasattr(classes, "__iter__"):
            raise ConfigurationError(f"classes must be a sequence of names or a count, got {classes!r:.60}")
        else:
            given = [cls.item() if isinstance(cls, np.generic) else cls for cls in classes]
        if len(given) < 2:
            raise ConfigurationError(f"classes must be at least two, got {given}; a binary model has two")
        if len(given) > MAX_COLUMNS:
            raise ConfigurationError(f"classes must be at most {MAX_COLUMNS}, got {len(given)}")
        if len({isinstance(cls, str) for cls in given}) != 1:
            raise ConfigurationError(f"classes mix strings and numbers: {given[:5]}; use one type")
        names = tuple(name("a class name", str(cls)) for cls in given)
        if len(set(names)) != len(names):
            twice = sorted(cls for cls in set(names) if names.count(cls) > 1)
            raise ConfigurationError(f"classes repeat a name: {twice[:5]}")
        self._indices = {cls: i for i, cls in enumerate(given)}
        self.classes = names

    def renew(self) -> None:
        """Draw another sample than the parent process."""
        self.random = np.random.default_rng()

    def convert(self, snapshots: Sequence[Snapshot]) -> Conversion:
        """Convert snapshots of publish calls to pieces for the ring."""
        pieces: Pieces = []
        sampled_out, rejected = 0, []
        for snapshot in snapshots:
            probabilities, inputs, labels, predictions, ids, timestamps, segments = snapshot.arguments
            try:
                for name, value in zip(Arguments._fields, snapshot.arguments, strict=True):
                    if isinstance(value, Unusable):
                        raise Rejected(f"{name}_{value.reason}", value.detail)
                if snapshot.kind == "labels":
                    pieces += self.assemble_labels(ids, labels, timestamps, snapshot.now)
                    continue
                more, left_out = self.assemble(
                    snapshot.now, probabilities, inputs, labels, predictions,
                    ids=ids, timestamps=timestamps, segments=segments,
                )  # fmt: skip
                pieces += more
                sampled_out += left_out
            except Rejected as error:
                rejected.append(Loss(error.reason, snapshot.rows, str(error)))
        return Conversion(pieces, sampled_out, rejected)

    # --- one call ----------------------------------------------------------------------------------------------------

    def assemble(
        self,
        now: int,
        probabilities: Any,
        inputs: Any = None,
        labels: Any = None,
        predictions: Any = None,
        *,
        ids: Any = None,
        timestamps: Any = None,
        segments: Any = None,
    ) -> tuple[Pieces, int]:
        """Return snapshots of the rows, each with its layout and size in bytes, and the number of rows sampled out.

        Raises Rejected with the reason if the arguments are not a valid batch.
        """
        plain = labels is None and predictions is None and ids is None and timestamps is None and segments is None
        if plain and (fast := self._fast_path.assemble(probabilities, inputs, self._latest, now)) is not None:
            layout, self._latest, piece, nbytes = fast
            return [(layout, piece, nbytes)], 0
        columns: list[tuple[str, Array]] = []
        dictionaries: dict[str, Dictionaries] = {}
        if probabilities is not None:
            columns.append(("probabilities", self._probabilities(probabilities)))
        if predictions is not None:
            columns.append(("predictions", self._predictions(predictions)))
        if not columns:
            raise Rejected("probabilities_missing", "neither probabilities nor predictions given; pass one")
        rows = len(columns[0][1])
        if not rows:
            return [], 0
        plan = self._latest
        if inputs is not None:
            plan = self._inputs(inputs, columns, dictionaries)
            self._latest = plan  # also the plan of later calls without inputs
        segment_names = () if segments is None else _segments(segments, rows, columns, dictionaries)
        if labels is not None:
            columns.append(("labels", self._labels(labels)))
        if ids is not None:
            columns.append(("ids", identifiers(ids)))
        now = _finish(columns, timestamps, now)
        batch, kept = Rows(columns, dictionaries), rows
        if self.rate < 1.0:
            mask = self.random.random(rows) < self.rate
            kept = int(np.count_nonzero(mask))
            batch = batch.select(mask)
        schema = plan.schemas.get(segment_names) or self._schema(plan, segment_names)
        pieces = _snapshots(schema, batch, kept, now, self._buffers)
        if plain and self.rate == 1.0 and (inputs is None or (plan.plain and plan.where is None)):
            self._fast_path.learn(probabilities, inputs, pieces[0][0], plan)
        return pieces, rows - kept

    def assemble_labels(self, ids: Any, labels: Any, timestamps: Any, now: int) -> Pieces:
        """Return snapshots of labels that arrive after their predictions, in the form of `assemble`.

        Raises Rejected with the reason if the arguments are not ids with their labels.
        """
        if self.task == "classification" and not self.classes:
            raise Rejected("classes_missing", "publish_labels() of a classifier needs classes=[…] in the constructor")
        columns = [("ids", identifiers(ids)), ("labels", self._labels(labels))]
        now = _finish(columns, timestamps, now)
        schema = self._latest.schemas.get(()) or self._schema(self._latest, ())
        return [
            (layout._replace(kind="labels"), piece, nbytes)
            for layout, piece, nbytes in _snapshots(schema, Rows(columns, {}), len(columns[0][1]), now, self._buffers)
        ]

    # --- columns -----------------------------------------------------------------------------------------------------

    def _probabilities(self, value: Any) -> Array:
        if self.task != "classification":
            raise Rejected("probabilities_task", f"a {self.task} model publishes predictions=, not probabilities")
        array = as_array(value, "probabilities")
        if array.dtype.char not in _FLOATS:
            if array.dtype.kind not in "fiub":
                raise Rejected("probabilities_dtype", f"probabilities of dtype {array.dtype}; expected floats")
            array = array.astype(np.float64)
        shape = array.shape
        dimensions = len(shape)
        if dimensions == 2 and shape[1] == 1:
            array, dimensions = array[:, 0], 1
        if not self.classes:
            width = 2 if dimensions == 1 else shape[-1]
            if dimensions not in (1, 2) or width < 2:
                raise Rejected("probabilities_shape", "the classes cannot be inferred; expected (n, n_classes)")
            self._name_classes(width)
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
        """Add the captured inputs to the columns; return the plan they follow."""
        source = inputs.read(value, self.features)
        width = source.array.shape[1] if isinstance(source, inputs.Matrix) else len(source.columns)
        key = width if source.names is None else source.names
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans.setdefault(key, self._plan(key, isinstance(source, inputs.Matrix)))
        if plan.width != width:
            expected = self.features and len(self.features)
            raise Rejected("inputs_shape", f"inputs of {width} columns; {expected} features were declared")
        if isinstance(source, inputs.Matrix):
            if plan.plain:
                array = source.array
                columns.append(("inputs", array if plan.where is None else array[:, plan.where]))
                return plan
            source = inputs.of_matrix(source)
        converted, kinds = inputs.convert(source, plan, self.kinds)
        while kinds != plan.kinds and len(self._better) < SCHEMA_LIMIT:
            # The first values of a column determine its kind. If two threads do this at once, one of them wins.
            better = FeaturePlan(plan.given, plan.places(), kinds)
            plan = self._plans[key] = self._better.setdefault((plan, kinds), better)
            converted, kinds = inputs.convert(source, plan, self.kinds)
        matrix, codes, names = inputs.stack_columns(converted, plan.kinds, source.rows)
        if matrix is not None:
            columns.append(("inputs", matrix))
        if codes is not None:
            columns.append(("codes", codes))
            dictionaries["codes"] = names
        return plan

    def _plan(self, key: tuple[str, ...] | int, numeric: bool) -> FeaturePlan:
        """Plan what to capture of inputs with these names, or of this width."""
        if len(self._plans) >= SCHEMA_LIMIT:
            raise Rejected("schema_changes", f"inputs changed columns {SCHEMA_LIMIT} times; name features=[…]")
        if self.features is not None:
            given = self.features
        else:
            given = tuple(f"feat_{i}" for i in range(key)) if isinstance(key, int) else key
        if not 1 <= len(given) <= MAX_COLUMNS:
            raise Rejected("inputs_columns", f"inputs have {len(given)} features; 1 to {MAX_COLUMNS} are allowed")
        if len(set(given)) != len(given):
            raise Rejected("inputs_columns", "two features of the inputs have the same name")
        where = self.selection.places(given)
        if not where:
            raise Rejected("inputs_columns", "include and exclude leave no feature")
        return FeaturePlan(given, where, [self.kinds.get(given[i], "numeric" if numeric else "") for i in where])

    def _schema(self, plan: FeaturePlan, segments: tuple[str, ...]) -> bytes:
        """Return the hash of the plan's schema, and keep its body for the sender.

        Columns whose kind is not known yet are left out of the schema.
        """
        columns = [(feature, kind) for feature, kind in zip(plan.names, plan.kinds, strict=True) if kind]
        names, kinds = zip(*columns, strict=True) if columns else ((), ())
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
    """Add the segments' codes to the columns; return their names."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and 0 < len(name) <= 150 for name in value):
        raise Rejected("segments_invalid", "segments must map names of at most 150 characters to columns")
    if not 1 <= len(value) <= SEGMENTS:
        raise Rejected("segments_invalid", f"{len(value)} segments; 1 to {SEGMENTS} are allowed")
    coded = []
    for segment, column in value.items():
        array = as_array(column, "segments")
        if array.ndim != 1:
            raise Rejected("segments_invalid", f"segment {segment!r} of shape {array.shape}; expected (n,)")
        if len(array) != rows:
            raise Rejected("length_mismatch", f"segment {segment!r} of {len(array)} values for {rows} rows")
        coded.append(categorical(array.tolist(), segment))
    columns.append(("segments", np.column_stack([segment.codes for segment in coded])))
    dictionaries["segments"] = tuple(segment.names for segment in coded)
    return tuple(value)


def _finish(columns: list[tuple[str, Array]], timestamps: Any, now: int) -> int:
    """Add the timestamps to the columns if every row has its own; return the time of all rows otherwise.

    Raises Rejected ``length_mismatch`` if the columns differ in length.
    """
    if timestamps is not None:
        times = nanoseconds(timestamps)
        if isinstance(times, int):
            now = times
        else:
            columns.append(("timestamps", times))
    first, rows = columns[0][0], len(columns[0][1])
    for column, array in columns:
        if len(array) != rows:
            raise Rejected("length_mismatch", f"{column} has {len(array)} rows, {first} has {rows}")
    return now


def _snapshots(schema: bytes, batch: Rows, rows: int, now: int, pool: BufferPool) -> Pieces:
    """Copy the rows into bytes, in as many pieces as their size requires."""
    if not rows:
        return []
    nbytes = sum(array.nbytes for _, array in batch.columns)
    if rows == 1 or (nbytes <= MESSAGE_BYTES and rows <= MAX_ROWS):
        layout, buffers = _bytes(schema, batch, pool)
        nbytes = sum(map(len, buffers))
        if nbytes <= MESSAGE_BYTES or rows == 1:
            return [(layout, RingPiece(rows, now, buffers), nbytes)]
    step = max(1, min(MESSAGE_BYTES * rows // nbytes, MAX_ROWS))
    pieces = []
    for start in range(0, rows, step):
        part = batch.select(slice(start, start + step))
        pieces += _snapshots(schema, part, min(step, rows - start), now, pool)
    return pieces


def _bytes(schema: bytes, batch: Rows, pool: BufferPool) -> tuple[RingLayout, list[Bytes]]:
    arrays: list[tuple[str, str, int | None]] = []
    buffers: list[Bytes] = []
    for column, array in batch.columns:
        if column in batch.dictionaries:
            array, names = categories.compact(array, batch.dictionaries[column])
            array = categories.narrow(array, names)
            blob = next(blob for blob, codes in BLOBS.items() if codes == column)
            arrays.append((blob, "|u1", None))
            buffers.append(categories.encode(len(array), names))
        code = _WIRE_DTYPES.get(array.dtype)
        if code is None:
            array = _native(array)
            code = _WIRE_DTYPES.get(array.dtype, array.dtype.str)
        arrays.append((column, code, array.shape[1] if array.ndim == 2 else None))
        buffers.append(pool.copy(array).reshape(-1).view(np.uint8).data)
    return RingLayout(schema, tuple(arrays)), buffers


def _native(array: Array) -> Array:
    """Return the same values in a dtype that the wire has: little-endian, at most 64 bits."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="))


def _explain(array: Array) -> None:
    """Raise Rejected for values that are not probabilities; return if they are valid after all."""
    if not np.isfinite(array).all():
        raise Rejected("probabilities_nan", "a probability is NaN or infinite")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > SLACK:
        raise Rejected("probabilities_range", f"probabilities from {low:.4g} to {high:.4g}; are these logits?")
