"""The windows of a (model, version): which take rows, whom they wait for, which close now. Pure: time is passed in.

The rules are those of docs/collector.md.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import count

from zmon.batch import Schema
from zmon_collector.windows.window import (
    NANO,
    NO_WINDOW,
    OTHER,
    Changes,
    Now,
    OpenWindow,
    Periods,
    Spans,
    Tally,
    WindowRules,
)


class _Agent:
    __slots__ = ("newest", "rows_at", "streams")

    def __init__(self, mono: float) -> None:
        self.newest = float("-inf")  # newest row time
        self.rows_at = mono  # when it last sent rows, or said hello
        self.streams: set[bytes] = set()  # its publishers that have not said goodbye


class WindowManager:
    """The windows of one (model, version), its agents' clocks, and the row counts that wait for a window."""

    def __init__(self, rules: WindowRules, numbers: Iterator[int] | None = None) -> None:
        self.rules = rules
        self.periods = Periods(rules.period)
        self.changes = Changes()
        self._numbers = numbers or count(1)
        self.open: dict[int, OpenWindow] = {}
        self.closed = Spans()
        self._agents: dict[str, _Agent] = {}
        self._forced: list[OpenWindow] = []
        self._columns: Schema | None = None  # union of what was seen since the last window opened
        self.waiting: dict[str, Tally] = {}  # counts noticed while no window was open
        self._waiting_since = 0.0

    @property
    def columns(self) -> Schema | None:
        """The schema of the rows that came since the last window opened; None before any came."""
        return self._columns

    def take_changes(self) -> Changes:
        """What has changed since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    def change(self, rules: WindowRules) -> None:
        """Follow other rules. A changed period takes effect behind what is open and what has been closed."""
        if rules.period != self.periods.newest:
            newest = [agent.newest + 1 for agent in self._agents.values() if agent.newest > 0]
            ends = [window.end for window in self.open.values()]
            self.periods.change(rules.period, int(max([0, *newest, *ends])))
        self.rules = rules

    # --- agents ------------------------------------------------------------------------------------------------------

    def admit(self, agent: str) -> str:
        """The name under which an agent counts: its own, or `OTHER` once there are too many."""
        return agent if agent in self._agents or len(self._agents) < self.rules.agents else OTHER

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

    def forget(self, now: Now, after: float, keep: Container[str] = ()) -> list[str]:
        """Drop agents, but for those to `keep`, that sent nothing for `after` seconds; their names."""
        gone = [name for name, agent in self._agents.items() if now.mono - agent.rows_at > after and name not in keep]
        for name in gone:
            del self._agents[name]
        return gone

    @property
    def idle(self) -> bool:
        """Nobody is there, and nothing is open or waits for a window."""
        return not (self._agents or self.open or self._forced or self.waiting)

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
        if newest > clock.newest:
            clock.newest = newest
            self.changes.agents.add(agent)
        window = self.open.get(start)
        if window is None:
            if start in self.closed:
                self.count(agent, "late", rows, now)
                return None
            window = self._open(start, self._next_schema(schema))
        elif not window.contributors and not window.conflict(schema):
            self._complete(window, schema)
        elif window.conflict(schema):
            self.count(agent, "rejected", rows, now, "schema_conflict")
            return None
        if self._columns is not schema:
            seen = self._columns
            self._columns = schema if seen is None or window.conflict(schema) else seen.union(schema)
        window.contributors.add(agent)
        window.tally(agent).received += rows
        self.changes.counts.add((window.number, agent))
        return window

    def label_windows(self, schema: Schema, now: Now) -> list[OpenWindow]:
        """The open windows, oldest first; one of this moment when there is none. Labels open no window of their time:
        a time far ahead would push out windows that still take rows."""
        if not self.open:
            start = int(self.periods.starts(int(now.wall) * NANO))
            while start in self.closed:
                start += self.periods.length(start)
            self._open(start, self._next_schema(schema))
        return [self.open[start] for start in sorted(self.open)]

    def only_labels(self, agent: str, stream: bytes) -> None:
        """A publisher that has sent labels and no rows: windows do not wait for it."""
        if agent in self._agents and self._agents[agent].newest == float("-inf"):
            self._agents[agent].streams.discard(stream)

    def pairs(self, window: OpenWindow, agent: str) -> None:
        """Late labels have completed rows of this agent: the window speaks of it, whether or not it sends rows now."""
        window.tally(agent)
        self.changes.counts.add((window.number, agent))

    def knows(self, agent: str) -> bool:
        """Whether the agent has not been forgotten."""
        return agent in self._agents

    def newest(self, agent: str) -> float:
        """Time of the agent's newest row, in epoch seconds."""
        return self._agents[agent].newest

    def _next_schema(self, schema: Schema) -> Schema:
        """The schema of a window that opens with rows of `schema`: new columns seen meanwhile start here."""
        seen, self._columns = self._columns, schema
        return schema if seen is None or seen.conflict(schema) else seen.union(schema)

    def _complete(self, window: OpenWindow, schema: Schema) -> None:
        """The first rows of a window that labels had opened: it takes their columns."""
        whole = window.schema.union(schema)
        if whole is not window.schema:
            window.schema = whole
            window.compared.clear()
            self.changes.opened.append(window)

    def _open(self, start: int, schema: Schema) -> OpenWindow:
        window = OpenWindow(start, start + self.periods.length(start), next(self._numbers), schema)
        self.changes.opened.append(window)
        for agent, tally in self.waiting.items():
            window.tally(agent).absorb(tally)
            self.changes.counts |= {(window.number, agent), (NO_WINDOW, agent)}
        self.waiting = {}
        self.open[start] = window
        if len(self.open) > self.rules.open_windows:
            oldest = self.open.pop(min(self.open))
            self._close(oldest)
            self._forced.append(oldest)
        return window

    def count(self, agent: str, kind: str, rows: int, now: Now, reason: str = "") -> None:
        """Count rows that are in no window: in the oldest open one, or in the next to open."""
        if self.open:
            oldest = self.open[min(self.open)]
            oldest.tally(agent).add(kind, rows, reason)
            self.changes.counts.add((oldest.number, agent))
            return
        self.changes.counts.add((NO_WINDOW, agent))
        if not self.waiting:
            self._waiting_since = now.mono
        self.waiting.setdefault(agent, Tally()).add(kind, rows, reason)

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
                self._close(window)
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
            self._close(window)
        return due

    def _close(self, window: OpenWindow) -> None:
        self.changes.spans += self.closed.add(window.start, window.end)

    def orphans(self, now: Now, *, force: bool = False) -> OpenWindow | None:
        """Counts for which no window opened within a period, as a window of their own without rows."""
        if not self.waiting or (not force and now.mono - self._waiting_since < self.rules.period):
            return None
        start = int(self.periods.starts(int(now.wall) * NANO))
        window = OpenWindow(start, start + self.periods.length(start), next(self._numbers), tallies=self.waiting)
        self.changes.opened.append(window)
        for agent in self.waiting:
            self.changes.counts.add((NO_WINDOW, agent))
        self.waiting = {}
        return window

    # --- after a start -----------------------------------------------------------------------------------------------

    def number_from(self, numbers: Iterator[int]) -> None:
        """Take the numbers of new windows from here."""
        self._numbers = numbers

    def restore_window(self, window: OpenWindow) -> None:
        """Go on with a window that was open when the collector ended, perhaps under another period."""
        if window.end - window.start != self.periods.newest:
            self.periods = Periods(window.end - window.start)
        self.open[window.start] = window

    def restore_counts(self, agent: str, tally: Tally, now: Now) -> None:
        """Counts that waited for a window."""
        self.waiting[agent] = tally
        self._waiting_since = now.mono

    def restore_agent(self, agent: str, newest: float, now: Now) -> None:
        """An agent that was known, and how far its time had come."""
        known = self._agents.setdefault(agent, _Agent(now.mono))
        known.newest = max(known.newest, newest)
