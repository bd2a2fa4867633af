"""A window: its span, its row counts, and the spans already closed. Pure; manager.py decides what opens and closes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zmon._wire.tally import MAX_NUMBER
from zmon.batch import Schema
from zmon.contract import RowCounts
from zmon_collector.windows.fit import MAX_COLUMNS, Fit

NANO = 1_000_000_000
OTHER = "__other__"  # all agents beyond limits.agents together; their rows count for the rollup only
REASONS = 64  # of one agent in one window, for each kind; further ones are counted together, as ANY_REASON
ANY_REASON = "other"
SCHEMAS_HELD = 2**20  # bytes of schemas of which a window knows how they fit; others are looked at again
BY_REASON = ("rejected", "degraded")  # kinds of row counts that are split by reason
NO_WINDOW = 0  # the number under which counts are journaled until a window opens for them
PERIODS = 1000  # changes of a model's period remembered; beyond that, the oldest two count as one
SPANS = 10_000  # closed spans remembered; beyond that, the gap between the two oldest also counts as closed


ModelKey = tuple[str, str]  # (model, version)


class Now(NamedTuple):
    """A reading of the collector's clocks: `wall` in epoch seconds, `mono` in seconds that never jump."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True)
class WindowRules:
    """Settings for opening and closing windows; durations in seconds.

    `open_windows`, `agents` and `features` are limits on all windows of a model together.
    """

    period: int = 60
    grace: float = 6.0
    idle: float = 10.0
    max_wait: float = 30.0
    open_windows: int = 64
    agents: int = 100
    features: int = MAX_COLUMNS


