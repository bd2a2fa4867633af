"""Which window a row belongs to, and when one closes: the book of a (model, version). Pure: time is passed in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zmon.batch import Schema
from zmon.contract import RowCounts

SPANS = 10_000  # closed spans remembered; beyond that the gap between the two oldest counts as closed too


class Now(NamedTuple):
    """The collector's clock: `wall` in epoch seconds, `mono` in seconds that never jump."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How windows open and close; durations in seconds."""

    period: int = 60
    grace: float = 6.0
    idle: float = 10.0
    max_wait: float = 30.0
    open_windows: int = 64


class Tally:
    """Mutable row counts of one agent in one window."""

    __slots__ = ("late", "lost", "received", "rejected", "sampled_out")

    def __init__(self) -> None:
        self.received = self.late = self.lost = self.sampled_out = 0
        self.rejected: dict[str, int] = {}

    def add(self, kind: str, rows: int, reason: str = "") -> None:
        if kind == "rejected":
            self.rejected[reason] = self.rejected.get(reason, 0) + rows
        else:
            setattr(self, kind, getattr(self, kind) + rows)

    def absorb(self, other: Tally) -> None:
        for kind in ("received", "late", "lost", "sampled_out"):
            self.add(kind, getattr(other, kind))
        for reason, rows in other.rejected.items():
            self.add("rejected", rows, reason)

    def frozen(self) -> RowCounts:
        return RowCounts(self.received, self.late, self.lost, self.sampled_out, dict(self.rejected))


@dataclass(slots=True)
class OpenWindow:
    """A window that takes rows. `passed` is when the first agent with rows in it went beyond its end and grace."""

    start: int
    end: int
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


class _Agent:
    __slots__ = ("newest", "rows_at", "streams")

    def __init__(self, mono: float) -> None:
        self.newest = float("-inf")  # newest row time
        self.rows_at = mono  # when it last sent rows, or said hello
        self.streams: set[bytes] = set()  # its publishers that have not said goodbye


