"""The windows of one (model, version): which are open, which agents they wait for, which close now.

Pure: the clocks are passed in. docs/collector.md states the rules for users.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import count

from zmon.batch import Schema
from zmon_collector.windows.fit import combined, conflict, lacking, opening, ordered
from zmon_collector.windows.window import (
    NO_WINDOW,
    Changes,
    Now,
    OpenWindow,
    Periods,
    Spans,
    Tally,
    WindowRules,
    drop_oldest,
)

NOTED_EVERY = 10.0  # seconds between two notes in the journal that an agent sends rows, if its time does not advance


class _Agent:
    """Clock and live publishers of one agent."""

    __slots__ = ("newest", "noted", "rows_at", "streams")

    def __init__(self, mono: float) -> None:
        self.newest = float("-inf")  # time of its newest row
        self.rows_at = mono  # when it last sent rows, or connected
        self.noted = float("-inf")  # when `rows_at` was last journaled
        self.streams: set[bytes] = set()  # its publishers that have not said goodbye


class WindowManager:
    """Open windows of one (model, version), its agents' clocks, and the row counts that have no window yet.

    Parameters
    ----------
    rules : WindowRules
    numbers : iterator of int, optional
        Numbers for new windows, shared by the managers of all models.
    changed : callable, optional
        Called whenever something may have changed that is to be journaled.
    """

    def __init__(
        self,
        rules: WindowRules,
        numbers: Iterator[int] | None = None,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.rules = rules
        self.periods = Periods(rules.period)
        self._changes = Changes(periods=True)
        self._note_change = changed
        self.open: dict[int, OpenWindow] = {}
        self.closed = Spans()
        # Union of the schemas seen since the last window opened; after a start, the task and classes alone.
        self.columns: Schema | None = None
        # Those schemas by their id, with the number of their columns that had no room. Holding one keeps its id valid.
        self._combined: dict[int, tuple[Schema, int]] = {}
        self.unplaced: dict[str, Tally] = {}  # by agent: counts noticed while no window was open
        self._unplaced_since = 0.0
        self._numbers = numbers or count(1)
        self._agents: dict[str, _Agent] = {}
        self._forced: list[OpenWindow] = []  # closed early, not returned by close_due yet

    @property
    def changes(self) -> Changes:
        """What is not journaled yet. Whoever takes it is about to add to it."""
        self._note_change()
        return self._changes

    def drain_changes(self) -> Changes:
        """Return what has changed since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def change_rules(self, rules: WindowRules) -> None:
        """Follow other rules from the next window on; a changed period, after every window and row that there was."""
        if rules.period != self.periods.newest:
            newest = [agent.newest + 1 for agent in self._agents.values() if agent.newest > 0]
            ends = [window.end for window in self.open.values()]
            self.periods.change(rules.period, int(max([0, *newest, *ends, *self.closed.ends[-1:]])))
            self.changes.periods = True
        self.rules = rules

    # --- agents ------------------------------------------------------------------------------------------------------

    def admit(self, agent: str, now: Now) -> None:
        """Know an agent, of which something is to be counted; windows do not wait for it before it is connected."""
        self._agents.setdefault(agent, _Agent(now.mono))

    def connect(self, agent: str, stream: bytes, now: Now) -> None:
        """Register a publisher of the agent: windows wait for its rows."""
        clock = self._agents.get(agent)
        if clock is None:
            clock = self._agents[agent] = _Agent(now.mono)
        elif not clock.streams:
            clock.rows_at = now.mono
        clock.streams.add(stream)

    def disconnect(self, agent: str, stream: bytes) -> None:
        """Remove a publisher of the agent: windows no longer wait for it."""
        if agent in self._agents:
            self._agents[agent].streams.discard(stream)

    def disconnect_labels_only(self, agent: str, stream: bytes) -> None:
        """Remove a publisher that sends labels, unless its agent has sent rows: windows do not wait for labels."""
        if self.knows(agent) and self.newest(agent) == float("-inf"):
            self.disconnect(agent, stream)

    def advance_clock(self, agent: str, stream: bytes, newest: float, now: Now) -> None:
        """Note rows of an agent; `newest` is the time of the newest one, in epoch seconds."""
        self.connect(agent, stream, now)
        clock = self._agents[agent]
        clock.rows_at = now.mono
        if newest > clock.newest or now.mono - clock.noted >= NOTED_EVERY:
            clock.newest = max(newest, clock.newest)
            clock.noted = now.mono
            self.changes.agents.add(agent)

    def leave(self, agent: str) -> None:
        """Note that an agent's newest rows are not here: windows do not wait for it, until it sends rows again."""
        if agent in self._agents:
            self._agents[agent].streams.clear()

    def has_silent_agents(self, now: Now, after: float) -> bool:
        """Return whether an agent sent no rows for `after` seconds."""
        return any(now.mono - agent.rows_at > after for agent in self._agents.values())

    def forget_agents(self, now: Now, after: float, keep: Container[str] = ()) -> list[str]:
        """Drop agents without rows for `after` seconds, except those in `keep`; return their names."""
        gone = [name for name, agent in self._agents.items() if now.mono - agent.rows_at > after and name not in keep]
        for name in gone:
            del self._agents[name]
        return gone

    def knows(self, agent: str) -> bool:
        """Return whether the agent is known and has not been forgotten."""
        return agent in self._agents

    def clock(self, agent: str, now: Now) -> tuple[float, float] | None:
        """Return the time of the agent's newest row, and when it last sent rows or connected, in epoch seconds of the
        collector's clock; None if it has been forgotten."""
        clock = self._agents.get(agent)
        return None if clock is None else (clock.newest, now.wall - (now.mono - clock.rows_at))

    def newest(self, agent: str) -> float:
        """Return the time of the agent's newest row, in epoch seconds."""
        return self._agents[agent].newest

    @property
    def idle(self) -> bool:
        """Whether there are no agents, no open windows and no unplaced counts."""
        return not (self._agents or self.open or self._forced or self.unplaced)

    # --- rows --------------------------------------------------------------------------------------------------------

    def misfit(self, schema: Schema, start: int, now: Now) -> str:
        """Return why rows of a schema have no place in the window that begins at `start`; empty if they have one.

        Other classes, or another task, have a place in a window that is still to open, if nobody uses the present ones
        any more: no agent that has sent rows is connected, or has sent some within the last window's time.
        """
        window = self.open.get(start)
        if window is not None and not window.undecided:
            return conflict(window.schema, schema)
        why = conflict(self.columns, schema) if self.columns is not None else ""
        return why if start in self.closed or self._is_used(now) else ""

    def _is_used(self, now: Now) -> bool:
        """Return whether the classes of the newest window still have publishers."""
        lately = max(self.rules.idle, self.periods.newest)
        users = (agent for agent in self._agents.values() if agent.newest > float("-inf"))
        return any(agent.streams or now.mono - agent.rows_at < lately for agent in users)

    def place_rows(self, agent: str, schema: Schema, start: int, rows: int, now: Now) -> OpenWindow | None:
        """Count rows as received in the window that begins at `start`, where they have a place, and return it.

        Return None if the window has closed: the rows are counted as late.
        """
        window = self.open.get(start)
        if window is None:
            if start in self.closed:
                self.count(agent, "late", rows, now)
                return None
            seen, self._combined = self.columns, {id(schema): (schema, 0)}
            self._follow(ordered(schema, seen))
            # Columns that others sent meanwhile could not join the window that was open then, so they start here.
            window = self._open(start, opening(schema, seen, self.rules.features))
        else:
            if window.undecided or not window.contributors:
                self._decide(window, schema)
            if id(schema) not in self._combined:
                known = schema if self.columns is None else self.columns
                whole = combined(known, schema, self.rules.features)
                self._follow(whole)
                self._combined[id(schema)] = schema, 0 if conflict(known, schema) else lacking(whole, schema)
                drop_oldest(self._combined)
        window.contributors.add(agent)
        if schema.tags and agent not in window.tags:
            window.tags[agent] = schema.tags
            self.changes.tags.add((window.number, agent))
        window.tally(agent).received += rows
        self.changes.counts.add((window.number, agent))
        return window

    def _follow(self, columns: Schema) -> None:
        """Note the columns of placed rows, whose classes are the main ones now."""
        before, self.columns = self.columns, columns
        if before is None or (before.task, before.classes) != (columns.task, columns.classes):
            self.changes.main = True

    def without_room(self, schema: Schema) -> int:
        """Return how many columns of placed rows join no later window either, because of limits.features."""
        return self._combined.get(id(schema), (schema, 0))[1]

    def label_windows(self, schema: Schema | None, now: Now) -> list[OpenWindow]:
        """Return the open windows, oldest first, for labels that arrive now; open a current one if there is none.

        `schema` is that of the newest rows; without it, the window's first rows decide.
        """
        # Labels never open a window of their own time: a time far ahead would push out windows that still take rows.
        if not self.open:
            self._open_current(now)
        for window in self.open.values():
            if window.undecided and schema is not None:
                window.schema = schema
                self.changes.opened.append(window)
        return [self.open[start] for start in sorted(self.open)]

    def include_agent(self, window: OpenWindow, agent: str) -> None:
        """List an agent in a window even without rows there: late labels have completed rows of it."""
        window.tally(agent)
        self.changes.counts.add((window.number, agent))

    def count(self, agent: str, kind: str, rows: int, now: Now, reason: str = "") -> None:
        """Count rows that are in no window: in the oldest open window, or in the next one to open."""
        if self.open:
            oldest = self.open[min(self.open)]
            oldest.tally(agent).add(kind, rows, reason)
            self.changes.counts.add((oldest.number, agent))
            return
        self.changes.counts.add((NO_WINDOW, agent))
        if not self.unplaced:
            self._unplaced_since = now.mono
        self.unplaced.setdefault(agent, Tally()).add(kind, rows, reason)

    def _open_current(self, now: Now) -> None:
        """Open the window of the present, or the first after it that has not closed; its first rows decide on it."""
        start = self.periods.start(now.wall)
        while start in self.closed:
            start += self.periods.length(start)
        self._open(start, Schema())

    def _open(self, start: int, schema: Schema) -> OpenWindow:
        window = OpenWindow(start, start + self.periods.length(start), next(self._numbers), schema, self.rules)
        self.changes.opened.append(window)
        self._absorb_counts(window)
        self.open[start] = window
        if len(self.open) > self.rules.open_windows:
            self.close_oldest()
        return window

    def _absorb_counts(self, window: OpenWindow) -> None:
        for agent, tally in self.unplaced.items():
            window.tally(agent).absorb(tally)
            self.changes.counts |= {(window.number, agent), (NO_WINDOW, agent)}
        self.unplaced = {}

    def _decide(self, window: OpenWindow, schema: Schema) -> None:
        """Let the first rows of a window that labels have opened decide on its columns."""
        if self.columns is not None and conflict(self.columns, schema):
            self._follow(schema)
        whole = opening(schema, self.columns if window.undecided else window.schema, self.rules.features)
        if whole != window.schema:
            window.schema = whole
            window.fits.clear()
            self.changes.opened.append(window)

    # --- closing -----------------------------------------------------------------------------------------------------

    def place_counts(self, now: Now, *, force: bool = False) -> None:
        """Open a window for counts that found none within a period; with `force`, at once.

        It is a window like others: rows of its time join it, so no time has two reports.
        """
        if not self.unplaced or (not force and now.mono - self._unplaced_since < self.rules.period):
            return
        if self.open:  # restored together with the counts
            self._absorb_counts(self.open[min(self.open)])
        else:
            self._open_current(now)

    @property
    def next_look(self) -> float:
        """The wall time before which `place_counts` and `close_due` have nothing to do."""
        if self._forced or self.unplaced:
            return float("-inf")
        return min((window.end + window.rules.grace for window in self.open.values()), default=float("inf"))

    def close_due(self, now: Now, *, hold: bool = False) -> list[OpenWindow]:
        """Close and return the windows that are due, oldest first; with `hold`, none by the collector's own clocks."""
        due, self._forced = self._forced, []
        live: dict[float, dict[str, _Agent]] = {}  # by the rule `idle`, which windows opened before a reload keep
        for start in sorted(self.open):
            window = self.open[start]
            idle = window.rules.idle
            if idle not in live:
                live[idle] = {
                    name: agent
                    for name, agent in self._agents.items()
                    if agent.streams and now.mono - agent.rows_at < idle
                }
            if self._is_due(window, live[idle], now, hold):
                del self.open[start]
                self._close(window)
                due.append(window)
        return due

    def _is_due(self, window: OpenWindow, live: Mapping[str, _Agent], now: Now, hold: bool) -> bool:
        # A window closes when every live agent's time has passed its end and grace. An agent's time is that of its
        # newest row, so history closes as fast as it is replayed; it is capped at the collector's clock, so an agent
        # whose clock is ahead closes nothing early. An idle agent is not live: it would hold back everyone else.
        #
        # A lagging agent is waited for no longer than max_wait, counted from when the first agent *with rows in this
        # window* passed it. Counting from the window's end instead would close the windows of a replica that is a day
        # behind as soon as they open; so they stay whole, and it delays the others by max_wait only.
        #
        # A window without rows has counts or late labels only: the clock passes it. An agent that has never sent rows
        # may have all of them refused, so it is not waited for.
        #
        # `hold` is set after a start, until publishers have reconnected and delivered what they held: only the
        # agents' own times close a window then, because the collector's clocks would cut off rows under way.
        limit = window.end + window.rules.grace
        if not window.contributors:
            live = {name: agent for name, agent in live.items() if agent.newest > float("-inf")}
        if not live:
            return not hold and now.wall >= limit
        if all(min(agent.newest, now.wall) >= limit for agent in live.values()):
            return True
        if window.passed is None and self._has_passed(window, limit, now):
            window.passed = now.mono
        return not hold and window.passed is not None and now.mono - window.passed >= window.rules.max_wait

    def _has_passed(self, window: OpenWindow, limit: float, now: Now) -> bool:
        """Return whether an agent with rows in the window is beyond it; without any, whether the clock is."""
        if not window.contributors:
            return now.wall >= limit
        return any(
            min(self._agents[name].newest, now.wall) >= limit for name in window.contributors if name in self._agents
        )

    def close_oldest(self) -> OpenWindow | None:
        """Close and return the oldest open window, though it is not due, for a limit's sake; `close_due` returns it."""
        if not self.open:
            return None
        oldest = self.open.pop(min(self.open))
        self._close(oldest)
        self._forced.append(oldest)
        return oldest

    def close_all(self) -> list[OpenWindow]:
        """Close and return every window, oldest first."""
        due = self._forced + [self.open[start] for start in sorted(self.open)]
        self._forced, self.open = [], {}
        for window in due:
            self._close(window)
        return due

    def _close(self, window: OpenWindow) -> None:
        self.changes.spans += self.closed.add(window.start, window.end)

    # --- after a start -----------------------------------------------------------------------------------------------

    def restore_periods(self, periods: Sequence[tuple[int, int]]) -> None:
        """Restore the lengths of windows, as `Periods.plain` returned them; before any window."""
        self.periods, self.changes.periods = Periods(self.rules.period, periods), False

    def restore_window(self, window: OpenWindow) -> None:
        """Reopen a window of an earlier run."""
        # One of a release that kept no lengths may have another than the configuration has by now.
        if self.changes.periods and window.end - window.start != self.periods.newest:
            self.periods = Periods(window.end - window.start)
        self.open[window.start] = window
        if not window.undecided and not (self.columns and conflict(self.columns, window.schema)):
            self._follow(window.schema)

    def restore_counts(self, agent: str, tally: Tally, now: Now) -> None:
        """Restore counts that have no window yet."""
        self.unplaced.setdefault(agent, Tally()).absorb(tally)
        self._unplaced_since = now.mono

    def close_past(self) -> None:
        """Close all time before the open windows, or up to the newest row: what was closed there is not known."""
        newest = [agent.newest for agent in self._agents.values() if agent.newest > 0]
        ends = [(start := self.periods.start(time)) + self.periods.length(start) for time in newest]
        until = min(self.open, default=max(ends, default=0))
        if until:
            self.changes.spans += self.closed.add(0, until)

    def restore_agent(self, agent: str, newest: float, now: Now, silence: float = 0.0) -> None:
        """Restore an agent and the time of its newest row, `silence` seconds after it last sent rows."""
        clock = self._agents.setdefault(agent, _Agent(now.mono - silence))
        clock.newest = max(clock.newest, newest)

    def restore_stream(self, agent: str, stream: bytes) -> None:
        """Restore a publisher of an agent, which is no sign of life: an agent that was forgotten stays forgotten."""
        if agent in self._agents:
            self._agents[agent].streams.add(stream)
