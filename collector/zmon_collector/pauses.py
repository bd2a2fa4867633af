"""The reasons for which no rows are accepted for a while: since when, and what ends each of them.

Rows that are not accepted stay with their publishers, which drop their oldest when they have no room. So every pause
must end by itself: each reason names what ends it, and `look` does that part of it which nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zmon_collector.compute.engine import Engine
from zmon_collector.health import Pause
from zmon_collector.ingest.checkpoint_policy import CheckpointPolicy
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage.database import Database
from zmon_collector.windows.window import Now

ENGINE_BYTES = 64 * 2**20  # of rows that wait for metrics
DATABASE_BYTES = 64 * 2**20  # of rows that wait for the disk
PATIENCE = 5.0  # seconds that a full journal has to shrink, before windows are closed early
GROWTH = 16  # a journal that a start finds above its limit takes a sixteenth of that until its rows are replayed
STALLED = 60.0  # seconds without progress, after which the collector cannot do its job
STALL = 1.0  # seconds that count at most between two looks: a machine that was suspended has not paused for long


@dataclass(slots=True)
class _Reason:
    """A reason for a pause.

    Attributes
    ----------
    by : str
        Its name in health and in the counter `paused`.
    holds : callable
        Whether it applies now.
    progress : callable
        Returns a value that changes while the end comes closer.
    ends : callable
        Says what ends it.
    since, moved : float
        When it began to apply, and when its progress last changed, by the clock of `Pauses`.
    """

    by: str
    holds: Callable[[], bool]
    progress: Callable[[], object]
    ends: Callable[[], str]
    since: float | None = None
    moved: float = 0.0
    reached: object = None

    def look(self, clock: float) -> bool:
        """Return whether it applies, and note since when and how far its end is."""
        if not self.holds():
            self.since = None
            return False
        reached = self.progress()
        if self.since is None:
            self.since = clock
        if self.since == clock or reached != self.reached:
            self.moved, self.reached = clock, reached
        return True


class Pauses:
    """Decides in each turn whether rows are accepted. Runs on the collector's thread."""

    def __init__(self, engine: Engine, database: Database, ingestor: Ingestor, policy: CheckpointPolicy) -> None:
        self._engine, self._ingestor, self._policy = engine, ingestor, policy
        self._clock = self._last = 0.0
        self._relieved = 0.0  # when windows were closed early last, in this pause
        self._replayed: int | None = None
        self._most_while_replaying = 0  # bytes of the journal
        written = "the disk, which writes the rows that wait for it"
        self._metrics = _Reason(
            "metrics",
            lambda: engine.backlog > ENGINE_BYTES,
            lambda: engine.backlog,
            lambda: "the metrics, which compute the rows that wait for them",
        )
        self._journal = _Reason(
            "journal_bytes",
            lambda: policy.is_full(replaying=self._replayed is not None) and not self._may_grow,
            lambda: (database.used_bytes, self._replayed),
            lambda: (
                "checkpoints of open windows, or their closing"
                if self._replayed is None
                else "the replay of an earlier run's rows; then checkpoints of open windows"
            ),
        )
        self._reasons = (
            self._metrics,
            _Reason(
                "disk",
                lambda: database.pending_bytes > DATABASE_BYTES and not database.full,
                lambda: database.pending_bytes,
                lambda: written,
            ),
            _Reason(
                "disk_full",
                lambda: database.pending_bytes > DATABASE_BYTES and database.full,
                lambda: database.pending_bytes,
                lambda: f"free space on the disk of {database.path}",
            ),
            # For a moment only: a checkpoint must not be taken while labels of its window are being joined, and with
            # new rows there would always be a join under way.
            _Reason(
                "labels",
                lambda: policy.waiting,
                lambda: ingestor.telemetry.get("checkpoints"),
                lambda: "the join of late labels that is under way; then a checkpoint is made",
            ),
            self._journal,
        )

    def look(self, now: Now, replayed: int | None = None) -> bool:
        """Return whether rows are accepted in this turn. Each pause is counted.

        Parameters
        ----------
        now : Now
        replayed : int, optional
            Rows of an earlier run that were replayed so far; None once all are.
        """
        self._clock += min(max(now.mono - self._last, 0.0), STALL)
        if replayed is not None and self._replayed is None:
            self._most_while_replaying = self._policy.used_bytes + self._policy.limit // GROWTH
        self._last, self._replayed = now.mono, replayed
        held = [reason.by for reason in self._reasons if reason.look(self._clock)]
        for by in held:
            self._ingestor.telemetry.count("paused", by)
        # Rows that only gather are computed when more come, which do not come now.
        if self._engine.gathered > ENGINE_BYTES // 2:
            self._engine.relieve(ENGINE_BYTES // 2)
        since = self._journal.since
        if since is None:
            self._relieved = 0.0
        elif replayed is None and self._clock - max(since, self._relieved) >= PATIENCE:
            self._policy.close_excess()
            self._relieved = self._clock
        return not held

    @property
    def _may_grow(self) -> bool:
        """Whether a journal that an earlier run left above its limit takes rows for now.

        Nothing can free it before the replay is over, which may take long, and publishers would drop rows meanwhile.
        """
        return self._replayed is not None and self._policy.used_bytes <= self._most_while_replaying

    @property
    def has_room_for_replay(self) -> bool:
        """Whether rows of an earlier run are replayed: on disk they are already, and the journal shrinks after them.

        They leave room for new rows, which would wait for the end of the replay otherwise.
        """
        return self._engine.backlog <= ENGINE_BYTES // 2

    def stalled(self) -> list[str]:
        """Return the pauses in which nothing has moved for long, a sentence each. Any thread may call it.

        A full disk is not among them: a restart would not free it.
        """
        return [
            f"no rows have been accepted for {pause.seconds:.0f} s ({pause.by}), and nothing moves; this ends by "
            f"{pause.ends}"
            for pause in self.current()
            if pause.stalled >= STALLED and pause.by != "disk_full"
        ]

    def current(self) -> tuple[Pause, ...]:
        """Return the pauses that hold now. Any thread may call it."""
        clock = self._clock
        return tuple(
            Pause(reason.by, clock - since, clock - reason.moved, reason.ends())
            for reason in self._reasons
            if (since := reason.since) is not None
        )