class Periods:
    """Window lengths over time: a changed period takes effect where an old and a new window boundary coincide.

    Parameters
    ----------
    length : int
        The first length, in seconds; or
    known : sequence of (int, int), optional
        lengths of an earlier run, as `plain` returned them.
    """

    def __init__(self, length: int, known: Sequence[tuple[int, int]] = ()) -> None:
        steps = sorted(known) or [(0, length)]
        self._since = [0, *(since for since, _ in steps[1:])]
        self._lengths = [length for _, length in steps]

    @property
    def newest(self) -> int:
        """Length of future windows, in seconds."""
        return self._lengths[-1]

    @property
    def since(self) -> int:
        """When windows of the newest length begin, in epoch seconds."""
        return self._since[-1]

    def plain(self) -> list[tuple[int, int]]:
        """Return since when, in epoch seconds, windows have had which length in seconds; oldest first."""
        return list(zip(self._since, self._lengths, strict=True))

    def change(self, length: int, after: int) -> None:
        """Use another length from the first common boundary at or after `after`, in epoch seconds."""
        if length == self.newest:
            return
        common = lcm(length, self.newest)
        since = -(-max(after, self._since[-1]) // common) * common
        if since == self._since[-1]:  # no window of the last length has begun
            self._lengths[-1] = length
        else:
            self._since.append(since)
            self._lengths.append(length)
        if len(self._since) > PERIODS:
            del self._since[1], self._lengths[0]

    def length(self, start: int) -> int:
        """Return the length in seconds of the window that begins at `start`."""
        return self._lengths[bisect_right(self._since, start) - 1]

    def start(self, time: float) -> int:
        """Return the start of the window that holds this time; both in epoch seconds."""
        length = self.length(int(time))
        return int(time) // length * length

    def starts(self, times: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
        """Return the starts, in epoch seconds, of the windows that hold these times (epoch nanoseconds)."""
        if isinstance(times, int):
            return self.start(times // NANO)
        seconds = times // NANO
        if len(self._lengths) == 1:
            return seconds // self._lengths[0] * self._lengths[0]
        lengths = np.array(self._lengths)[np.searchsorted(self._since, seconds, side="right") - 1]
        starts: NDArray[np.int64] = seconds // lengths * lengths
        return starts


@dataclass(slots=True)
class Tally:
    """Row counts of one agent in one window."""

    received: int = 0
    late: int = 0
    lost: int = 0
    sampled_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    degraded: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, rows: int, reason: str = "") -> None:
        """Count rows, up to MAX_NUMBER: a hostile stream may claim to have lost any number."""
        if kind in BY_REASON:
            counts = getattr(self, kind)
            if reason not in counts and len(counts) >= REASONS:
                reason = ANY_REASON
            counts[reason] = min(counts.get(reason, 0) + rows, MAX_NUMBER)
        else:
            setattr(self, kind, min(getattr(self, kind) + rows, MAX_NUMBER))

    def absorb(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for kind in ("received", "late", "lost", "sampled_out"):
            self.add(kind, getattr(other, kind))
        for kind in BY_REASON:
            for reason, rows in getattr(other, kind).items():
                self.add(kind, rows, reason)

    def plain(self) -> list[object]:
        """Return the counts as plain data, for the journal; ``Tally(*plain)`` has them again."""
        return [self.received, self.late, self.lost, self.sampled_out, self.rejected, self.degraded]

    def frozen(self) -> RowCounts:
        """Return an immutable copy, for reports."""
        by_reason = dict(self.rejected), dict(self.degraded)
        return RowCounts(self.received, self.late, self.lost, self.sampled_out, *by_reason)


@dataclass(slots=True)
class OpenWindow:
    """A window that accepts rows; its number is unique across models.

    `rules` are those with which it opened: a reload changes nothing for it. `passed` is the monotonic time at which
    the first agent with rows in the window went beyond its end and grace.
    """

    start: int
    end: int
    number: int = NO_WINDOW
    schema: Schema = Schema()
    rules: WindowRules = WindowRules()
    contributors: set[str] = field(default_factory=set)
    passed: float | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)  # by agent, those of its first rows here
    # By id of the schema; holding it keeps the id valid.
    fits: dict[int, tuple[Schema, Fit]] = field(default_factory=dict)

    @property
    def undecided(self) -> bool:
        """Whether the window has no schema yet: labels have opened it, and no rows have ever been seen."""
        return self.schema.task == "classification" and not self.schema.classes

    def fit(self, schema: Schema) -> Fit:
        """Return how rows of this schema fit in the window."""
        found = self.fits.get(id(schema))
        if found is None:
            found = self.fits[id(schema)] = schema, Fit(self.schema, schema)
            drop_oldest(self.fits)
        return found[1]

    def tally(self, agent: str) -> Tally:
        """Return the row counts of an agent, created on first use."""
        return self.tallies.setdefault(agent, Tally())


def drop_oldest(known: dict[int, tuple[Schema, Any]]) -> None:
    """Drop the oldest schemas by which something is known, until they take at most SCHEMAS_HELD bytes."""
    nbytes = sum(schema.nbytes for schema, _ in known.values())
    while nbytes > SCHEMAS_HELD and len(known) > 1:
        schema, _ = known.pop(next(iter(known)))
        nbytes -= schema.nbytes


@dataclass(slots=True)
class Changes:
    """Changes of one WindowManager that are not journaled yet."""

    opened: list[OpenWindow] = field(default_factory=list)
    counts: set[tuple[int, str]] = field(default_factory=set)  # (window number, agent)
    spans: list[tuple[int, int]] = field(default_factory=list)  # closed
    agents: set[str] = field(default_factory=set)  # whose newest row time has moved
    tags: set[tuple[int, str]] = field(default_factory=set)  # (window number, agent)
    periods: bool = False  # whether the lengths of windows have changed
    main: bool = False  # whether the classes of the newest window have


class Spans:
    """Closed spans of time, merged where they touch."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __contains__(self, time: int) -> bool:
        i = bisect_right(self.starts, time) - 1
        return i >= 0 and time < self.ends[i]

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Close a span; return the merged spans to journal, each of which replaces those that lie within it."""
        i = bisect_right(self.starts, start)
        first, last = i, i
        if i and self.ends[i - 1] >= start:
            first, start, end = i - 1, self.starts[i - 1], max(end, self.ends[i - 1])
        while last < len(self.starts) and self.starts[last] <= end:
            end = max(end, self.ends[last])
            last += 1
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        if len(self.starts) > SPANS:
            self.starts[0:2] = self.starts[0:1]
            self.ends[0:2] = self.ends[1:2]
            return [(start, end), (self.starts[0], self.ends[0])]
        return [(start, end)]
