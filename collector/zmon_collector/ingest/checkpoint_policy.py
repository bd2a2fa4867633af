"""Keep the journal within `limits.journal_bytes`: by checkpoints, and at the limit by closing windows early.

A checkpoint replaces the journaled rows of a window that stays open for long. Windows get one when they have many rows,
sooner while the journal is more than half full, and above the limit whatever they have: no rows are accepted then, so
nothing else would free the journal. One that is not smaller than what it would replace is dropped then; while there is
room it may be almost twice as large, because it spares the next start a replay. Where checkpoints do not suffice,
windows close early: the oldest ones of the models with most bytes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from heapq import nlargest

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.row_placement import UnreportedWindow
from zmon_collector.storage import journal
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import Turn
from zmon_collector.windows.window import ModelKey, OpenWindow

log = logging.getLogger("zmon.collector")

CHECKPOINT_BYTES = 256 * 2**20  # of a window's rows in the journal
TIGHT = 16  # times sooner while the journal is more than half full
WORTH = 16  # a sixteenth of the limit
SPARED = 2  # times the bytes that it replaces: what a checkpoint may have for the replay that it spares
GAIN = 4  # a window's next checkpoint replaces rows of at least a quarter of the last one
AT_ONCE = 16  # checkpoints begun in a turn while the journal is full


class CheckpointPolicy:
    """Decides after each turn which windows need a checkpoint. Runs on the collector's thread.

    Parameters
    ----------
    ingestor : Ingestor
    database : Database
    other_bytes : callable
        Returns the bytes of the database that belong to budgets of their own, like that of labels.
    """

    def __init__(self, ingestor: Ingestor, database: Database, other_bytes: Callable[[], int] = lambda: 0) -> None:
        self._ingestor = ingestor
        self._database = database
        self._other_bytes = other_bytes
        self._postponed: set[int] = set()  # windows whose checkpoint waits for a join

    @property
    def waiting(self) -> bool:
        """Whether some checkpoint is due and waits until no join is under way."""
        return bool(self._postponed)

    @property
    def limit(self) -> int:
        """Bytes of open windows beyond which no rows are accepted."""
        return self._ingestor.config.limits.journal_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of open windows on disk."""
        return self._database.used_bytes - self._other_bytes()

    def is_full(self, *, replaying: bool) -> bool:
        """Return whether the journal is above its limit, and open windows hold a good part of it.

        What else is in the file, like the memory of metrics, does not go however long nothing is accepted. The part is
        a half; during a replay it is small, because rows that are not replayed yet are not counted.
        """
        return self.used_bytes > self.limit and self._held > self.limit // (WORTH if replaying else 2)

    @property
    def _held(self) -> int:
        return sum(window.held_bytes for window in self._ingestor.unreported.values())

    def start_due(self, turn: Turn) -> None:
        """Start the checkpoints that are due after this turn."""
        used, limit, unreported = self.used_bytes, self.limit, self._ingestor.unreported
        if used > limit:
            least = 1
            worth = [number for number, window in unreported.items() if window.nbytes >= window.worth]
            due = {*nlargest(AT_ONCE, worth, key=lambda number: unreported[number].nbytes), *self._postponed}
        else:
            least = CHECKPOINT_BYTES // TIGHT if used > limit // 2 else CHECKPOINT_BYTES
            due = {*turn.chunks, *self._postponed}
        # What is not due any more, because the journal has room again or the window has been reported, waits no longer.
        self._postponed = set()
        for number in due:
            window = unreported.get(number)
            if window is None or window.nbytes < max(least, window.worth):
                continue
            # Rows that a join completes are journaled with this turn, but reach the engine later. A checkpoint now
            # would delete them from the journal without having them.
            if self._ingestor.late.is_joining(number):
                self._postponed.add(number)
            elif self._ingestor.engine.checkpoint(window.model, window.window, self._writer(window, turn.number)):
                window.nbytes = 0

    def _writer(self, window: UnreportedWindow, through: int) -> Callable[[bytes | None], None]:
        """Return a function that writes a window's checkpoint and deletes its rows of turns up to `through`."""
        covered, number, telemetry = window.nbytes, window.window.number, self._ingestor.telemetry

        def write(data: bytes | None) -> None:
            if data is None:  # an error that is logged; the rows stay in the journal until the next one
                telemetry.count("checkpoints_failed")
                window.keep_rows(covered, 2 * covered)
            elif len(data) >= (window.checkpoint_bytes + covered) * (SPARED if self.used_bytes <= self.limit else 1):
                telemetry.count("checkpoints_dropped")
                window.keep_rows(covered, 2 * len(data))
            else:
                telemetry.count("checkpoints")
                window.checkpoint_bytes, window.worth = len(data), len(data) // GAIN
                self._database.submit(
                    lambda connection: journal.write_checkpoint(number, through, data, connection),
                    lambda _: self._database.delete_chunks(number, through),
                    len(data),
                    self._not_written,
                )

        return write

    def _not_written(self, error: Exception) -> None:
        self._ingestor.telemetry.count("checkpoints_failed")
        log.error("a checkpoint cannot be written: %s; the rows stay in the journal until the next one", error)

    def close_excess(self) -> None:
        """Close windows early, though they are not due: as many as the journal needs to take rows for a while.

        What windows hold that are closing anyway is on its way out.
        """
        held: Counter[ModelKey] = Counter()
        unreported = self._ingestor.unreported
        excess = min(self.used_bytes - self.limit, self._held - self.limit // 2) + self.limit // WORTH
        for window in unreported.values():
            if self._ingestor.is_open(window):
                held[window.model] += window.held_bytes
            else:
                excess -= window.held_bytes
        closed: list[tuple[str, OpenWindow]] = []
        for model, _ in held.most_common():
            while excess > 0 and (oldest := self._ingestor.close_early(model)) is not None:
                closed.append((model[0], oldest))
                excess -= unreported[oldest.number].held_bytes if oldest.number in unreported else 0
        if closed:
            self._ingestor.telemetry.count("windows_closed_early", by=len(closed))
            name, first = closed[0]
            log.warning(
                "the journal is at limits.journal_bytes and checkpoints do not free it: closing %d windows early, "
                "first that of model %r from %d to %d; their later rows count as late; raise limits.journal_bytes",
                len(closed), name, first.start, first.end,
            )  # fmt: skip
