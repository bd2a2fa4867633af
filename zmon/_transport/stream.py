"""One publisher in this process: callers append to its intake, the engine converts, numbers and delivers its rows."""

from __future__ import annotations

import os
import time

import zmq

from zmon._transport import headroom
from zmon._transport.contact import Contact
from zmon._transport.conversion import Conversion, Converter, Loss
from zmon._transport.delivery import DONE, MORE, Delivery, Target
from zmon._transport.intake import MARK, REFUSED, Intake, Snapshot
from zmon._transport.ledger import Ledger, Stats
from zmon._transport.link import Socket
from zmon._transport.notices import RateLimit, say
from zmon._transport.ring import OVERHEAD, Ring
from zmon._wire.frames import STREAM_BYTES
from zmon.backoff import Backoff

FIRST, TOGETHER = 16, 256  # snapshots converted together: at first, and at most
TOGETHER_BYTES = 2**20  # of them; at most a SHARE of what may be held, because the ring drops whole messages
SHARE = 16
TURN = 0.02  # seconds of conversion before the engine turns to sending
SETTLE_EVERY = 1.0
OPEN_AFTER, OPEN_MAX = 0.5, 10.0  # seconds between two tries to open the sockets


class Mark:
    """A place in the queue that a caller waits for.

    Parameters
    ----------
    until : float
        Monotonic time after which the caller no longer waits.
    lost : int
        Rows before it that found no room in the queue.
    reported : int
        Lost rows that earlier calls have reported.
    """

    def __init__(self, until: float, lost: int, reported: int) -> None:
        self.until = until
        self.lost = lost  # rows before it that were dropped
        self.reported = reported
        self.row: int | None = None  # the last row before it, once the engine has come here
        self._base = self._dropped = 0

    def reach(self, ring: Ring) -> None:
        """Note that all rows before the mark are in the ring, or were."""
        self._base, self._dropped = ring.base, ring.dropped
        self.lost += ring.dropped
        self.row = ring.issued

    def look(self, ring: Ring) -> None:
        """Count the rows before the mark that the ring has dropped since the last look: the oldest that it held."""
        if self.row is not None:
            self.lost += max(0, min(ring.dropped - self._dropped, self.row - self._base + 1))
        self._base, self._dropped = ring.base, ring.dropped


