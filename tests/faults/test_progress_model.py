"""The collector's parts together, against every order of steps, kills, clocks, reloads and misbehaving metrics.

The model keeps all rows and labels in lists. Whatever happens, at the end each row is in exactly one point, in the
window of its time, or counted for a reason that there is, which another's schema is not; each late label has one
outcome; a metric has a value for all rows of a window or none, with the options of the window's opening; what comes is
taken soon; and within a stated number of turns nothing is left open.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from zmon_collector.pauses import ENGINE_BYTES

from tests.faults.harness import FULL
from tests.support.stepped import SCHEMAS, Sender, Stepped
from zmon.contract import Report

MODELS, AGENTS, TRUTH = ("m", "n"), ("a", "b"), "truth"  # rows of the first model have ids
FOREVER = "36500d"
MOST_ROWS = 4  # of a message
SOON = 12  # turns of less than a second within which rows are taken, and windows need not close for it
TURNS = 60  # further ones within which everything has closed
TIGHT = 700_000  # bytes of journal, little more than a database without rows has
COUNTED = ("chunks", "checkpoints", "memory")  # tables whose damage is made good to the row
UNCOUNTED = ("streams", "windows", "schemas", "tallies", "tags", "agents", "spans", "periods", "contracts", "heard")
SKEW = 300.0  # seconds, the default of max_skew
AGES = ([0], [0, 0], [0, 0, 0, 0], [0, 1, 20], [45, 0, 0], [100, 20], [-20, 0, 0])  # seconds, of the rows of a message
PARTS = 8  # of the long run, for several processes
EXAMPLES = 10_000 if FULL else 2_000


class Progress(RuleBasedStateMachine):
    @initialize(
        window=st.sampled_from([30, 60]),
        trouble=st.sampled_from(["", "", "", "", "long", "tight", "damage", "reckless"]),
        checkpoint=st.sampled_from([40, 160, 10**9]),
    )
    def begin(self, window: int, trouble: str, checkpoint: int) -> None:
        """Set the bytes of a window's rows for a checkpoint, and `trouble` that would hide much of the rest."""
        self.window, self.scale, self.trouble = window, 1, trouble
        self.collector = Stepped(self.options(), checkpoint)
        self.times: list[float] = []  # of each row, by its number
        self.owners: list[tuple[str, str]] = []  # its (model, agent)
        self.free: set[int] = set()  # rows from so far ahead that they count as rows of when they came
        self.labels: dict[str, list[tuple[int, int]]] = defaultdict(list)  # (row, label) published, by model
        self.unsent: Counter[tuple[str, str]] = Counter()  # rows that publishers rejected or left out themselves
        self.dropped: Counter[tuple[str, str]] = Counter()  # that rings had no room for
        self.lossy = False  # a blob with rows was damaged
        self.damaged = False  # some record of counts or positions
        self.forgets = False  # so much time went by at once that agents are forgotten, or memory was damaged

        for agent in AGENTS:
            self.collector.join(MODELS[0], agent)

    def options(self) -> dict[str, Any]:
        return {
            "collector": {
                "window": f"{self.window}s",
                "grace": "0s",
                "idle": "10s",
                "max_wait": "20s",
                "metric_timeout": "3s",
                "label_wait": "60s",
            },
            "limits": {"outbox_age": FOREVER, **({"journal_bytes": TIGHT} if self.trouble == "tight" else {})},
            "models": {model: {"metrics": {"kept": {"scale": self.scale}}} for model in MODELS},
        }

    @property
    def present(self) -> list[Sender]:
        """Publishers of rows that go on."""
        return [sender for sender in self.collector.senders if not sender.closing and sender.agent != TRUTH]

    # --- publishers --------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.collector.senders) < 6)
    @rule(model=st.sampled_from(MODELS), agent=st.sampled_from(AGENTS))
    def another_joins(self, model: str, agent: str) -> None:
        self.collector.join(model, agent)

    def publish_rows(self, sender: Sender, ages: list[int], schema: int = 0) -> None:
        numbers = list(range(len(self.times), len(self.times) + len(ages)))
        self.times += [self.collector.clock.wall - age for age in ages]
        self.owners += [(sender.model, sender.agent)] * len(ages)
        times = [self.times[number] for number in numbers]
        sender.publish(numbers, times, SCHEMAS[schema], ids=sender.model == MODELS[0])

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5), ages=st.sampled_from(AGES), schema=st.sampled_from([0] * 12 + [1] * 3 + [2]))
    def publish(self, which: int, ages: list[int], schema: int) -> None:
        sender = self.present[which % len(self.present)]
        self.publish_rows(sender, ages, schema)
        self.collector.send(sender)

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5), rows=st.integers(1, MOST_ROWS), joined=st.booleans())
    def go_back(self, which: int, rows: int, joined: bool) -> None:
        """No progress: the publisher sends again what is not acknowledged, perhaps cut in another way."""
        sender = self.present[which % len(self.present)]
        self.publish_rows(sender, [0] * rows)
        sender.connect()
        if joined:
            sender.join_messages()
        self.collector.send(sender)

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 5), rows=st.integers(1, MOST_ROWS), sent=st.booleans())
    def overflow(self, which: int, rows: int, sent: bool) -> None:
        """A ring drops its oldest message, and the next one says so, or a sign of life."""
        sender = self.present[which % len(self.present)]
        self.publish_rows(sender, [0] * rows)
        oldest = sender.ring.popleft()
        self.dropped[sender.model, sender.agent] += oldest.last - oldest.first + 1
        if sent:
            self.publish_rows(sender, [0] * rows)
            self.collector.send(sender)

    @precondition(lambda self: self.present)
    @rule(
        which=st.integers(0, 5),
        kind=st.sampled_from(["ping", "hello"]),
        rejected=st.integers(0, 2),
        overtakes=st.booleans(),
    )
    def greet(self, which: int, kind: str, rejected: int, overtakes: bool) -> None:
        """A sign of life, with rows that the publisher did not send; on another socket than what it may overtake."""
        sender = self.present[which % len(self.present)]
        if rejected:
            for counts, key in ((sender.tally, "sampled_out"), (sender.tally.setdefault("rejected", {}), "shape")):
                counts[key] = counts.get(key, 0) + rejected
            self.unsent[sender.model, sender.agent] += 2 * rejected
        self.collector.greet(sender, kind, overtakes=overtakes)

    @precondition(lambda self: len(self.present) > 1)
    @rule(which=st.integers(0, 5), overtakes=st.booleans())
    def leave(self, which: int, overtakes: bool) -> None:
        """It does not wait for acknowledgements: what has not arrived by then never will."""
        sender = self.present[which % len(self.present)]
        self.dropped[sender.model, sender.agent] += sender.issued - sender.acked
        self.collector.leave(sender, overtakes=overtakes)

    @rule(
        model=st.sampled_from([MODELS[0], MODELS[0], MODELS[1]]),
        ages=st.sampled_from([[0], [1, 2], [0, 1, 2, 3], [5, 9, 9], [-1, 0]]),
        label=st.integers(0, 1),
        overflows=st.sampled_from([False] * 7 + [True]),
        rows=st.integers(0, MOST_ROWS),
    )
    def labels_come(self, model: str, ages: list[int], label: int, overflows: bool, rows: int) -> None:
        """Labels of the newest rows, of older ones, or of rows that are still to come; `ages` counts rows."""
        publishers = [sender for sender in self.present if sender.model == model]
        if rows and publishers:
            self.publish_rows(publishers[0], [0] * rows)
            self.collector.send(publishers[0])
        own = [number for number, owner in enumerate(self.owners) if owner[0] == model]
        numbers = [own[-1 - age] if 0 <= age < len(own) else len(self.owners) + abs(age) for age in ages]
        senders = [each for each in self.collector.senders if each.agent == TRUTH and each.model == model]
        if not senders or senders[-1].closing:
            senders.append(self.collector.join(model, TRUTH))
        sender = senders[-1]
        sender.publish_labels(numbers, [label] * len(numbers), self.collector.clock.wall)
        self.labels[model] += [(number, label) for number in numbers]
        if overflows:
            oldest = sender.ring.popleft()
            self.dropped[model, TRUTH] += oldest.last - oldest.first + 1
        self.collector.send(sender)

    # --- the collector -----------------------------------------------------------------------------------------------

    def serve(self, rows: int, works: int, commits: int) -> None:
        for sender in self.present:
            self.publish_rows(sender, [0] * rows)
            while self.collector.send(sender):
                pass
        self.turn(works, commits)

    @precondition(lambda self: self.present)
    @rule(rows=st.integers(1, MOST_ROWS), works=st.sampled_from([0, 1, 3, 100]), commits=st.sampled_from([0, 1, 100]))
    def all_publish(self, rows: int, works: int, commits: int) -> None:
        """And the collector takes it."""
        self.serve(rows, works, commits)

    @precondition(lambda self: self.present)
    @rule(rows=st.integers(0, MOST_ROWS), works=st.sampled_from([0, 1, 3, 100]), commits=st.sampled_from([0, 1, 100]))
    def a_window_ends(self, rows: int, works: int, commits: int) -> None:
        """All publish in it, and then in the next."""
        collector = self.collector
        if rows:
            self.serve(rows, 100, 100)
        collector.catch_up()
        collector.clock.goes(self.window - collector.clock.wall % self.window + 0.5)
        self.serve(1, works, commits)

    @rule(works=st.sampled_from([0, 1, 3, 100]), commits=st.sampled_from([0, 1, 100]))
    def turn(self, works: int, commits: int) -> None:
        self.collector.turn()
        self.collector.work(works)
        if commits:
            self.collector.commit(commits)

    @rule(commits=st.integers(1, 4))
    def metrics_catch_up(self, commits: int) -> None:
        """All that can be computed is; what is decided by that reaches the disk in part."""
        self.collector.catch_up()
        self.collector.commit(commits)

    @rule(most=st.integers(1, 5), dies=st.booleans())
    def commit(self, most: int, dies: bool) -> None:
        self.collector.commit(most, dies=dies)

    @rule(computed=st.booleans(), commits=st.integers(0, 3))
    def kill(self, computed: bool, commits: int) -> None:
        if computed:
            self.collector.catch_up()
        for _ in range(commits):
            self.collector.commit(1)
        self.collector.kill()

    @rule(fills=st.booleans())
    def disk_fills(self, fills: bool) -> None:
        """Nothing can be written, until it has room again."""
        self.collector.connection.full = fills
        self.collector.commit()

    @rule(seconds=st.sampled_from([0.5, 0.9, 3, 3, 11, 11, 31, 31, 70, 70, 4000]))
    def time_passes(self, seconds: float) -> None:
        if seconds > 3000 and self.trouble != "long":
            seconds = 130
        self.collector.catch_up()
        self.forgets |= seconds > 3000
        self.collector.clock.goes(seconds)

    @rule(seconds=st.sampled_from([-3600, -30, 30, 3600]))
    def clock_is_set(self, seconds: float) -> None:
        self.forgets |= seconds > 3000  # after a restart, silence is reckoned by the clock
        self.collector.clock.wall += seconds
        ahead = self.collector.clock.wall + SKEW
        self.free |= {number for number, time in enumerate(self.times) if time > ahead}

    @rule(window=st.sampled_from([30, 45, 60]), scale=st.sampled_from([1, 1_000, 1_000_000]))
    def reload(self, window: int, scale: int) -> None:
        self.window, self.scale = window, scale
        self.collector.reload(self.options())

    @precondition(lambda self: self.trouble == "damage")
    @rule(table=st.sampled_from(COUNTED), row=st.integers(0, 9), bit=st.integers(0, 4000))
    def a_blob_is_damaged(self, table: str, row: int, bit: int) -> None:
        """Its rows are counted as lost, or a metric begins anew."""
        found = self.collector.damage(table, row, 0, bit)
        self.forgets |= found and table == "memory"
        self.lossy |= found and table != "memory"
        self.collector.kill()

    @precondition(lambda self: self.trouble == "reckless")
    @rule(table=st.sampled_from(UNCOUNTED), row=st.integers(0, 9), column=st.integers(0, 9), bit=st.integers(0, 4000))
    def a_record_is_damaged(self, table: str, row: int, column: int, bit: int) -> None:
        """What it counted cannot be known any more."""
        self.damaged |= self.collector.damage(table, row, column, bit)
        self.collector.kill()

    @rule(hook=st.sampled_from(["update", "merge", "result"]), mood=st.sampled_from(["raise", "nonsense", "hang", ""]))
    def plugin_misbehaves(self, hook: str, mood: str) -> None:
        self.collector.moods[hook] = mood

    @precondition(lambda self: self.present)
    @rule(hook=st.sampled_from(["update", "merge", "result"]))
    def plugin_is_left_behind(self, hook: str) -> None:
        """It hangs for longer than the collector waits for it, and would be sound after a restart."""
        self.collector.moods[hook] = "hang"
        self.serve(MOST_ROWS, 0, 0)
        for _ in range(5):
            self.collector.catch_up()
            self.collector.clock.goes(0.9)
        self.collector.moods.clear()
        self.serve(MOST_ROWS, 100, 1)

    @rule(what=st.sampled_from(["", "set", "surrogate", "number"]))
    def plugin_remembers_nonsense(self, what: str) -> None:
        self.collector.moods["memory"] = what

    @rule()
    def stuck_threads_return(self) -> None:
        self.collector.resume()

    # --- what must always hold ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.present and self.trouble != "tight")
    @rule(messages=st.sampled_from([1, 4, 8]))
    def rows_are_taken(self, messages: int) -> None:
        """Whatever the metrics do, what comes is taken soon, and no window has to close for it."""
        collector = self.collector
        collector.connection.full = False
        for _ in range(messages):
            self.serve(MOST_ROWS, 1, 1)
        for _ in range(SOON):
            collector.catch_up()
            collector.commit_all()
            if not collector.service.receiver.inbox:
                return
            collector.clock.goes(0.9)
        raise AssertionError(f"rows are not taken: {collector.service.health()}")

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
        collector.connection.full = False
        for turn in range(SOON + TURNS):
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
            collector.commit_all()
            if collector.at_rest:
                return
            # Longer at first, and the process would seem to have been stopped, which is not a metric's fault.
            collector.clock.goes(0.9 if turn < SOON else 5)
        raise AssertionError(f"not at rest: {collector.service.health()}")

    def rows_are_accounted_for(self, reports: list[Report]) -> None:
        counted: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)  # by kind
        found: Counter[int] = Counter()
        totals: dict[tuple[tuple[str, str], str | None], float] = {}
        outcomes: dict[str, Counter[str]] = defaultdict(Counter)  # of labels, by model
        joined: Counter[tuple[str, int, int]] = Counter()  # (model, row, label)
        for i, report in enumerate(reports):
            window, key = report.window, (report.model, report.version)
            for earlier in reports[:i]:
                if (earlier.model, earlier.version) == key:
                    apart = earlier.window.end <= window.start or window.end <= earlier.window.start
                    assert apart, f"{earlier.window} and {window} of {report.model}"
            values: dict[tuple[str | None, str], float] = {}
            rows: dict[str | None, Counter[int]] = {None: Counter(), **{agent: Counter() for agent in report.rows}}
            for agent, value in report.points:
                if value.what == "row":
                    rows[agent][int(value.feat_name)] += int(value.value)
                elif value.what == "label" and agent is None:
                    outcomes[report.model][value.category] += int(value.value)
                elif value.what == "joined" and agent is None:
                    joined[report.model, int(value.feat_name), int(value.value)] += 1
                elif not value.reason:
                    values[agent, value.what] = value.value
            opened = self.collector.opened.get((key, window.start))
            assert opened is None or opened.end == window.end, (report.model, window, opened)
            for agent, counts in report.rows.items():
                for kind in ("late", "lost", "sampled_out"):
                    counted[kind][report.model, agent] += getattr(counts, kind)
                counted["rejected"][report.model, agent] += sum(counts.rejected.values())
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
                    scale = values[agent, "scaled"] / n
                    known = (1, 1_000, 1_000_000) if opened is None else (opened.scale,)
                    assert scale in known, (report.model, agent, window, scale, opened)
                    total, before = values[agent, "total"], totals.get((key, agent), 0)
                    assert total == before + n or (self.forgets and total == n), (report.model, agent, window)
                    totals[key, agent] = total
        assert not [number for number, times in found.items() if times > 1], "rows that are in points twice"
        for owner in {*self.owners, *self.unsent, *self.dropped}:
            lost, rejected = counted["lost"][owner], counted["rejected"][owner] + counted["sampled_out"][owner]
            assert self.lossy or lost <= self.dropped[owner], f"{lost} rows of {owner} are lost for no reason"
            assert rejected == self.unsent[owner], f"{rejected} rows of {owner} are rejected for no reason"
        there = Counter(self.owners[number] for number in found)
        everything = sum(counted.values(), there)
        rows_of = {owner: number for owner, number in everything.items() if owner[1] != TRUTH}
        assert rows_of == Counter(self.owners) + self.unsent
        if not self.lossy:
            for model in MODELS:
                self.labels_are_accounted_for(model, everything[model, TRUTH], outcomes[model], joined)

    def labels_are_accounted_for(
        self, model: str, counted: int, outcomes: Counter[str], joined: Counter[tuple[str, int, int]]
    ) -> None:
        """Each label has one outcome, is lost or rejected, or waits for its row; the first of a row is joined."""
        waiting = self.collector.waiting_labels(model)
        all_of = Counter({name: rows for name, rows in outcomes.items() if name != "repeated"})
        assert sum(all_of.values()) + counted + waiting == len(self.labels[model]), (model, outcomes, counted, waiting)
        mine = {(row, label): times for (of, row, label), times in joined.items() if of == model}
        assert len(mine) == all_of["joined"] == len({row for row, _ in mine}), (model, mine, outcomes)
        assert mine.keys() <= set(self.labels[model])


@pytest.fixture(autouse=True)
def _little_garbage() -> Iterator[None]:
    """Keep what was there before from being scanned for garbage again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def run(part: int, examples: int, steps: int) -> None:
    """Run so many examples: new ones at full length, else those of the part, so that a change is judged by the same."""

    class Part(Progress):
        pass

    machine = Part if FULL else seed(part)(Part)
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))


def test_everything_is_accounted_for_whatever_happens() -> None:
    run(0, 200, 30)


@pytest.mark.system
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_same_at_length(part: int) -> None:
    run(1 + part, EXAMPLES // PARTS, 40)
