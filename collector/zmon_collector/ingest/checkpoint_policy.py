"""Keep the journal within `limits.journal_bytes`: by checkpoints, and at the limit by closing windows early.

A checkpoint replaces the journaled rows of a window that stays open for long. Windows get one when they have many rows,
sooner while the journal is more than half full, and above the limit whatever they have: no rows are accepted then, so
nothing else would free the journal. Where checkpoints do not suffice, windows close early: the oldest one of the model
with most bytes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from heapq import nlargest

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage import journal
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import Turn
from zmon_collector.windows.window import ModelKey

log = logging.getLogger("zmon.collector")

CHECKPOINT_BYTES = 256 * 2**20  # of a window's rows in the journal
TIGHT = 16  # times sooner while the journal is more than half full
WORTH = 16  # a sixteenth of the journal
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

    @property
    def is_full(self) -> bool:
        """Whether the journal is above its limit, and open windows hold a part of it that is worth waiting for.

        What else is in the file, like the memory of metrics, does not go however long nothing is accepted.
        """
        limit, windows = self.limit, self._ingestor.unreported
        return self.used_bytes > limit and sum(window.held_bytes for window in windows.values()) > limit // WORTH

    def start_due(self, turn: Turn) -> None:
        """Start the checkpoints that are due after this turn."""
        used, limit, unreported = self.used_bytes, self.limit, self._ingestor.unreported
        if used > limit:
            least = 1
            due = {*nlargest(AT_ONCE, unreported, key=lambda number: unreported[number].nbytes), *self._postponed}
        else:
            least = CHECKPOINT_BYTES // TIGHT if used > limit // 2 else CHECKPOINT_BYTES
            due = {*turn.chunks, *self._postponed}
        # What is not due any more, because the journal has room again or the window has been reported, waits no longer.
        self._postponed = set()
        for number in due:
            window = unreported.get(number)
            if window is None or window.nbytes < least:
                continue
            # Rows that a join completes are journaled with this turn, but reach the engine later. A checkpoint now
            # would delete them from the journal without having them.
            if self._ingestor.late.is_joining(number):
                self._postponed.add(number)
            elif self._ingestor.engine.checkpoint(window.model, window.window, self._writer(number, turn.number)):
                window.nbytes = 0

    def _writer(self, number: int, through: int) -> Callable[[bytes | None], None]:
        """Return a function that writes a window's checkpoint and deletes its rows of turns up to `through`."""

        def write(data: bytes | None) -> None:
            if data is None:  # an error that is logged; the rows stay in the journal until the next one
                self._ingestor.telemetry.count("checkpoints_failed")
                return
            self._ingestor.telemetry.count("checkpoints")
            window = self._ingestor.unreported.get(number)
            if window is not None:
                window.checkpoint_bytes = len(data)
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

    def close_largest(self) -> None:
        """Close a window early, though it is not due: the oldest of the model whose windows hold most bytes on disk."""
        held: Counter[ModelKey] = Counter()
        for window in self._ingestor.unreported.values():
            held[window.model] += window.held_bytes
        for model, _ in held.most_common():
            closed = self._ingestor.close_early(model)
            if closed is not None:
                self._ingestor.telemetry.count("windows_closed_early")
                log.warning(
                    "the journal is at limits.journal_bytes and checkpoints do not free it: closing the window of "
                    "model %r from %d to %d early; its later rows count as late; raise limits.journal_bytes",
                    model[0], closed.start, closed.end,
                )  # fmt: skip
                return
