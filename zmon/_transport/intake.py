"""The way from callers to the engine: a queue of snapshots, bounded in bytes. No lock anywhere.

A caller may be a signal handler or a finalizer that interrupts another call at any instruction. So a call changes the
state by one atomic step, the append. Counters next to it have either one writer, the engine, or err on the safe side
when a call is interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

REFUSED, MARK = "refused", "mark"
MARKS = 10_000  # marks that may wait: those of calls whose time is over stay until the engine comes to them


class Snapshot:
    """One call's arguments.

    Attributes
    ----------
    kind : str
        ``"batch"`` or ``"labels"``; ``"refused"`` for rows that an adapter could not turn into a batch, with a `Loss`
        as arguments; ``"mark"`` for a call that waits until the engine comes here, with a `Mark` as arguments.
    arguments : Any
        In the order of `zmon._capture.snapshot.Arguments`.
    now : int
        Time of the call in nanoseconds since the epoch.
    rows : int
        Number of rows, as far as the caller can tell.
    nbytes : int
        Estimate of the memory held.
    ordinal : int
        Place in the queue from 1, set by the engine when it reaches the snapshot; 0 before.
    """

    __slots__ = ("arguments", "kind", "nbytes", "now", "ordinal", "rows")

    def __init__(self, kind: str, arguments: Any, now: int, rows: int, nbytes: int) -> None:
        self.kind = kind
        self.arguments = arguments
        self.now = now
        self.rows = rows
        self.nbytes = nbytes
        self.ordinal = 0


class Intake:
    """Snapshots of one publisher that are not converted yet.

    Parameters
    ----------
    limit : int
        Bytes that may be held here and in the ring together.
    """

    def __init__(self, limit: int) -> None:
        self._queue: deque[Snapshot] = deque()
        self.limit = limit
        self._much = limit // 32
        self.used = False  # something was put
        self.ring_bytes = 0  # held by the ring; written by the engine
        self.overflowed = 0  # rows that found no room; written by callers
        self.largest = 0  # bytes of the largest snapshot; written by callers
        self._put = 0  # bytes of all snapshots that were put; written by callers
        self._taken = 0  # bytes of all that were taken out; written by the engine
        self.reached = 0  # marks; written by the engine
        self._marks = 0  # put; written by callers
        self._ordinal = 0
        self._unexplained = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def nbytes(self) -> int:
        """Bytes held here."""
        return self._put - self._taken

    def room(self, converted: int) -> int:
        """Return the bytes that the ring may hold while so many bytes of this queue are converted into it.

        That is what the rest of the queue leaves, or a quarter of the limit, or the largest snapshot that may come.
        """
        return self.limit - max(self.nbytes - converted, self.limit // 4, min(self.largest, self.limit // 2))

    def put(self, snapshot: Snapshot) -> bool:
        """Append a snapshot, or count its rows if there is no room. Called by callers.

        Returns whether so much waits here that the engine should not nap.
        """
        nbytes = snapshot.nbytes
        if nbytes > self.largest:
            self.largest = nbytes
        held = self._put - self._taken + nbytes
        self.used = True
        if held + self.ring_bytes > self.limit:
            self.overflowed += snapshot.rows
            return True
        # First: a call that is interrupted in between has counted too much for a moment, never too little.
        self._put += nbytes
        self._queue.append(snapshot)
        return held > self._much

    def append(self, mark: Snapshot) -> bool:
        """Append a mark, whether there is room for rows or not; False if too many wait. Called by callers."""
        if self._marks - self.reached >= MARKS:
            return False
        self._queue.append(mark)
        self._marks += 1  # last: a call that is interrupted in between has counted too few
        return True

    # --- for the engine ----------------------------------------------------------------------------------------------

    def peek(self, most: int, nbytes: int) -> list[Snapshot]:
        """Return the next snapshots, at most so many and about so many bytes; they stay until `drop`."""
        queue = self._queue
        snapshots: list[Snapshot] = []
        for place in range(min(most, len(queue))):
            snapshot = queue[place]
            nbytes -= snapshot.nbytes
            if snapshots and (nbytes < 0 or snapshot.kind != snapshots[0].kind):
                break
            if not snapshot.ordinal:
                self._ordinal += 1
                snapshot.ordinal = self._ordinal
            snapshots.append(snapshot)
        return snapshots

    def drop(self, snapshots: Sequence[Snapshot]) -> None:
        """Take out snapshots that `peek` returned."""
        for snapshot in snapshots:
            self._queue.popleft()
            self._taken += snapshot.nbytes

    def settle(self) -> None:
        """Forget bytes that interrupted calls have counted without appending. Call this about once a second."""
        unexplained = 0 if self._queue else self.nbytes
        if unexplained and unexplained == self._unexplained:
            self._taken += unexplained
        self._unexplained = unexplained

    def free(self) -> None:
        """Free the memory of all snapshots: the queue is not used any more."""
        self._queue.clear()

    def waiting(self) -> list[Snapshot]:
        """Return the snapshots in the queue. Callable from any thread."""
        while True:
            try:
                return list(self._queue)
            except RuntimeError:  # a finalizer published while the list was made
                continue
