"""What a window is: its span, its row counts, what has been closed. Pure; book.py decides what opens and closes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zmon._wire.frames import MAX_NUMBER
from zmon.batch import Schema
from zmon.contract import RowCounts

NANO = 1_000_000_000
OTHER = "__other__"  # the rows of agents beyond the limit, together: they count for the rollup only
NO_WINDOW = 0  # the number under which counts stand that wait for a window to open
SPANS = 10_000  # closed spans remembered; beyond that the gap between the two oldest counts as closed too


class Now(NamedTuple):
    """The collector's clock: `wall` in epoch seconds, `mono` in seconds that never jump."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True)
class WindowRules:
    """How windows open and close; durations in seconds."""

    period: int = 60
    grace: float = 6.0
    idle: float = 10.0
    max_wait: float = 30.0
    open_windows: int = 64
    agents: int = 100


class Periods:
    """How long windows are, from when on: a changed period takes effect where old and new windows meet."""

    def __init__(self, length: int) -> None:
        self._since = [0]
        self._lengths = [length]

    @property
    def newest(self) -> int:
        """The length of windows to come, in seconds."""
        return self._lengths[-1]

    def change(self, length: int, after: int) -> None:
        """Windows of another length from the first boundary of both at or after `after`, in epoch seconds."""
        if length == self.newest:
            return
        common = lcm(length, self.newest)
        since = -(-max(after, self._since[-1]) // common) * common
        if since == self._since[-1]:  # no window of the last length has begun
            self._lengths[-1] = length
        else:
            self._since.append(since)
            self._lengths.append(length)

    def length(self, start: int) -> int:
        """Seconds of the window that begins at `start`."""
        return self._lengths[bisect_right(self._since, start) - 1]

    def starts(self, times: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
        """Where the windows of these times (epoch nanoseconds) begin, in epoch seconds."""
        if isinstance(times, int):
            return times // NANO // self.length(times // NANO) * self.length(times // NANO)
        seconds = times // NANO
        if len(self._lengths) == 1:
            return seconds // self._lengths[0] * self._lengths[0]
        lengths = np.array(self._lengths)[np.searchsorted(self._since, seconds, side="right") - 1]
        starts: NDArray[np.int64] = seconds // lengths * lengths
        return starts


class Tally:
    """Mutable row counts of one agent in one window."""

    __slots__ = ("late", "lost", "received", "rejected", "sampled_out")

    def __init__(self) -> None:
        self.received = self.late = self.lost = self.sampled_out = 0
        self.rejected: dict[str, int] = {}

    def add(self, kind: str, rows: int, reason: str = "") -> None:
        """Count rows; no further than MAX_NUMBER, whatever hostile streams say they have lost."""
        if kind == "rejected":
            self.rejected[reason] = min(self.rejected.get(reason, 0) + rows, MAX_NUMBER)
        else:
            setattr(self, kind, min(getattr(self, kind) + rows, MAX_NUMBER))

    def absorb(self, other: Tally) -> None:
        for kind in ("received", "late", "lost", "sampled_out"):
            self.add(kind, getattr(other, kind))
        for reason, rows in other.rejected.items():
            self.add("rejected", rows, reason)

    def plain(self) -> list[object]:
        """The counts as plain data, for the journal."""
        return [self.received, self.late, self.lost, self.sampled_out, self.rejected]

    @classmethod
    def of(cls, plain: list[object]) -> Tally:
        """The counts that `plain` gave."""
        tally = cls()
        tally.received, tally.late, tally.lost, tally.sampled_out, tally.rejected = plain  # type: ignore[assignment]
        return tally

    def frozen(self) -> RowCounts:
        return RowCounts(self.received, self.late, self.lost, self.sampled_out, dict(self.rejected))


@dataclass(slots=True)
class OpenWindow:
    """A window that takes rows, numbered over all models.

    `passed` is when the first agent with rows in it went beyond its end and grace.
    """

    start: int
    end: int
    number: int = NO_WINDOW
    schema: Schema = Schema()
    contributors: set[str] = field(default_factory=set)
    passed: float | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    compared: dict[int, tuple[Schema, str]] = field(default_factory=dict)  # conflicts by id; the schema is kept alive

    def conflict(self, schema: Schema) -> str:
        """Why rows of this schema cannot stand in this window; empty when they can."""
        if schema is self.schema:
            return ""
        known = self.compared.get(id(schema))
        if known is None:
            known = self.compared[id(schema)] = schema, self.schema.conflict(schema)
        return known[1]

    def tally(self, agent: str) -> Tally:
        return self.tallies.setdefault(agent, Tally())


@dataclass(slots=True)
class Changes:
    """What the journal does not know yet of a book: windows, (window number, agent) of counts, spans, agents' times."""

    opened: list[OpenWindow] = field(default_factory=list)
    counts: set[tuple[int, str]] = field(default_factory=set)
    spans: list[tuple[int, int]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)


class Spans:
    """Stretches of time that are closed, merged where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, time: int) -> bool:
        i = bisect_right(self._starts, time) - 1
        return i >= 0 and time < self._ends[i]

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Close a stretch; the closed stretches that are new by it, each in the place of those that lie within."""
        i = bisect_right(self._starts, start)
        first, last = i, i
        if i and self._ends[i - 1] >= start:
            first, start, end = i - 1, self._starts[i - 1], max(end, self._ends[i - 1])
        while last < len(self._starts) and self._starts[last] <= end:
            end = max(end, self._ends[last])
            last += 1
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        if len(self._starts) > SPANS:
            self._starts[0:2] = self._starts[0:1]
            self._ends[0:2] = self._ends[1:2]
            return [(start, end), (self._starts[0], self._ends[0])]
        return [(start, end)]