class Stream:
    """One publisher's way out. Callers use `intake`, `refuse`, `mark`, `stats` and `retire`; all else is the engine's.

    Parameters
    ----------
    target : Target
    converter : Converter
    limit : int
        Bytes of memory that its rows may take.
    """

    def __init__(self, target: Target, converter: Converter, limit: int) -> None:
        self.target = target
        self.stop_at: float | None = None
        self.ended = False
        self.after_close = 0  # rows that came later
        self._converter = converter
        self._limit = limit
        self._begin()

    def renew(self) -> list[Socket]:
        """Start afresh in a forked child; return the sockets of the parent, which must not be touched.

        The parent's thread and connections stay there, and it sends the rows that it holds.
        """
        abandoned = self._delivery.sockets
        # The frames of the parent's thread may still hold them: their memory is freed here.
        self.intake.free()
        self._ring.free()
        self._begin()
        self._converter.renew()
        return abandoned

    def _begin(self) -> None:
        """Start with an empty queue, ring and ledger, under a new name."""
        self.intake = Intake(self._limit)
        self._ring = Ring(self._limit)
        self._ledger = Ledger(self.target.topic.model, self.intake)
        self._delivery = Delivery(
            self.target,
            os.urandom(STREAM_BYTES),
            self._ring,
            ledger=self._ledger,
            schemas=self._converter.schemas,
        )
        self._contact = Contact(self.target.topic.model, self.target.endpoints)
        self._notices = RateLimit()
        self._marks: list[Mark] = []
        self._acked: int | None = None  # the delivery's, as of the last step's counters
        self._together = FIRST  # snapshots converted together
        self._reported = 0  # dropped rows that calls of `lost` have reported
        self._leaving = False
        self._opening = Backoff(OPEN_AFTER, OPEN_MAX)
        self._open_at = self._settle_at = 0.0
        self.failed = ""

    # --- for callers -------------------------------------------------------------------------------------------------

    def refuse(self, reason: str, detail: str, rows: int) -> None:
        """Queue the news that an adapter could not turn rows into a batch."""
        self.intake.put(Snapshot(REFUSED, Loss(reason, rows, detail), 0, rows, 2 * len(detail)))

    def mark(self, until: float) -> Mark | None:
        """Return a mark that the engine reaches when it has converted everything that was put so far.

        None if too many wait, as where no thread can be started and every request calls `flush`.
        """
        mark = Mark(until, self.intake.overflowed, self._reported)
        return mark if self.intake.append(Snapshot(MARK, mark, 0, 0, 0)) else None

    def is_acknowledged(self, mark: Mark) -> bool:
        """Return whether everything before the mark is acknowledged by every collector that takes this model."""
        if mark.row is None:
            return False
        return mark.row == 0 or (self._acked is not None and self._acked >= mark.row)

    def has_lost(self, mark: Mark) -> bool:
        """Return whether rows before a mark were dropped that no earlier call had reported when the mark was set.

        Call this once everything else before the mark is acknowledged: it reports these rows.
        """
        self._reported = max(self._reported, mark.lost)
        return mark.lost > mark.reported

    def stats(self, failed: str) -> Stats:
        """Return a snapshot of all rows; `failed` is what the engine lacks."""
        return self._ledger.stats(
            connected=self._delivery.connected,
            failed=self.failed or failed,
            after_close=self.after_close,
            ended=self.ended,
        )

    def retire(self, timeout: float = 2.0) -> None:
        """Deliver what is left for at most `timeout` seconds, and end."""
        until = time.monotonic() + timeout
        if self.stop_at is None or until < self.stop_at:
            self.stop_at = until

    # --- for the engine ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether something was ever put, so that the engine has work."""
        return self.intake.used

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for acknowledgements, so that the engine must not nap."""
        return bool(self._marks) or self.stop_at is not None

    @property
    def waiting(self) -> bool:
        """Whether snapshots wait to be converted."""
        return bool(self.intake)

    @property
    def connected(self) -> bool:
        return self._delivery.connected

    @property
    def is_greeting(self) -> bool:
        """Whether a collector is there and has not answered, so that the engine must not nap."""
        return self._delivery.is_greeting

    @property
    def nbytes(self) -> int:
        """Bytes held in the ring."""
        return self._ring.nbytes

    def open(self, context: zmq.Context[Socket], poller: zmq.Poller, now: float) -> None:
        """Open the sockets if they are not open; try again later if that fails."""
        if self._delivery.sockets or now < self._open_at:
            return
        self.failed = headroom.lacking(headroom.LINK * len(self.target.endpoints))
        if not self.failed:
            try:
                self._delivery.open(context, poller)
                self._opening.reset()
            except zmq.ZMQError as error:
                self._delivery.close()
                self.failed = f"sockets cannot be opened: {error}"
        if self.failed:
            self._open_at = now + self._opening.next()
            if self._notices.allows("open"):
                say("zmon: model %r cannot connect: %s; rows are kept, and it tries again", self._model, self.failed)

    def step(self, ready: set[Socket], now: float) -> int:
        """Convert, read, send; return how far sending got."""
        state = DONE if self._leaving else self._convert()
        for mark in self._marks:
            mark.look(self._ring)
        if self._delivery.sockets:
            state = max(state, self._delivery.step(ready, now))
        for mark in self._marks:
            mark.look(self._ring)
        held = self._enter_positions()
        self.intake.ring_bytes = self._ring.nbytes
        self._acked = self._delivery.acked  # last, so that who has waited for it finds the counters up to date
        self._marks = [mark for mark in self._marks if now < mark.until and not self.is_acknowledged(mark)]
        if now >= self._settle_at:
            self._settle_at = now + SETTLE_EVERY
            self.intake.settle()
            dropped = self._ring.dropped + self.intake.overflowed
            self._contact.note(now, connected=self.connected, waiting=held, dropped=dropped)
        if self.stop_at is not None:
            self._stop(now)
        return state

    def _enter_positions(self) -> int:
        """Enter how far the rows are; return how many are held."""
        held = self._ring.issued - self._ring.delivered - self._ring.dropped
        underway = min(held, max(0, self._delivery.reached - (self._ring.issued - held)))
        self._ledger.move(delivered=self._ring.delivered, underway=underway, pushed_out=self._ring.dropped)
        return held

    def close(self) -> None:
        """Close the sockets; rows stay."""
        self._delivery.close()

    def fail(self, error: Exception, now: float) -> None:
        """Pause after an error that nobody foresaw."""
        self._delivery.close()
        self.failed = f"{type(error).__name__}: {error}"
        self._open_at = now + self._opening.next()
        if self._notices.allows("failed"):
            say("zmon: the delivery of model %r failed, and starts again; please report this", self._model, trace=True)
        if self.stop_at is not None and now >= self.stop_at:
            self.ended = True

    @property
    def _model(self) -> str:
        return self.target.topic.model

    def _convert(self) -> int:
        began = time.monotonic()
        until = began + TURN
        most_bytes = min(TOGETHER_BYTES, self._limit // SHARE)
        while snapshots := self.intake.peek(self._together, most_bytes):
            first = snapshots[0]
            if first.kind == MARK:
                snapshots = snapshots[:1]
                first.arguments.reach(self._ring)
                self._marks.append(first.arguments)
                self.intake.reached += 1
                conversion = Conversion(())
            elif first.kind == REFUSED:
                conversion = Conversion((), rejected=[snapshot.arguments for snapshot in snapshots])
            else:
                conversion = self._converted(snapshots)
            room = self.intake.room(sum(snapshot.nbytes for snapshot in snapshots))
            for layout, piece, nbytes in conversion.pieces:
                self._ring.limit = max(room, min(nbytes + OVERHEAD, self._limit))
                self._ring.append(layout, piece, nbytes)
            ordinal, labels = snapshots[-1].ordinal, first.kind == "labels"
            self._ledger.add(conversion, ordinal, issued=self._ring.issued, labels=labels)
            self.intake.drop(snapshots)
            self.intake.ring_bytes = self._ring.nbytes
            ended = time.monotonic()
            # So that one look at the queue takes no longer than a turn, however slow such snapshots are to convert.
            if ended - began > TURN / 2:
                self._together = max(1, len(snapshots) // 2)
            elif len(snapshots) == self._together:
                self._together = min(2 * self._together, TOGETHER)
            began = ended
            if ended > until:
                return MORE
        return DONE

    def _converted(self, snapshots: list[Snapshot]) -> Conversion:
        """Convert snapshots; whatever a faulty one does costs its rows only."""
        try:
            return self._converter.convert(snapshots)
        except BaseException as error:  # noqa: BLE001 - what people pass has no end, and nobody else uses this thread
            if len(snapshots) == 1:
                if self._notices.allows("internal"):
                    say("zmon: a batch of model %r cannot be converted; please report this", self._model, trace=True)
                loss = Loss("internal", snapshots[0].rows, f"{type(error).__name__}: {error}")
                return Conversion((), rejected=[loss])
        parts = [self._converted([snapshot]) for snapshot in snapshots]
        return Conversion(
            [piece for part in parts for piece in part.pieces],
            sum(part.sampled_out for part in parts),
            [loss for part in parts for loss in part.rejected],
            [loss for part in parts for loss in part.degraded],
        )

    def _abandon(self) -> None:
        """Abandon the snapshots that wait, so that the goodbye can count their rows as lost."""
        left = len(self.intake)  # what is put from now on is not looked at
        while left > 0 and (snapshots := self.intake.peek(left, self._limit)):
            kind, ordinal = snapshots[0].kind, snapshots[-1].ordinal
            if kind == REFUSED:
                refused = Conversion((), rejected=[snapshot.arguments for snapshot in snapshots])
                self._ledger.add(refused, ordinal, issued=self._ring.issued, labels=False)
            else:
                rows = sum(snapshot.rows for snapshot in snapshots)
                self._ledger.abandon(rows, ordinal, labels=kind == "labels")
            self.intake.drop(snapshots)
            left -= len(snapshots)

    def _stop(self, now: float) -> None:
        """Say goodbye when everything is delivered or the time is over, and end when it was answered."""
        assert self.stop_at is not None
        self._delivery.closing = True
        if not self._leaving:
            if now < self.stop_at and (self.intake or self._delivery.is_awaited(now)):
                return
            self._abandon()
            self._delivery.say_goodbye(now)
            self._enter_positions()
            self._leaving = True
        if self._delivery.has_left(now):
            self._delivery.close()
            self._ring.free()
            self.intake.ring_bytes = 0
            self.ended = True
