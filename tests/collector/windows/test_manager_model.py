"""The windows of a model against a plain list of what came, with reloads, steps of the clock, and restarts anywhere."""

from __future__ import annotations

from itertools import count, pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NO_WINDOW, Now, OpenWindow, Tally, WindowRules

from zmon.batch import Schema

SCHEMA = Schema(classes=("a", "b"))
T0 = 1_700_000_040
AGENTS = st.sampled_from(["a", "b", "c"])
RULES = st.builds(
    WindowRules,
    period=st.sampled_from([10, 15, 20, 60]),
    grace=st.sampled_from([0.0, 5.0]),
    idle=st.sampled_from([5.0, 50.0]),
    max_wait=st.sampled_from([10.0, 100.0]),
    open_windows=st.integers(2, 5),
)


class Windows(RuleBasedStateMachine):
    """What is issued is a list of (time, rows); what is journaled after each turn survives a restart, and no more."""

    @initialize(rules=RULES)
    def begin(self, rules: WindowRules) -> None:
        self.rules, self.numbers = rules, count(1)
        self.manager = WindowManager(rules, self.numbers)
        self.now = Now(float(T0), 1000.0)
        self.issued = 0
        self.windows: dict[int, OpenWindow] = {}  # all that ever opened, by number
        self.opened_with: dict[int, WindowRules] = {}
        self.reported: set[int] = set()
        self.periods: list[tuple[int, int]] = []  # the journal
        self.spans: list[tuple[int, int]] = []
        self.agents: dict[str, float] = {}
        self.turn()

    def turn(self) -> None:
        """Journal what has changed."""
        changes = self.manager.drain_changes()
        if changes.periods:
            self.periods = self.manager.periods.plain()
        for start, end in changes.spans:
            self.spans = [(low, high) for low, high in self.spans if not (start <= low and high <= end)]
            self.spans.append((start, end))
        for agent in changes.agents:
            self.agents[agent] = self.manager.newest(agent)
        for window in changes.opened:
            self.windows[window.number] = window
            self.opened_with.setdefault(window.number, self.rules)

    @rule(agent=AGENTS, ages=st.lists(st.integers(-60, 150), min_size=1, max_size=5))
    def rows(self, agent: str, ages: list[int]) -> None:
        for age in ages:
            self.place(agent, int(self.now.wall) - age)
            self.turn()

    def place(self, agent: str, time: int) -> None:
        closed = any(start <= time < end for start, end in self.spans)
        start = self.manager.periods.start(time)
        self.manager.advance_clock(agent, agent.encode(), time, self.now)
        window = self.manager.place_rows(agent, SCHEMA, start, 1, self.now)
        assert (window is None) == closed, "rows are late if their time has been reported, and only then"
        assert window is None or window.start <= time < window.end
        self.issued += 1

    @rule(agent=AGENTS)
    def lost(self, agent: str) -> None:
        self.manager.count(agent, "lost", 1, self.now)
        self.issued += 1
        self.turn()

    @rule()
    def labels(self) -> None:
        assert self.manager.label_windows(None, self.now)
        self.turn()

    @rule(seconds=st.sampled_from([1, 7, 30, 70]), step=st.sampled_from([0, 0, 0, 0, 45, 4000]))
    def wait(self, seconds: int, step: int) -> None:
        self.now = Now(self.now.wall + seconds + step, self.now.mono + seconds)

    @rule(hold=st.booleans())
    def close_due(self, hold: bool) -> None:
        self.manager.place_counts(self.now)
        for window in self.manager.close_due(self.now, hold=hold):
            self.report(window)
        self.turn()

    def report(self, window: OpenWindow) -> None:
        assert window.number not in self.reported
        assert window.rules == self.opened_with[window.number], "a reload changed an open window"
        self.reported.add(window.number)

    @rule(rules=RULES)
    def reload(self, rules: WindowRules) -> None:
        self.rules = rules
        self.manager.change_rules(rules)
        self.turn()

    @rule(rules=st.none() | RULES)
    def restart(self, rules: WindowRules | None) -> None:
        """The process is killed, and the file may be edited before the next one starts."""
        self.close_due(hold=True)
        before, self.rules = self.manager, rules or self.rules
        self.manager = again = WindowManager(self.rules, self.numbers)
        again.restore_periods(self.periods)
        for start, end in self.spans:
            again.closed.add(start, end)
        for agent, newest in self.agents.items():
            again.restore_agent(agent, newest, self.now)
        for window in before.open.values():
            kept = OpenWindow(window.start, window.end, window.number, window.schema, window.rules)
            kept.tallies.update(window.tallies)
            kept.contributors |= window.contributors
            again.restore_window(kept)
            self.windows[kept.number] = kept
        for agent, tally in before.unplaced.items():
            again.restore_counts(agent, tally, self.now)
        again.change_rules(self.rules)
        self.turn()

    @invariant()
    def every_row_is_counted_once(self) -> None:
        everywhere = Tally()
        for window in self.windows.values():
            for tally in window.tallies.values():
                everywhere.absorb(tally)
        for tally in self.manager.unplaced.values():
            everywhere.absorb(tally)
        assert everywhere.received + everywhere.late + everywhere.lost == self.issued

    @invariant()
    def no_time_has_two_windows(self) -> None:
        spans = sorted((window.start, window.end) for window in self.windows.values())
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), spans
        assert all(window.number != NO_WINDOW for window in self.windows.values())


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
