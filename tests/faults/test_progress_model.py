"""The collector's parts together, against every order of steps, kills, clocks, reloads and misbehaving metrics.

The model keeps all rows in a list. Whatever happens, at the end each row is in exactly one point, in the window of its
time, or counted; a metric has a value for all rows of a window or none; and within a stated number of turns nothing is
left open.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from zmon_collector.pauses import ENGINE_BYTES

from tests.faults.harness import FULL
from tests.support.stepped import FOREVER, SCHEMAS, Sender, Stepped
from zmon.contract import Report

MODELS, AGENTS = ("m", "n"), ("a", "b")
MOST_ROWS = 4  # of a message
TURNS = 300  # within which everything has closed; each stands for a second or less
COUNTED = ("chunks", "checkpoints", "memory")  # tables whose damage is made good to the row
UNCOUNTED = ("streams", "windows", "schemas", "tallies", "tags", "agents", "spans", "periods", "contracts", "heard")
SKEW = 300.0  # seconds, the default of max_skew


class Progress(RuleBasedStateMachine):
    @initialize(window=st.sampled_from([30, 60]), reckless=st.sampled_from([False] * 9 + [True]))
    def begin(self, window: int, reckless: bool) -> None:
        self.window, self.scale, self.segment = window, 1, 0
        self.collector = Stepped(self.options())
        self.times: list[float] = []  # of each row, by its number
        self.owners: list[tuple[str, str]] = []  # its (model, agent)
        self.free: set[int] = set()  # rows from so far ahead that they count as rows of when they came
        self.unsent: Counter[tuple[str, str]] = Counter()  # rows that publishers rejected or left out themselves
        self.damaged = False  # some record of counts or positions
        self.reckless = reckless  # whether records may be damaged, after which nothing can be counted
        self.forgets = False  # so much time went by at once that agents are forgotten

        for agent in AGENTS:
            self.join(MODELS[0], agent)

    def options(self) -> dict[str, Any]:
        return {
            "collector": {
                "window": f"{self.window}s",
                "grace": "0s",
                "idle": "10s",
                "max_wait": "20s",
                "metric_timeout": "3s",
            },
            "limits": {"outbox_age": FOREVER},
            "plugins": {"kept": {"scale": self.scale}},
        }

    @property
    def present(self) -> list[Sender]:
        return [sender for sender in self.collector.senders if not sender.closing]

    # --- publishers --------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.collector.senders) < 6)
    @rule(model=st.sampled_from(MODELS), agent=st.sampled_from(AGENTS))
    def another_joins(self, model: str, agent: str) -> None:
        self.join(model, agent)

    def join(self, model: str, agent: str) -> None:
        self.collector.join(model, agent)

    @precondition(lambda self: self.present)
    @rule(
        which=st.integers(0, 5),
        ages=st.lists(st.sampled_from([0, 0, 0, 1, 20, 45, 100, -20]), min_size=1, max_size=MOST_ROWS),
        schema=st.sampled_from([0, 0, 0, 0, 1, 1, 2]),
        sends=st.sampled_from([True, True, True, False]),
    )
    def publish(self, which: int, ages: list[int], schema: int, sends: bool) -> None:
        sender = self.present[which % len(self.present)]
        numbers = list(range(len(self.times), len(self.times) + len(ages)))
        self.times += [self.collector.clock.wall - age for age in ages]
        self.owners += [(sender.model, sender.agent)] * len(ages)
        sender.publish(numbers, [self.times[number] for number in numbers], SCHEMAS[schema])
        if sends:
            self.send(which)

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5))
    def send(self, which: int) -> None:
        self.collector.send(self.present[which % len(self.present)])

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5), kind=st.sampled_from(["ping", "hello"]), rejected=st.integers(0, 2))
    def greet(self, which: int, kind: str, rejected: int) -> None:
        """A sign of life, with rows that the publisher did not send."""
        sender = self.present[which % len(self.present)]
        if rejected:
            for counts, key in ((sender.tally, "sampled_out"), (sender.tally.setdefault("rejected", {}), "shape")):
                counts[key] = counts.get(key, 0) + rejected
            self.unsent[sender.model, sender.agent] += 2 * rejected
        self.collector.greet(sender, kind)

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5))
    def go_back(self, which: int) -> None:
        """No progress: the publisher sends again what is not acknowledged."""
        self.present[which % len(self.present)].connect()

    @precondition(lambda self: any(sender.ring for sender in self.present))
    @rule(which=st.integers(0, 5))
    def overflow(self, which: int) -> None:
        """A ring drops its oldest message."""
        full = [sender for sender in self.present if sender.ring]
        full[which % len(full)].ring.popleft()

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        self.collector.leave(self.present[which % len(self.present)])

    # --- the collector -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.present)
    @rule(rows=st.integers(1, MOST_ROWS), commits=st.booleans())
    def serve(self, rows: int, commits: bool) -> None:
        """All publish, and the collector takes it."""
        for which in range(len(self.present)):
            self.publish(which, [0] * rows, 0, True)
        self.turn(100, 100 if commits else 0)

    @rule(works=st.sampled_from([0, 1, 3, 100]), commits=st.sampled_from([0, 1, 100]))
    def turn(self, works: int, commits: int) -> None:
        self.collector.turn()
        self.collector.work(works)
        if commits:
            self.collector.commit(commits)

    @rule(most=st.integers(1, 5), dies=st.booleans())
    def commit(self, most: int, dies: bool) -> None:
        self.collector.commit(most, dies=dies)

    @rule()
    def kill(self) -> None:
        self.collector.kill()

    @rule(seconds=st.sampled_from([0.5, 0.9, 3, 11, 31, 70, 4000]))
    def time_passes(self, seconds: float) -> None:
        self.collector.catch_up()
        self.forgets |= seconds > 3000
        self.collector.clock.goes(seconds)

    @rule(seconds=st.sampled_from([-3600, -30, 30, 3600]))
    def clock_is_set(self, seconds: float) -> None:
        self.collector.clock.wall += seconds
        ahead = self.collector.clock.wall + SKEW
        self.free |= {number for number, time in enumerate(self.times) if time > ahead}

    @rule(window=st.sampled_from([30, 45, 60]), scale=st.sampled_from([1, 1_000, 1_000_000]))
    def reload(self, window: int, scale: int) -> None:
        self.window, self.scale = window, scale
        self.collector.reload(self.options())

    @rule(table=st.sampled_from(COUNTED), row=st.integers(0, 9), bit=st.integers(0, 4000))
    def a_blob_is_damaged(self, table: str, row: int, bit: int) -> None:
        """Its rows are counted as lost, or a metric begins anew."""
        found = self.collector.damage(table, row, 0, bit)
        self.forgets |= found and table == "memory"
        self.collector.kill()

    @precondition(lambda self: self.reckless)
    @rule(table=st.sampled_from(UNCOUNTED), row=st.integers(0, 9), column=st.integers(0, 9), bit=st.integers(0, 4000))
    def a_record_is_damaged(self, table: str, row: int, column: int, bit: int) -> None:
        """What it counted cannot be known any more."""
        self.damaged |= self.collector.damage(table, row, column, bit)
        self.collector.kill()

    @rule(hook=st.sampled_from(["update", "merge", "result"]), mood=st.sampled_from(["raise", "nonsense", "hang", ""]))
    def plugin_misbehaves(self, hook: str, mood: str) -> None:
        self.collector.moods[hook] = mood

    @rule(what=st.sampled_from(["", "set", "surrogate", "number"]))
    def plugin_remembers_nonsense(self, what: str) -> None:
        self.collector.moods["memory"] = what

    @rule()
    def stuck_threads_return(self) -> None:
        self.collector.resume()

    # --- what must always hold ---------------------------------------------------------------------------------------

    @invariant()
    def queues_are_bounded(self) -> None:
        if hasattr(self, "collector"):
            largest = MOST_ROWS * 8 * 8  # bytes of a message, generously
            assert self.collector.service.engine.backlog <= ENGINE_BYTES + 256 * largest

    def teardown(self) -> None:
        if not hasattr(self, "collector"):
            return
        try:
            self.everything_closes()
            if not self.damaged:
                self.rows_are_accounted_for(self.collector.reports())
        finally:
            self.collector.end()

    def everything_closes(self) -> None:
        collector = self.collector
        collector.moods.clear()
        for turn in range(TURNS):
            for sender in [each for each in collector.senders if not (each.leaving or each.gone)]:
                while collector.send(sender):
                    pass
                if turn % 10 == 0:
                    if not sender.ring:
                        collector.leave(sender)
                    else:
                        sender.connect()
                        collector.greet(sender, "ping")
            collector.catch_up()
            while collector.disk.jobs:
                collector.commit()
            if collector.at_rest:
                return
            collector.clock.goes(0.9)  # longer, and the process would seem to have been stopped
        raise AssertionError(f"not at rest after {TURNS} turns: {collector.service.health()}")

    def rows_are_accounted_for(self, reports: list[Report]) -> None:
        issued = Counter(self.owners) + self.unsent
        counted: Counter[tuple[str, str]] = Counter()
        found: Counter[int] = Counter()
        totals: dict[tuple[str, str | None], float] = {}
        for i, report in enumerate(reports):
            window = report.window
            for earlier in reports[:i]:
                if earlier.model == report.model:
                    apart = earlier.window.end <= window.start or window.end <= earlier.window.start
                    assert apart, f"{earlier.window} and {window} of {report.model}"
            values: dict[tuple[str | None, str], float] = {}
            rows: dict[str | None, Counter[int]] = {None: Counter(), **{agent: Counter() for agent in report.rows}}
            for agent, value in report.points:
                if value.what == "row":
                    rows[agent][int(value.feat_name)] += int(value.value)
                elif not value.reason:
                    values[agent, value.what] = value.value
            for agent, counts in report.rows.items():
                counted[report.model, agent] += (
                    counts.late + counts.lost + counts.sampled_out + sum(counts.rejected.values())
                )
                assert sum(rows[agent].values()) == counts.received, (report.model, agent, window)
                found += rows[agent]
                for number in rows[agent]:
                    assert self.owners[number] == (report.model, agent)
                    inside = window.start <= self.times[number] < window.end
                    assert inside or number in self.free, (number, self.times[number], window)
            assert rows[None] == sum((rows[agent] for agent in report.rows), Counter()), "the rollup"
            for agent in (None, *report.rows):
                n = sum(rows[agent].values())
                assert values.get((agent, "buffer_count"), 0) == n
                for metric in ("odd", "neighbour"):  # all rows of the window, or no value at all
                    assert values.get((agent, metric), n) == n, (metric, agent, window)
                if n:  # the options of the window's opening hold for all its rows
                    assert values[agent, "scaled"] / n in (1, 1_000, 1_000_000), (report.model, agent, window)
                    total, before = values[agent, "total"], totals.get((report.model, agent), 0)
                    assert total == before + n or (self.forgets and total == n), (report.model, agent, window)
                    totals[report.model, agent] = total
        assert not [number for number, times in found.items() if times > 1], "rows that are in points twice"
        there = Counter(self.owners[number] for number in found)
        assert there + counted == issued


class Longer(Progress):
    """The same at length."""


TestProgress = Progress.TestCase
TestProgress.settings = settings(max_examples=200, stateful_step_count=30)
TestLonger = Longer.TestCase
TestLonger.settings = settings(max_examples=10_000 if FULL else 1_000, stateful_step_count=40)
TestLonger.pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
