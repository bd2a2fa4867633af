"""Published rows that are not acknowledged yet: a ring bounded in bytes, and a cursor for each collector. Pure.

`Ring` numbers the rows and groups small pieces into messages as they arrive, so that publishing is O(1) and a message
keeps its rows once it was sent. Only the engine's thread touches it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

Bytes = bytes | memoryview

MERGE_ROWS = 512
MERGE_BYTES = 64 * 2**10
RELEASED = 2048  # entries that one call releases at most, so that the model soon has the interpreter again
OVERHEAD = 300  # bytes of Python objects around a piece's buffers, so that single rows are bounded as well


class RingLayout(NamedTuple):
    """Layout that the pieces of one message share: schema hash, and (name, dtype, width or None) of every array."""

    schema: bytes
    arrays: tuple[tuple[str, str, int | None], ...]
    kind: str = "batch"  # or "labels"

    def of_rows(self, rows: int) -> list[tuple[str, str, Sequence[int]]]:
        """Return (name, dtype, shape) of the arrays of a message of so many rows."""
        return [(name, dtype, (rows,) if width is None else (rows, width)) for name, dtype, width in self.arrays]


class RingPiece(NamedTuple):
    """A snapshot of one publish call: raw buffers in the layout's order, and the time of the call in ns."""

    rows: int
    ts: int
    buffers: Sequence[Bytes]


class RingEntry:
    """A future message: the rows ``first … first + rows − 1``. Further pieces may join until it is sealed."""

    __slots__ = ("encoded", "first", "layout", "nbytes", "pieces", "rows", "sealed")

    def __init__(self, first: int, layout: RingLayout, piece: RingPiece, nbytes: int) -> None:
        self.first = first
        self.rows = piece.rows
        self.nbytes = nbytes
        self.layout = layout
        self.pieces = [piece]
        self.sealed = False
        self.encoded: Any = None  # set by the sender once it has joined the pieces

    @property
    def last(self) -> int:
        return self.first + self.rows - 1


class Ring:
    """Entries by a running index, oldest first; at most `limit` bytes of them: an overflow drops the oldest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self.issued = 0  # number of the newest row
        self.dropped = 0  # rows pushed out by newer ones
        self.delivered = 0  # rows released because they were acknowledged
        self.head = 0  # index of the oldest entry
        self.tail = 0  # index behind the newest entry
        self._entries: dict[int, RingEntry] = {}

    @property
    def base(self) -> int:
        """Number of the oldest row still held, or of the next row if none is."""
        return self._entries[self.head].first if self.head < self.tail else self.issued + 1

    def get(self, index: int) -> RingEntry:
        return self._entries[index]

    def append(self, layout: RingLayout, piece: RingPiece, nbytes: int) -> None:
        """Number the piece's rows and keep them; amortised O(1)."""
        rows = piece[0]
        nbytes += OVERHEAD
        newest = self._entries.get(self.tail - 1)
        if (
            newest is not None
            and not newest.sealed
            and newest.rows + rows <= MERGE_ROWS
            and newest.nbytes + nbytes <= MERGE_BYTES
            and newest.layout == layout
        ):
            newest.pieces.append(piece)
            newest.rows += rows
            newest.nbytes += nbytes
        else:
            self._entries[self.tail] = RingEntry(self.issued + 1, layout, piece, nbytes)
            self.tail += 1
        self.issued += rows
        self.nbytes += nbytes
        while self.nbytes > self.limit:
            self.dropped += self._pop().rows

    def release(self, row: int) -> None:
        """Discard entries that end at or before `row`, `RELEASED` at most: every collector has them."""
        for _ in range(RELEASED):
            if self.head == self.tail or self._entries[self.head].last > row:
                break
            self.delivered += self._pop().rows

    def discard(self, entry: RingEntry) -> None:
        """Drop the entries up to this one."""
        while self.head < self.tail and self._entries[self.head].first <= entry.first:
            self.dropped += self._pop().rows

    def free(self) -> None:
        """Free the memory of all entries, whatever state a fork has left: the ring is not used any more."""
        self._entries.clear()

    def find(self, row: int) -> int:
        """Return the index of the oldest entry that reaches beyond `row`."""
        indices = range(self.head, self.tail)
        return self.head + bisect_right(indices, row, key=lambda index: self._entries[index].last)

    def _pop(self) -> RingEntry:
        entry = self._entries.pop(self.head)
        self.head += 1
        self.nbytes -= entry.nbytes
        return entry


class Cursor:
    """One collector's position in the ring: what it has acknowledged, and what is under way to it."""

    def __init__(self) -> None:
        self.acked = 0
        self.settled = 0  # the last row that this collector itself acknowledged
        self.window = 0  # bytes that this collector allows to be under way
        self.inflight = 0
        self.reached = 0  # the last row sent or acknowledged
        self.latency: float | None = None  # seconds that the newest acknowledgement took; None after a rewind
        self._index = 0
        self._highest = 0  # the last row that was ever sent
        self._sent: deque[tuple[int, int, float | None]] = deque()  # (last row, bytes, first sent at), oldest first

    def peek(self, ring: Ring) -> RingEntry | None:
        """Seal and return the next entry to send; None if everything is sent or the window is full."""
        self._index = max(self._index, ring.head)
        if self._index >= ring.tail:
            return None
        entry = ring.get(self._index)
        if self.inflight and self.inflight + entry.nbytes > self.window:
            return None  # one message may always be under way, however small the window
        entry.sealed = True
        return entry

    def behind(self, ring: Ring) -> bool:
        """Return whether there are entries that were not sent."""
        return self._index < ring.tail

    def sent(self, entry: RingEntry, now: float = 0.0) -> None:
        self._index += 1
        self.reached = entry.last
        self.inflight += entry.nbytes
        self._sent.append((entry.last, entry.nbytes, now if entry.last > self._highest else None))
        self._highest = max(self._highest, entry.last)

    def acknowledge(self, row: int, window: int, now: float = 0.0) -> bool:
        """Process a cumulative acknowledgement; return True if it advanced."""
        self.window = window
        self.settled = max(self.settled, row)
        if row <= self.acked:
            return False
        self.acked = row
        self.reached = max(self.reached, row)
        self.latency = None
        while self._sent and self._sent[0][0] <= row:
            _, nbytes, at = self._sent.popleft()
            self.inflight -= nbytes
            self.latency = None if at is None else now - at
        return True

    def follow(self, row: int) -> None:
        """Treat rows that another collector has as acknowledged: this one does not take them."""
        self.acked = max(self.acked, row)
        self.reached = max(self.reached, row)

    def rewind(self, ring: Ring) -> None:
        """Go back to the last acknowledged row: whatever was under way may be lost."""
        self._index = ring.find(self.acked)
        self.reached = self.acked
        self.inflight = 0
        self._sent.clear()