class Spans:
    """Stretches of time that are closed, merged where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, time: int) -> bool:
        i = bisect_right(self._starts, time) - 1
        return i >= 0 and time < self._ends[i]

    def add(self, start: int, end: int) -> None:
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


class Book:
    """The windows of one (model, version), its agents' clocks, and the row counts that wait for a window."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.open: dict[int, OpenWindow] = {}
        self.closed = Spans()
        self._agents: dict[str, _Agent] = {}
        self._forced: list[OpenWindow] = []
        self._columns: Schema | None = None  # union of what was seen since the last window opened
        self._waiting: dict[str, Tally] = {}  # counts noticed while no window was open
        self._waiting_since = 0.0

    # --- agents ------------------------------------------------------------------------------------------------------

    def hello(self, agent: str, stream: bytes, now: Now) -> None:
        """A publisher is there: windows wait for its rows."""
        known = self._agents.get(agent)
        if known is None:
            known = self._agents[agent] = _Agent(now.mono)
        elif not known.streams:
            known.rows_at = now.mono
        known.streams.add(stream)

    def goodbye(self, agent: str, stream: bytes) -> None:
        """A publisher has gone: windows wait for it no longer."""
        if agent in self._agents:
            self._agents[agent].streams.discard(stream)

    def live(self, now: Now) -> list[str]:
        """Agents that windows wait for."""
        return [name for name, agent in self._agents.items() if self._is_live(agent, now)]

    def forget(self, now: Now, after: float) -> list[str]:
        """Drop agents that sent nothing for `after` seconds; their names."""
        gone = [name for name, agent in self._agents.items() if now.mono - agent.rows_at > after]
        for name in gone:
            del self._agents[name]
        return gone

    def _is_live(self, agent: _Agent, now: Now) -> bool:
        return bool(agent.streams) and now.mono - agent.rows_at < self.rules.idle

    # --- rows --------------------------------------------------------------------------------------------------------

    def put(
        self, agent: str, stream: bytes, schema: Schema, start: int, rows: int, newest: float, now: Now
    ) -> OpenWindow | None:
        """Take rows into the window that begins at `start`, or count them as late or rejected and return None.

        `newest` is the time of the newest of them, in epoch seconds.
        """
        self.hello(agent, stream, now)
        clock = self._agents[agent]
        clock.rows_at = now.mono
        clock.newest = max(clock.newest, newest)
        window = self.open.get(start)
        if window is None:
            if start in self.closed:
                self.count(agent, "late", rows, now)
                return None
            window = self._open(start, self._next_schema(schema))
        elif window.conflict(schema):
            self.count(agent, "rejected", rows, now, "schema_conflict")
            return None
        if self._columns is not schema:
            seen = self._columns
            self._columns = schema if seen is None or window.conflict(schema) else seen.union(schema)
        window.contributors.add(agent)
        window.tally(agent).received += rows
        return window

    def _next_schema(self, schema: Schema) -> Schema:
        """The schema of a window that opens with rows of `schema`: new columns seen meanwhile start here."""
        seen, self._columns = self._columns, schema
        return schema if seen is None or seen.conflict(schema) else seen.union(schema)

    def _open(self, start: int, schema: Schema) -> OpenWindow:
        window = OpenWindow(start, start + self.rules.period, schema)
        for agent, tally in self._waiting.items():
            window.tally(agent).absorb(tally)
        self._waiting = {}
        self.open[start] = window
        if len(self.open) > self.rules.open_windows:
            oldest = self.open.pop(min(self.open))
            self.closed.add(oldest.start, oldest.end)
            self._forced.append(oldest)
        return window

    def count(self, agent: str, kind: str, rows: int, now: Now, reason: str = "") -> None:
        """Count rows that are in no window: in the oldest open one, or in the next to open."""
        if self.open:
            self.open[min(self.open)].tally(agent).add(kind, rows, reason)
            return
        if not self._waiting:
            self._waiting_since = now.mono
        self._waiting.setdefault(agent, Tally()).add(kind, rows, reason)

    # --- closing -----------------------------------------------------------------------------------------------------

    def due(self, now: Now, *, hold: bool = False) -> list[OpenWindow]:
        """Take out the windows that close now, oldest first. `hold`: none by the wall clock, after a start."""
        due, self._forced = self._forced, []
        if not self.open:
            return due
        live = {name: agent for name, agent in self._agents.items() if self._is_live(agent, now)}
        for start in sorted(self.open):
            window = self.open[start]
            if self._closes(window, live, now, hold):
                del self.open[start]
                self.closed.add(window.start, window.end)
                due.append(window)
        return due

    def _closes(self, window: OpenWindow, live: Mapping[str, _Agent], now: Now, hold: bool) -> bool:
        limit = window.end + self.rules.grace
        if not live:
            return not hold and now.wall >= limit
        if all(min(agent.newest, now.wall) >= limit for agent in live.values()):
            return True
        if window.passed is None and any(
            min(self._agents[name].newest, now.wall) >= limit for name in window.contributors if name in self._agents
        ):
            window.passed = now.mono
        return not hold and window.passed is not None and now.mono - window.passed >= self.rules.max_wait

    def flush(self) -> list[OpenWindow]:
        """Take out every window, oldest first."""
        due = self._forced + [self.open[start] for start in sorted(self.open)]
        self._forced, self.open = [], {}
        for window in due:
            self.closed.add(window.start, window.end)
        return due

    def orphans(self, now: Now, *, force: bool = False) -> OpenWindow | None:
        """Counts for which no window opened within a period, as a window of their own without rows."""
        if not self._waiting or (not force and now.mono - self._waiting_since < self.rules.period):
            return None
        start = int(now.wall // self.rules.period) * self.rules.period
        window = OpenWindow(start, start + self.rules.period, tallies=self._waiting)
        self._waiting = {}
        return window
