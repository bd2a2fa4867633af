"""Late labels on the collector's thread: what goes to the join, and which windows wait for it before they close.

The join runs in the store, with the turn's transaction; what it completes comes back a moment later.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgpack
import numpy as np
from zmon_plugins.metrics.late_labels import OUTCOMES

from zmon._wire.frames import Message
from zmon.batch import Array, Schema
from zmon.errors import WireError
from zmon_collector.ingest import validation
from zmon_collector.ingest.validation import WindowSlice
from zmon_collector.storage import label_join
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.journal import ModelKey, Turn
from zmon_collector.storage.label_join import Joined
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NANO, Now, OpenWindow

SWEEP_EVERY = 10.0  # seconds


class LateLabels:
    """Rows with ids and labels on their way to the join.

    Parameters
    ----------
    close : callable
        Hands a window to the engine, ``close(model, window)``.
    journal : bool
        Without one there is no join.
    """

    def __init__(self, close: Callable[[ModelKey, OpenWindow], None], *, journal: bool) -> None:
        self.used = False  # some model publishes ids, or did
        self.kept_bytes = 0
        self._close = close
        self._journal = journal
        self._joining: Counter[int] = Counter()  # turns whose join is to come back, by window
        self._turn: set[int] = set()  # windows of the turn that is being settled
        self._closing: dict[ModelKey, deque[OpenWindow]] = {}
        self._owners: dict[tuple[ModelKey, str, tuple[str, ...]], int] = {}
        self._known: dict[int, ModelKey] = {}  # whom labels may wait for
        self._swept = 0.0

    # --- settle ------------------------------------------------------------------------------------------------------

    def keep(self, turn: Turn, model: ModelKey, window: OpenWindow, agent: str, part: WindowSlice, now: Now) -> None:
        """Rows with ids: they may get their labels later."""
        batch = part.batch
        columns = batch.columns
        bare = batch.only({"probabilities", "predictions"})  # the engine has the batch already: nothing is added to it
        predicted = bare.predictions if batch.schema.task == "regression" else bare.predicted
        turn.late.predicted.append(
            label_join.Predicted(
                self._owner(turn, model, batch.schema),
                self._target(window),
                window.end,
                agent,
                now.wall,
                label_join.texts(batch.ids),
                batch.timestamps,
                predicted,
                batch.probabilities if "probabilities" in columns else None,
                batch.labels if "labels" in columns else None,
            )
        )

    def settle(
        self,
        turn: Turn,
        message: Message,
        schema: Schema,
        skip: int,
        manager: WindowManager,
        agent: str,
        skew: float,
        now: Now,
    ) -> Mapping[str, int]:
        """Labels from the row `skip` on, joined in the windows that are open; how many are rejected, by reason."""
        fresh = message.rows - skip
        try:
            if not self._journal:
                raise WireError("labels_need_journal", "labels are joined in the journal, which is off")
            ids, given = (column[skip:] for column in validation.checked_labels(message, schema))
            times, _ = validation.settled(message, now.wall, skew)
        except WireError as error:
            return {error.reason: fresh}
        when = np.full(fresh, times) if isinstance(times, int) else times[skip:]
        there = np.isfinite(given) if schema.task == "regression" else given >= 0
        windows = manager.label_windows(schema, now)
        where = np.where(there, _targets(when, [window.start for window in windows]), -1)
        rejected: Counter[str] = Counter()
        owner = self._owner(turn, (message.topic.model, message.topic.version), schema)
        for i in np.unique(where).tolist():
            rows = np.flatnonzero(where == i)
            if i < 0:
                rejected["label_missing"] += len(rows)
            elif windows[i].conflict(schema):
                rejected["schema_conflict"] += len(rows)
            else:
                names, target = label_join.texts(ids[rows]), self._target(windows[i])
                block = label_join.Labelled(owner, target, agent, now.wall, names, given[rows], when[rows])
                turn.late.labelled.append(block)
        return rejected

    def _target(self, window: OpenWindow) -> label_join.JoinWindow:
        self._turn.add(window.number)
        return label_join.JoinWindow(window.number, window.start)

    def _owner(self, turn: Turn, model: ModelKey, schema: Schema) -> int:
        key = (model, schema.task, schema.classes)
        owner = self._owners.get(key)
        if owner is None:
            owner = label_join.owner_of(model, schema)
            self._owners[key] = owner
            turn.late.owners.append((owner, *model, schema.task, msgpack.packb(list(schema.classes))))
            self._known[owner] = model
            self.used = True
        return owner

    def restore(self, owners: Iterable[tuple[int, str, str]]) -> None:
        """Who had ids in an earlier run."""
        for owner, model, version in owners:
            self._known[owner] = (model, version)
            self.used = True

    def forget(self, model: ModelKey) -> None:
        """The model has been silent for longer than labels are waited for."""
        self._owners = {key: owner for key, owner in self._owners.items() if key[0] != model}
        self._known = {owner: known for owner, known in self._known.items() if known != model}

    def end_turn(
        self, turn: Turn, limit: int, horizon: float, wait: float, newest: Mapping[ModelKey, OpenWindow], now: Now
    ) -> frozenset[int]:
        """Complete the turn's work; the windows that wait for what comes of it."""
        if self.used and now.mono - self._swept >= min(SWEEP_EVERY, wait / 4):
            self._swept = now.mono
            windows = {owner: self._target(newest[model]) for owner, model in self._known.items() if model in newest}
            turn.late.sweep = label_join.Sweep(now.wall - horizon, now.wall - wait, windows)
        turn.late.limit = limit
        waiting, self._turn = frozenset(self._turn), set()
        self._joining.update(waiting)
        return waiting

    # --- what came of it ---------------------------------------------------------------------------------------------

    def completed(self, joined: Joined, telemetry: Telemetry) -> Iterator[tuple[int, ChunkRecord]]:
        """Windows, and what the join gives them; counted for health."""
        self.kept_bytes = joined.kept_bytes
        if joined.evicted:
            telemetry.count("label_ids_evicted", by=joined.evicted)
        for number, records in joined.records.items():
            for record in records:
                for outcome, many in enumerate(np.bincount(record.columns["label_outcomes"]).tolist()):
                    if many:
                        telemetry.count("late_labels", OUTCOMES[outcome], many)
                yield number, record

    def joined(self, windows: frozenset[int]) -> None:
        """The join of a turn is back, and its rows are with the engine: close what waited for it."""
        self._joining -= Counter(windows)
        for model, queue in list(self._closing.items()):
            while queue and not self.is_joining(queue[0].number):
                self._close(model, queue.popleft())
            if not queue:
                del self._closing[model]

    def is_joining(self, window: int) -> bool:
        """Whether pairs may still come for a window."""
        return self._joining[window] > 0 or window in self._turn

    def close(self, model: ModelKey, window: OpenWindow) -> None:
        """Close a window once no join is under way for it, after those of its model that wait already."""
        if model in self._closing or self.is_joining(window.number):
            self._closing.setdefault(model, deque()).append(window)
        else:
            self._close(model, window)

    @property
    def idle(self) -> bool:
        return not self._closing


def _targets(times: Array | int, starts: list[int]) -> Array:
    """For each label's time the newest of these open windows that begins by then, else the oldest."""
    seconds = np.atleast_1d(np.asarray(times)) // NANO
    where = np.searchsorted(np.array(starts), seconds, side="right") - 1
    return np.maximum(where, 0)
