"""Late labels on the collector's thread: what goes to the join, and which windows wait for its result.

The join runs on the database's thread, in the turn's transaction: it needs the disk, and what it completes is journaled
as rows of the window that was open then, so that a replay joins nothing again. Its result reaches the engine a moment
after the turn, and a window that closed meanwhile would miss it. So such a window is held until the results of all
turns that touched it are back, and later windows of its model queue behind it: windows close in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import msgpack
import numpy as np
from zmon_plugins.metrics.late_labels import OUTCOMES

from zmon.batch import Array, Schema
from zmon.errors import WireError
from zmon_collector.config import Config
from zmon_collector.ingest import validation
from zmon_collector.ingest.arrival import Arrival, BatchArrival
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.validation import WindowSlice
from zmon_collector.storage import label_join
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.label_join import Joined, JoinWork
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import NANO, ModelKey, Now, OpenWindow

SWEEP_EVERY = 10.0  # seconds


class LateLabels:
    """Rows with ids, and labels, on their way to the join and back.

    Parameters
    ----------
    models : mapping
        State of every model; shared with the ingestor.
    close : callable
        Hands a window to the engine, ``close(model, window)``.
    journal : bool
        Whether there is a journal; without one there is no join.
    """

    def __init__(
        self, models: Mapping[ModelKey, ModelState], close: Callable[[ModelKey, OpenWindow], None], *, journal: bool
    ) -> None:
        self.used = False  # some model publishes ids, or did
        self.kept_bytes = 0
        self._models = models
        self._close = close
        self._journal = journal
        self._joining: Counter[int] = Counter()  # by window: turns whose join is not back
        self._turn: set[int] = set()  # windows that the current turn's join touches
        self._swept = 0.0

    # --- settle ------------------------------------------------------------------------------------------------------

    def keep_predictions(self, work: JoinWork, arrival: Arrival, window: OpenWindow, part: WindowSlice) -> None:
        """Keep rows with ids, which may get their labels later."""
        batch = part.batch
        columns = batch.columns
        bare = batch.only({"probabilities", "predictions"})  # the engine already has the batch: nothing is added to it
        predicted = bare.predictions if batch.schema.task == "regression" else bare.predicted
        work.predicted.append(
            label_join.Predicted(
                self._owner(work, arrival.model, batch.schema),
                self._target(window),
                window.end,
                arrival.agent,
                arrival.now.wall,
                label_join.id_bytes(batch.ids),
                batch.timestamps,
                predicted,
                batch.probabilities if "probabilities" in columns else None,
                batch.labels if "labels" in columns else None,
            )
        )

    def settle(self, work: JoinWork, arrival: BatchArrival, skip: int, max_skew: float) -> None:
        """Join labels from the row `skip` on with the windows that are open; refuse those that have no label."""
        message, schema, now = arrival.message, arrival.schema, arrival.now
        fresh = message.rows - skip
        try:
            if not self._journal:
                raise WireError("labels_need_journal", "labels are joined in the journal, which is off")
            ids, given = (column[skip:] for column in validation.check_labels(message, schema))
            times, _ = validation.resolve_times(message, now.wall, max_skew)
        except WireError as error:
            arrival.refuse(fresh, error.reason, error.detail)
            return
        when = np.full(fresh, times) if isinstance(times, int) else times[skip:]
        present = np.isfinite(given) if schema.task == "regression" else given >= 0
        windows = arrival.model.windows.label_windows(schema, now)
        targets = np.where(present, _targets(when, [window.start for window in windows]), -1)
        owner = self._owner(work, arrival.model, schema)
        for i in np.unique(targets).tolist():
            rows = np.flatnonzero(targets == i)
            if i < 0:
                arrival.refuse(len(rows), "label_missing", "a label is None or NaN")
            elif windows[i].conflict(schema):
                arrival.refuse(len(rows), "schema_conflict", windows[i].conflict(schema))
            else:
                names, target = label_join.id_bytes(ids[rows]), self._target(windows[i])
                block = label_join.Labelled(owner, target, arrival.agent, now.wall, names, given[rows], when[rows])
                work.labelled.append(block)

    def _target(self, window: OpenWindow) -> label_join.JoinWindow:
        self._turn.add(window.number)
        return label_join.JoinWindow(window.number, window.start)

    def _owner(self, work: JoinWork, model: ModelState, schema: Schema) -> int:
        key = (schema.task, schema.classes)
        owner = model.owners.get(key)
        if owner is None:
            owner = model.owners[key] = label_join.owner_of(model.key, schema)
            work.owners.append((owner, *model.key, schema.task, msgpack.packb(list(schema.classes))))
            self.restore_owner(model, owner)
        return owner

    def restore_owner(self, model: ModelState, owner: int) -> None:
        """Note that labels may wait for predictions of this owner, also of an earlier run."""
        model.label_owners.add(owner)
        self.used = True

    def end_turn(self, work: JoinWork, config: Config, now: Now) -> frozenset[int]:
        """Complete the turn's work for the join; return the windows that wait for its result."""
        if self.used and now.mono - self._swept >= min(SWEEP_EVERY, config.collector.label_wait / 4):
            self._swept = now.mono
            windows = {
                owner: self._target(model.windows.open[max(model.windows.open)])
                for model in self._models.values()
                if model.label_owners and model.windows.open
                for owner in model.label_owners
            }
            collector = config.collector
            work.sweep = label_join.Sweep(now.wall - collector.label_horizon, now.wall - collector.label_wait, windows)
        work.limit = config.limits.label_bytes
        waiting, self._turn = frozenset(self._turn), set()
        self._joining.update(waiting)
        return waiting

    # --- the join's result -------------------------------------------------------------------------------------------

    def completed(self, joined: Joined, telemetry: Telemetry) -> Iterator[tuple[int, ChunkRecord]]:
        """Yield the rows that a join has completed, by window, and count their outcomes."""
        self.kept_bytes = joined.kept_bytes
        if joined.evicted:
            telemetry.count("label_ids_evicted", by=joined.evicted)
        for number, records in joined.records.items():
            for record in records:
                for outcome, rows in enumerate(np.bincount(record.columns["label_outcomes"]).tolist()):
                    if rows:
                        telemetry.count("late_labels", OUTCOMES[outcome], rows)
                yield number, record

    def release(self, windows: frozenset[int]) -> None:
        """Close what waited for a turn's join, once the engine has its rows."""
        self._joining -= Counter(windows)
        for model in self._models.values():
            while model.closing and not self.is_joining(model.closing[0].number):
                self._close(model.key, model.closing.popleft())

    def is_joining(self, window: int) -> bool:
        """Return whether completed rows may still come for a window."""
        return self._joining[window] > 0 or window in self._turn

    def close(self, model: ModelState, window: OpenWindow) -> None:
        """Close a window once no join is under way for it, after earlier windows of its model."""
        if model.closing or self.is_joining(window.number):
            model.closing.append(window)
        else:
            self._close(model.key, window)

    @property
    def idle(self) -> bool:
        """Whether no window waits for a join."""
        return not any(model.closing for model in self._models.values())


def _targets(times: Array | int, starts: list[int]) -> Array:
    """Return, for each label's time, the index of the newest window that begins by then, else of the oldest."""
    seconds = np.atleast_1d(np.asarray(times)) // NANO
    where = np.searchsorted(np.array(starts), seconds, side="right") - 1
    return np.maximum(where, 0)
