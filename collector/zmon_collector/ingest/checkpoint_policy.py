"""Replace the journaled rows of a window that stays open for long by a checkpoint, which bounds the journal."""

from __future__ import annotations

from collections.abc import Callable

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage import journal
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import Turn

CHECKPOINT_BYTES = 256 * 2**20  # of a window's rows in the journal
TIGHT = 16  # times sooner while the journal is more than half full


class CheckpointPolicy:
    """Decides after each turn which windows need a checkpoint. Runs on the collector's thread."""

    def __init__(self, ingestor: Ingestor, database: Database) -> None:
        self._ingestor = ingestor
        self._database = database
        self._postponed: set[int] = set()  # windows whose checkpoint waits for a join

    @property
    def waiting(self) -> bool:
        """Whether some checkpoint is due and waits until no join is under way."""
        return bool(self._postponed)

    def start_due(self, turn: Turn) -> None:
        """Start the checkpoints that the turn's rows have made due."""
        tight = self._database.used_bytes > self._ingestor.config.limits.journal_bytes // 2
        for number in {*turn.chunks, *self._postponed}:
            unreported = self._ingestor.unreported.get(number)
            if unreported is None:  # reported meanwhile
                self._postponed.discard(number)
                continue
            if unreported.nbytes < (CHECKPOINT_BYTES // TIGHT if tight else CHECKPOINT_BYTES):
                continue
            # Rows that a join completes are journaled with this turn, but reach the engine later. A checkpoint now
            # would delete them from the journal without having them.
            if self._ingestor.late.is_joining(number):
                self._postponed.add(number)
                continue
            self._postponed.discard(number)
            write = self._writer(number, turn.number)
            if self._ingestor.engine.checkpoint(unreported.model, unreported.window, write):
                unreported.nbytes = 0

    def _writer(self, number: int, through: int) -> Callable[[bytes], None]:
        """Return a function that writes a window's checkpoint and deletes its rows of turns up to `through`."""

        def write(data: bytes) -> None:
            self._ingestor.telemetry.count("checkpoints")
            self._database.submit(
                lambda connection: journal.write_checkpoint(number, through, data, connection),
                lambda _: self._database.delete_chunks(number, through),
                len(data),
            )

        return write
