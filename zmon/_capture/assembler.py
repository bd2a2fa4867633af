"""From snapshots of publish calls to pieces for the ring. Runs in the engine's thread.

What is wrong with a call costs as little as it can: a cell, then a column, then a row, and the call only if its outputs
cannot be used. Nothing is remembered of what was not accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zmon._capture import labels as label_columns
from zmon._capture import outputs, pieces, rows, tables, times
from zmon._capture.bundle import Bundle, bundles, join
from zmon._capture.classes import Classes
from zmon._capture.faults import Faults
from zmon._capture.features import Features, Split
from zmon._capture.kinds import Coded
from zmon._capture.notices import Notices
from zmon._capture.pieces import Rows
from zmon._capture.schema_book import SchemaBook
from zmon._capture.selection import Selection
from zmon._capture.snapshot import Unusable
from zmon._transport.buffer_pool import POOL
from zmon._transport.conversion import Conversion, Loss
from zmon._transport.intake import Snapshot
from zmon._wire.checks import MAX_SEGMENTS, check_columns, check_labels, most_rows
from zmon.batch import KINDS, Array, Schema
from zmon.categories import Dictionaries
from zmon.errors import ConfigurationError, Rejected, WireError

HELD = 0.002  # seconds of work between two pauses
LOGITS = '; logits must be turned into probabilities first, or published by zmon.watch(model, output="logits")'


class Assembler:
    """Turns snapshots into pieces under the publisher's schema. Used by one thread.

    The parameters are those of the publisher, and `model`: its name, for log lines. `pause` is called after each few
    milliseconds of work.
    """

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
        model: str = "",
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.task = task
        self.selection = Selection(include, exclude)
        self.rate = sample_rate
        if not isinstance(kinds or {}, Mapping):
            raise ConfigurationError(f"kinds must map names of features to kinds, got {kinds!r:.60}")
        declared = {str(feature): kind for feature, kind in (kinds or {}).items()}
        wrong = {feature: kind for feature, kind in declared.items() if kind not in (*KINDS, "id")}
        if wrong:
            raise ConfigurationError(f"kinds must be among {', '.join(KINDS)}, id; got {dict(list(wrong.items())[:3])}")
        self.vectors = tuple(feature for feature, kind in declared.items() if kind == "vector")
        self.random = np.random.default_rng()
        self._book = SchemaBook(task, threshold, dict(tags or {}))
        self.pause = pause
        self._notices = Notices(model)
        self._features = Features(features, declared, self.selection)
        self._segments: list[str] = []
        self._paused_at = 0.0
        self._classes: Classes | None = None
        if task != "regression" and classes is not None:
            self._classes = Classes(classes, self._least)

    @property
    def _least(self) -> int:
        return 1 if self.task == "multilabel" else 2

    @property
    def schemas(self) -> Mapping[bytes, bytes]:
        """Bodies of the schemas that pieces refer to, by hash."""
        return self._book.bodies

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self._classes is None else self._classes.names

    def class_names(self, default: Sequence[object]) -> list[object]:
        """Return the classes as they were given; if there are none, the classes become `default`."""
        if self._classes is None and len(default):
            self._classes = Classes(default, self._least)
        return [] if self._classes is None else list(self._classes.given)

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def convert(self, snapshots: Sequence[Snapshot]) -> Conversion:
        """Convert snapshots, consecutive ones of one form together. Raises only what nobody foresaw."""
        self._paused_at = time.perf_counter()
        parts: list[Conversion] = []
        for calls in bundles(snapshots):
            parts += self._convert(calls)
            self._pace()
        return Conversion(
            [piece for part in parts for piece in part.pieces],
            sum(part.sampled_out for part in parts),
            [loss for part in parts for loss in part.rejected],
            [loss for part in parts for loss in part.degraded],
        )

    def renew(self) -> None:
        """Draw another sample than the parent process, in a forked child, and free the memory of its batches."""
        self.random = np.random.default_rng()
        POOL.clear()

    def _convert(self, calls: Sequence[Snapshot]) -> list[Conversion]:
        """Convert calls together; one by one if anything is wrong with them as a whole."""
        count = sum(call.rows for call in calls)
        try:
            bundle = join(calls)
            convert = self._batch if calls[0].kind == "batch" else self._late_labels
            return [convert(bundle)]
        except Exception as error:
            if len(calls) > 1:
                return [made for call in calls for made in self._convert([call])]
            if not isinstance(error, Rejected):
                raise  # nobody foresaw it: whoever called counts it, with its trace in the log
            return [Conversion((), rejected=[Loss(REASONS.get(error.reason, error.reason), count, str(error))])]

    def _batch(self, bundle: Bundle) -> Conversion:
        given = bundle.arguments
        for value in (given.probabilities, given.predictions):
            if isinstance(value, Unusable):
                raise Rejected(*_unusable(value, "probabilities" if value is given.probabilities else "predictions"))
        found = outputs.read(given.probabilities, given.predictions, self.task, self._classes)
        count = len(found.columns[0][1])
        if not count:
            return Conversion(())
        rejected, degraded = Faults(count), Faults(count)
        columns = outputs.check(found, self.task, rejected, degraded)
        if self.task == "multilabel" and given.probabilities is not None and given.predictions is not None:
            degraded.add("predictions_ignored", "of a multilabel model's outputs the probabilities are published, and "
                         "classes are predicted by threshold=; pass predictions= without probabilities")  # fmt: skip
        names = () if found.classes is None else found.classes.names
        columns = _checked("batch", columns, self._book.outputs(names))
        now = self._add_times(bundle, columns, rejected)
        lost = rejected.rows_affected() if rejected else None
        if lost is not None and lost.all():
            return Conversion((), rejected=rejected.first_losses())
        if found.classes is not None:  # accepted: from now on these are the classes
            self._classes = found.classes
            if found.named is not None:
                found.classes.settle([str(name) for name in found.named])
        dictionaries: dict[str, Dictionaries] = {}
        self._add_inputs(bundle, columns, dictionaries, degraded)
        self._add_segments(bundle, columns, dictionaries, degraded)
        if (labels := self._part(bundle, "labels", degraded, self._read_labels)) is not None:
            columns.append(("labels", labels))
        ids = self._part(bundle, "ids", degraded, rows.identifiers, count)
        if ids is not None and (ids.absent is None or not ids.absent.all()):
            columns.append(("ids", ids.values))
        return self._finish("batch", Rows(columns, dictionaries), now, (rejected, degraded))

    def _late_labels(self, bundle: Bundle) -> Conversion:
        """Convert ids and labels that arrive after their predictions; a row needs both."""
        given = bundle.arguments
        if self.task != "regression" and self._classes is None:
            raise Rejected("classes_missing", "publish_labels() of a classifier needs classes=[…] in the constructor")
        for name in ("ids", "labels"):
            value = getattr(given, name)
            if value is None or isinstance(value, Unusable):
                raise Rejected(*_unusable(value or Unusable("dtype", "publish_labels() needs them, got None"), name))
        count = sum(bundle.counts)
        rejected, degraded = Faults(count), Faults(count)
        ids = rows.identifiers(given.ids, count, rejected)
        if ids.absent is not None:
            rejected.add("ids_invalid", "an id is missing", ids.absent)
        labels = self._read_labels(given.labels, rejected)
        missing = np.isnan(labels) if labels.dtype.kind == "f" else labels < 0
        unlabelled = np.asarray(missing.reshape(count, -1).all(axis=1))
        rejected.add("label_missing", "a label is None or NaN", unlabelled)
        columns = [("ids", ids.values), ("labels", labels)]
        now = self._add_times(bundle, columns, rejected)
        return self._finish("labels", Rows(columns, {}), now, (rejected, degraded))

    def _finish(self, kind: str, batch: Rows, now: int, faults: tuple[Faults, Faults]) -> Conversion:
        """Check the rows as a collector does, select those that are kept, and cut them."""
        rejected, degraded = faults
        schema, digest = self._book.newest(self.classes, self._features.schema, self._segments, self._features.hashed)
        batch = batch._replace(columns=_checked(kind, batch.columns, schema))
        kept: Array | None = None
        count, sampled_out = rejected.rows, 0
        if rejected:
            kept = ~rejected.rows_affected()
            count = int(np.count_nonzero(kept))
        if kind == "batch" and self.rate < 1.0:
            drawn = self.random.random(rejected.rows) < self.rate
            before, kept = count, drawn if kept is None else kept & drawn
            count = int(np.count_nonzero(kept))
            sampled_out = before - count
        if kept is not None:
            batch = batch.select(kept)
        made = pieces.cut((digest, kind), batch, count, now, most_rows(schema))
        return Conversion(made, sampled_out, rejected.first_losses(), degraded.losses(kept))

    # --- parts of a batch: one that cannot be used is left out, and its rows are degraded ----------------------------

    def _part(self, bundle: Bundle, name: str, degraded: Faults, read: Callable[..., Any], *args: Any) -> Any:
        """Return what `read` makes of an argument; None if it was not given, or cannot be used."""
        value = getattr(bundle.arguments, name)
        if value is None:
            return None
        try:
            if isinstance(value, Unusable):
                raise Rejected(*_unusable(value, name))
            return read(value, *args, degraded)
        except Split:
            raise
        except Exception as error:  # noqa: BLE001 - what people pass has no end
            if len(bundle.calls) > 1:
                raise Split from None  # only the rows of the call that it comes from are degraded
            degraded.add(*_reason(error, name))
            return None

    def _read_labels(self, value: Any, faults: Faults) -> Array:
        return label_columns.read(value, self.task, self._classes, faults)

    def _add_inputs(
        self, bundle: Bundle, columns: list[tuple[str, Array]], dictionaries: dict[str, Dictionaries], degraded: Faults
    ) -> None:
        count = degraded.rows

        def read(value: Any, faults: Faults) -> Any:
            table = tables.read(value, count)
            if table.rows != count:
                raise Rejected("length_mismatch", f"inputs have {table.rows} rows, the outputs {count}")
            starts = np.cumsum([0, *bundle.counts[:-1]]).tolist() if len(bundle.calls) > 1 else [0]
            return self._features.read(table, faults, starts, room=self._book.room, pace=self._pace)

        found = self._part(bundle, "inputs", degraded, read)
        if found is not None:
            columns += found.columns
            dictionaries |= found.dictionaries
            self._notices.say_declared(self.selection, self._features)
            self._notices.say_unique(self._features)

    def _add_segments(
        self, bundle: Bundle, columns: list[tuple[str, Array]], dictionaries: dict[str, Dictionaries], degraded: Faults
    ) -> None:
        count = degraded.rows
        before = bool(degraded)
        found: dict[str, Coded] | None = self._part(
            bundle, "segments", degraded, lambda value, faults: rows.segments(value, count, faults)
        )
        if found is None:
            return
        for name in list(found):
            if name not in self._segments:
                if len(self._segments) >= MAX_SEGMENTS or not self._book.room:
                    degraded.add("segments_invalid", f"segment {name!r} is left out; at most {MAX_SEGMENTS} names")
                    continue
                self._segments.append(name)
        if len(bundle.calls) > 1 and bool(degraded) and not before and not found:
            raise Split
        coded = [found.get(name) or rows.lacking(count) for name in self._segments]
        if coded:
            columns.append(("segments", np.column_stack([each.codes for each in coded])))
            dictionaries["segments"] = tuple(each.names for each in coded)

    def _add_times(self, bundle: Bundle, columns: list[tuple[str, Array]], rejected: Faults) -> int:
        """Add timestamps if rows differ in time; return the time of rows without.

        Rows whose time cannot be used are rejected: with another time they would close windows early, and make sound
        rows late.
        """
        now = bundle.nows[-1]
        count = rejected.rows
        called: int | Array = now
        if len(bundle.calls) > 1:
            called = np.repeat(np.array(bundle.nows, dtype=np.int64), bundle.counts)
        given = self._part(
            bundle, "timestamps", rejected, lambda value, faults: times.of_rows(value, count, called, faults)
        )
        if given is not None:
            nanos, naive = given
            if naive:
                self._notices.say_naive(int(nanos.flat[-1]), now)
            if not nanos.ndim:
                return int(nanos)
            columns.append(("timestamps", nanos))
        elif isinstance(called, np.ndarray):
            columns.append(("timestamps", called))
        return now

    # --- the model's share of the interpreter -------------------------------------------------------------------------

    def _pace(self) -> None:
        now = time.perf_counter()
        if now - self._paused_at >= HELD:
            self.pause()
            self._paused_at = time.perf_counter()


def _checked(kind: str, columns: Sequence[tuple[str, Array]], schema: Schema) -> list[tuple[str, Array]]:
    """Return the columns as a collector accepts them; Rejected if it would not."""
    named = dict(columns)
    try:
        if kind == "labels":
            check_labels(named, schema)
            return list(columns)
        return list(check_columns(named, schema).items())
    except WireError as error:
        hint = LOGITS if error.reason == "probabilities_range" else ""
        raise Rejected(error.reason, error.detail + hint) from None


def _unusable(value: Unusable, name: str) -> tuple[str, str]:
    reason = value.reason if value.reason == "symbolic" else f"{name}_{value.reason}"
    return REASONS.get(reason, reason), f"{name}: {value.detail}"


REASONS = {"ids_dtype": "ids_invalid", "timestamps_dtype": "timestamp_invalid", "segments_dtype": "segments_invalid",
            "ids_shape": "ids_invalid", "timestamps_shape": "timestamp_invalid"}  # fmt: skip


def _reason(error: Exception, what: str) -> tuple[str, str]:
    if isinstance(error, Rejected):
        return REASONS.get(error.reason, error.reason), str(error)
    return "internal", f"{what}: {type(error).__name__}: {error}"
