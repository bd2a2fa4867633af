"""When a window that stays open has many rows in the journal, a checkpoint takes their place."""

from __future__ import annotations

from collections.abc import Callable

from zmon_collector.compute.engine import Engine
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage import journal
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import Turn
from zmon_collector.telemetry import Telemetry

CHECKPOINT_BYTES = 256 * 2**20  # of a window's rows in the journal; then they are replaced by what they have come to
TIGHT = 16  # times sooner while the journal is more than half full


class CheckpointPolicy:
    """Decides after each turn which windows are brought to rest. Runs on the collector's thread."""

    def __init__(self, ingestor: Ingestor, engine: Engine, store: Database, telemetry: Telemetry) -> None:
        self._ingestor = ingestor
        self._engine = engine
        self._store = store
        self._telemetry = telemetry
        self._postponed: set[int] = set()  # windows whose checkpoint waits for a join

    @property
    def waiting(self) -> bool:
        """Some checkpoint is due and waits until no join is under way."""
        return bool(self._postponed)

    def turn(self, turn: Turn) -> None:
        """Begin the checkpoints that the turn's rows have made due."""
        tight = self._store.used_bytes > self._ingestor.config.limits.journal_bytes // 2
        for number in {*turn.chunks, *self._postponed}:
            pending = self._ingestor.pending.get(number)
            if pending is None:  # it has closed meanwhile
                self._postponed.discard(number)
                continue
            if pending.nbytes < (CHECKPOINT_BYTES // TIGHT if tight else CHECKPOINT_BYTES):
                continue
            if self._ingestor.late.is_joining(
                number
            ):  # what it gives is in this turn's chunks, and not with the engine
                self._postponed.add(number)
                continue
            self._postponed.discard(number)
            if self._engine.checkpoint(pending.model, pending.window, self._made(number, turn.number)):
                pending.nbytes = 0

    def _made(self, number: int, through: int) -> Callable[[bytes], None]:
        def made(data: bytes) -> None:
            self._telemetry.count("checkpoints")
            self._store.submit(
                lambda connection: journal.write_checkpoint(number, through, data, connection),
                lambda _: self._store.sweep(number, through),
                len(data),
            )

        return made
