"""When windows close, told by a clock that the tests move."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.windows.fit import SEGMENTS
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import PERIODS, SPANS, Now, OpenWindow, Periods, Spans, Tally, WindowRules

from zmon.batch import Schema

SCHEMA = Schema(classes=("a", "b"), features=("x",), kinds=("numeric",))
RULES = WindowRules(period=60, grace=6.0, idle=10.0, max_wait=30.0, open_windows=4)
T0 = 1_700_000_040  # a window's start


class Scene:
    """A window manager and a clock; wall and monotonic time run together unless a test moves one."""

    def __init__(self, rules: WindowRules = RULES) -> None:
        self.manager = WindowManager(rules)
        self.now = Now(float(T0), 1000.0)

    def wait(self, seconds: float) -> None:
        self.now = Now(self.now.wall + seconds, self.now.mono + seconds)

    def rows(self, agent: str, at: float, rows: int = 1, schema: Schema = SCHEMA) -> OpenWindow | None:
        start = int(at // self.manager.rules.period) * self.manager.rules.period
        self.manager.advance_clock(agent, agent.encode(), at, self.now)
        return self.manager.place_rows(agent, schema, start, rows, self.now)

    def closed(self, *, hold: bool = False) -> list[int]:
        return [window.start - T0 for window in self.manager.close_due(self.now, hold=hold)]


def test_a_window_closes_when_its_agent_has_passed_end_and_grace() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(66)
    scene.rows("a", T0 + 65.9)
    assert scene.closed() == []
    scene.rows("a", T0 + 66)
    assert scene.closed() == [0]


def test_the_agents_time_is_no_further_than_the_collectors_clock() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.rows("a", T0 + 200)  # a clock that is ahead
    assert scene.closed() == []
    scene.wait(66)
    scene.rows("a", T0 + 200)
    assert scene.closed() == [0]


def test_every_live_agent_must_pass() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.rows("b", T0 + 1)
    scene.wait(66)
    scene.rows("a", T0 + 66)
    scene.rows("b", T0 + 30)
    assert scene.closed() == []
    scene.rows("b", T0 + 66)
    assert scene.closed() == [0]


def test_a_lagging_agent_delays_the_others_by_max_wait_at_most() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(66)
    closed: list[int] = []
    waited = -1
    while not closed:
        waited += 1
        scene.rows("a", T0 + 66 + waited)
        scene.rows("b", T0 - 86_400 + waited)  # a day behind
        closed = scene.closed()
        scene.wait(1)
    assert closed == [0]
    assert waited == 30


def test_the_lagging_agents_own_windows_are_whole() -> None:
    scene = Scene()
    late = 0
    for second in range(300):
        scene.rows("a", T0 + second)
        late += scene.rows("b", T0 - 86_400 + second) is None
        scene.closed()
        scene.wait(1)
    assert late == 0


def test_a_silent_agent_is_not_waited_for_after_idle() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.rows("b", T0 + 1)
    scene.wait(66)
    scene.rows("a", T0 + 66)
    assert scene.closed() == [0]  # b sent nothing for longer than idle


def test_a_goodbye_ends_the_waiting_but_not_for_other_workers_of_the_agent() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.manager.connect("b", b"worker 1", scene.now)
    scene.manager.connect("b", b"worker 2", scene.now)
    scene.wait(66)
    scene.rows("a", T0 + 66)
    scene.manager.connect("b", b"worker 3", scene.now)
    scene.manager.advance_clock("b", b"worker 3", T0 + 1.0, scene.now)
    scene.manager.place_rows("b", SCHEMA, T0, 1, scene.now)
    for worker in (b"worker 1", b"worker 2"):
        scene.manager.disconnect("b", worker)
    assert scene.closed() == []
    scene.manager.disconnect("b", b"worker 3")
    assert scene.closed() == [0]


def test_a_hello_makes_windows_wait() -> None:
    scene = Scene()
    scene.wait(66)
    scene.rows("a", T0 + 1)
    scene.manager.connect("b", b"b", scene.now)
    scene.rows("a", T0 + 66)
    assert scene.closed() == []
    scene.wait(10.1)
    scene.rows("a", T0 + 76)
    assert scene.closed() == [0]


def test_with_nobody_live_the_clock_closes() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(65)
    assert scene.closed() == []
    scene.wait(1)
    assert scene.closed() == [0]


def test_history_closes_as_it_is_replayed_and_at_its_end() -> None:
    scene = Scene()
    begin = 1_000_000_000 // 60 * 60  # 2001
    for minute in range(3):
        for second in range(0, 60, 10):
            scene.rows("a", begin + minute * 60 + second)
    assert [start + T0 - begin for start in scene.closed()] == [0, 60]
    scene.manager.disconnect("a", b"a")
    assert [start + T0 - begin for start in scene.closed()] == [120]


def test_rows_for_a_closed_window_are_late_and_counted_in_the_oldest_open() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(70)
    scene.rows("a", T0 + 70)
    assert scene.closed() == [0]
    assert scene.rows("b", T0 + 59, rows=7) is None
    assert scene.manager.open[T0 + 60].tally("b").late == 7


def test_an_old_window_that_never_opened_is_not_closed() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(70)
    scene.rows("a", T0 + 70)
    scene.closed()
    assert scene.rows("b", T0 - 3600) is not None


def test_the_oldest_closes_at_the_limit() -> None:
    scene = Scene()
    for minute in range(6):
        scene.rows("a", T0 + minute * 60)
    assert scene.closed() == [0, 60]
    assert len(scene.manager.open) == 4
    assert scene.rows("a", T0) is None


def test_an_older_window_at_the_limit_takes_its_rows_and_closes() -> None:
    scene = Scene()
    for minute in range(4):
        scene.rows("a", T0 + minute * 60)
    window = scene.rows("b", T0 - 600, rows=3)
    assert window is not None
    assert window.tally("b").received == 3
    assert scene.closed() == [-600]


def test_after_a_start_nothing_closes_by_the_wall_clock() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.wait(1000)
    assert scene.closed(hold=True) == []
    scene.rows("a", T0 + 1000)
    assert scene.closed(hold=True) == [0], "the agents' own times close all the same"


def test_a_jump_of_the_wall_clock_ends_no_waiting() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.rows("b", T0 + 1)
    scene.now = Now(scene.now.wall + 3600, scene.now.mono)
    scene.rows("a", T0 + 66)
    scene.rows("b", T0 + 2)
    assert scene.closed() == []


def test_counts_wait_for_a_window() -> None:
    scene = Scene()
    scene.manager.count("a", "lost", 5, scene.now)
    scene.manager.count("a", "rejected", 2, scene.now, "label_index")
    window = scene.rows("b", T0 + 1)
    assert window is not None
    assert window.tallies["a"].frozen().lost == 5
    assert window.tallies["a"].frozen().rejected == {"label_index": 2}


def test_counts_without_a_window_for_a_period_open_the_window_of_the_present() -> None:
    scene = Scene()
    scene.manager.count("a", "late", 5, scene.now)
    scene.wait(59)
    scene.manager.place_counts(scene.now)
    assert not scene.manager.open
    scene.wait(1)
    scene.manager.place_counts(scene.now)
    (window,) = scene.manager.open.values()
    assert (window.start - T0, window.tallies["a"].late) == (60, 5)
    scene.manager.place_counts(scene.now, force=True)
    assert list(scene.manager.open.values()) == [window]
    scene.wait(65)
    assert scene.closed() == []
    scene.wait(1)
    assert scene.closed() == [60]


def test_rows_of_its_time_join_the_window_that_counts_opened() -> None:
    scene = Scene()
    scene.manager.count("a", "rejected", 5, scene.now, "shape")
    scene.wait(60)
    scene.manager.place_counts(scene.now)
    window = scene.rows("b", T0 + 61, schema=WIDER)
    assert list(scene.manager.open.values()) == [window]
    assert window is not None
    assert window.schema is WIDER
    scene.wait(66)
    scene.rows("b", T0 + 126)
    assert scene.closed() == [60]
    assert scene.rows("b", T0 + 61) is None, "it has been reported"


def test_a_window_of_counts_does_not_wait_for_an_agent_that_has_never_sent_rows() -> None:
    """It may be one whose rows are all refused, so its connection is no reason to wait for `idle`."""
    scene = Scene()
    scene.manager.count("a", "rejected", 5, scene.now, "shape")
    scene.wait(60)
    scene.manager.place_counts(scene.now)
    scene.wait(66)
    scene.manager.connect("a", b"a", scene.now)
    assert scene.closed(hold=True) == []
    assert scene.closed() == [60]


def test_a_window_of_counts_waits_for_a_lagging_agent_no_longer_than_max_wait() -> None:
    """Nobody has rows in it who could pass it, and an agent a day behind is live all day."""
    scene = Scene()
    scene.manager.count("a", "rejected", 5, scene.now, "shape")
    scene.wait(60)
    scene.manager.place_counts(scene.now)
    for second in range(0, 66 + 30, 5):
        scene.rows("b", T0 - 86_400 + second)
        assert 60 not in scene.closed(), second
        scene.wait(5)
    scene.rows("b", T0 - 86_300)
    assert 60 in scene.closed()


def test_counts_never_open_a_window_that_has_closed() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.manager.close_all()
    scene.manager.count("a", "lost", 1, scene.now)
    scene.manager.place_counts(scene.now, force=True)
    assert list(scene.manager.open) == [T0 + 60]


def test_counts_and_a_window_of_an_earlier_run_are_one_report() -> None:
    scene = Scene()
    scene.manager.restore_window(OpenWindow(T0, T0 + 60, 7, SCHEMA))
    scene.manager.restore_counts("a", Tally(lost=3), scene.now)
    scene.wait(60)
    scene.manager.place_counts(scene.now)
    (window,) = scene.manager.open.values()
    assert (window.number, window.tally("a").lost) == (7, 3)


def test_flush_takes_all_oldest_first() -> None:
    scene = Scene()
    for minute in (2, 0, 1):
        scene.rows("a", T0 + minute * 60)
    assert [window.start - T0 for window in scene.manager.close_all()] == [0, 60, 120]
    assert scene.rows("a", T0) is None


# --- schemas ------------------------------------------------------------------------------------------------------

WIDER = Schema(classes=("a", "b"), features=("x", "y"), kinds=("numeric",) * 2)


NEW = Schema(classes=("a", "c"))


def test_other_classes_have_no_place_while_somebody_uses_the_first_ones() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    why = "the window's rows have no class 'c'; the window's rows also have the class 'b'"
    for start in (T0, T0 + 60, T0 - 60):
        assert scene.manager.misfit(NEW, start, scene.now) == why
        assert scene.manager.misfit(SCHEMA, start, scene.now) == ""
    scene.wait(3000)
    assert scene.manager.misfit(NEW, T0 + 3000, scene.now), "it is connected"


@pytest.mark.parametrize("gone", ["bye", "elsewhere", "forgotten"])
def test_other_classes_have_the_next_window_when_nobody_uses_the_first_ones(gone: str) -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.manager.connect("b", b"b", scene.now)  # which has not sent any rows
    if gone == "bye":
        scene.manager.disconnect("a", b"a")
    elif gone == "elsewhere":
        scene.manager.leave("a")
    else:
        scene.wait(4000)
        scene.manager.forget_agents(scene.now, 3600.0)
    if gone != "forgotten":
        assert scene.manager.misfit(NEW, T0 + 60, scene.now), "it may come back at once"
        scene.wait(60)
    assert scene.manager.misfit(NEW, T0, scene.now), "that window is theirs"
    assert scene.manager.misfit(NEW, T0 + 60, scene.now) == ""
    scene.rows("b", T0 + 61, schema=NEW)
    assert scene.manager.misfit(SCHEMA, T0 + 120, scene.now), "now others use it"
    assert scene.manager.misfit(SCHEMA, T0, scene.now) == ""
    assert scene.rows("a", T0 + 1) is scene.manager.open[T0]
    assert scene.manager.misfit(NEW, T0 + 120, scene.now) == ""


def test_other_classes_take_no_closed_window() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.manager.disconnect("a", b"a")
    scene.wait(100)
    assert scene.closed() == [0]
    assert scene.manager.misfit(NEW, T0, scene.now)
    assert scene.manager.misfit(NEW, T0 - 60, scene.now) == ""


def test_the_classes_of_an_earlier_run_have_their_place() -> None:
    scene = Scene()
    scene.manager.columns = Schema(classes=("a", "b"))
    scene.manager.restore_agent("a", T0 - 60.0, scene.now, silence=5.0)
    assert scene.manager.misfit(NEW, T0, scene.now)
    window = scene.rows("b", T0 + 1, schema=Schema(classes=("b", "a")))
    assert window is not None
    assert window.schema.classes == ("a", "b")


@pytest.mark.parametrize("schemas", [(SCHEMA, NEW), (NEW, SCHEMA)], ids=["first", "second"])
def test_a_window_that_labels_have_opened_without_rows_is_decided_by_its_first(
    schemas: tuple[Schema, Schema],
) -> None:
    scene = Scene()
    scene.manager.columns = SCHEMA
    (window,) = scene.manager.label_windows(None, scene.now)
    scene.rows("a", T0 + 1, schema=schemas[0])
    assert window.schema.classes == schemas[0].classes
    assert scene.manager.misfit(schemas[1], T0, scene.now)
    assert scene.manager.misfit(schemas[1], T0 + 60, scene.now)


def test_the_order_of_classes_stays_from_window_to_window() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    turned = Schema(classes=("b", "a"))
    scene.rows("b", T0 + 61, schema=turned)
    scene.rows("b", T0 + 121, schema=turned)
    assert [scene.manager.open[T0 + at].schema.classes for at in (0, 60, 120)] == [("a", "b")] * 3


def test_a_column_of_numbers_stays_numeric_while_some_send_booleans() -> None:
    scene = Scene()
    boolean = Schema(classes=("a", "b"), features=("x",), kinds=("boolean",))
    scene.rows("b", T0 + 1, schema=boolean)
    scene.rows("a", T0 + 2)
    assert scene.manager.open[T0].schema.kinds == ("boolean",)
    scene.rows("b", T0 + 61, schema=boolean)
    assert scene.manager.open[T0 + 60].schema.kinds == ("numeric",)


def test_a_window_that_labels_have_opened_is_decided_by_its_first_rows() -> None:
    scene = Scene()
    (window,) = scene.manager.label_windows(None, scene.now)
    assert window.undecided
    scene.rows("a", T0 + 1)
    assert window.schema is SCHEMA
    scene.wait(60)
    scene.rows("a", T0 + 61)
    assert len(scene.manager.label_windows(SCHEMA, scene.now)) == 2


def test_labels_of_known_rows_decide_the_classes_but_not_the_columns() -> None:
    scene = Scene()
    (window,) = scene.manager.label_windows(None, scene.now)
    known = Schema(classes=("b", "a"))
    scene.manager.label_windows(known, scene.now)
    assert window.schema is known
    scene.rows("a", T0 + 1)
    assert (window.schema.classes, window.schema.features) == (("b", "a"), ("x",))
    (changed,) = {each.number for each in scene.manager.drain_changes().opened}
    assert changed == window.number


def test_new_columns_start_with_the_next_window() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.rows("b", T0 + 2, schema=WIDER)
    assert scene.manager.open[T0].schema.features == ("x",)
    scene.rows("a", T0 + 61)  # the narrower one opens it
    assert scene.manager.open[T0 + 60].schema.features == ("x", "y")


def test_columns_that_nobody_sends_end_with_the_window() -> None:
    scene = Scene()
    scene.rows("b", T0 + 1, schema=WIDER)
    scene.rows("a", T0 + 61)
    scene.rows("a", T0 + 121)
    assert scene.manager.open[T0 + 120].schema.features == ("x",)


def test_the_columns_of_many_schemas_stay_within_the_limit() -> None:
    scene = Scene(replace(RULES, features=250))
    schemas = [named([f"{i} {n}" for n in range(100)]) for i in range(10)]
    without_room = []
    for schema in schemas:
        scene.rows("a", T0 + 1, schema=schema)
        without_room.append(scene.manager.without_room(schema))
    assert without_room == [0, 0, 50, *[100] * 7]
    window = scene.rows("a", T0 + 61, schema=schemas[9])
    assert window is not None
    assert len(window.schema.features) == len(window.schema.kinds) == 250
    assert window.schema.features[:200] == schemas[9].features + schemas[0].features, "its own rows come first"


def test_segments_of_many_schemas_stay_within_the_limit() -> None:
    scene = Scene(replace(RULES, features=3))
    for name in "stuvw":
        scene.rows("a", T0 + 1, schema=Schema(classes=("a", "b"), segments=(name,)))
    window = scene.rows("a", T0 + 61, schema=Schema(classes=("a", "b")))
    assert window is not None
    assert window.schema.segments == ("s", "t", "u")


def test_a_window_has_so_many_segments_of_all_publishers_together() -> None:
    scene = Scene()
    schemas = [Schema(classes=("a", "b"), segments=tuple(f"{i} {n}" for n in range(8))) for i in range(6)]
    without_room = []
    for schema in schemas:
        scene.rows("a", T0 + 1, schema=schema)
        without_room.append(scene.manager.without_room(schema))
    assert without_room == [0, 0, 0, 0, 8, 8]
    window = scene.rows("a", T0 + 61, schema=schemas[5])
    assert window is not None
    assert len(window.schema.segments) == SEGMENTS
    assert window.schema.segments[:8] == schemas[5].segments, "its own rows come first"


def named(features: list[str]) -> Schema:
    return Schema(classes=("a", "b"), features=tuple(features), kinds=("numeric",) * len(features))


# --- reloads ------------------------------------------------------------------------------------------------------


def test_a_window_closes_by_the_rules_with_which_it_opened() -> None:
    scene = Scene()
    scene.rows("a", T0 + 1)
    scene.manager.change_rules(replace(RULES, grace=60.0, idle=600.0))
    scene.rows("a", T0 + 61)
    scene.wait(66)
    assert scene.closed() == [0], "its agent is idle after 10 s, and its grace is 6 s"
    scene.wait(120)
    assert scene.closed() == [], "the window that opened after the reload waits for its agent"


def test_a_changed_period_begins_after_every_window_that_was_reported() -> None:
    scene = Scene(replace(RULES, period=30))
    scene.manager.count("a", "lost", 1, scene.now)
    scene.manager.place_counts(scene.now, force=True)
    scene.manager.close_all()
    scene.manager.change_rules(replace(RULES, period=120))
    start = scene.manager.periods.start(T0 + 30)
    assert (start, start in scene.manager.closed) == (T0 + 30, False)


def test_periods_of_an_earlier_run_hold_for_the_rows_of_their_time() -> None:
    first = Scene()
    first.rows("a", T0 + 1)
    for period in (300, 120, 7):
        first.manager.change_rules(replace(RULES, period=period))
    assert first.manager.drain_changes().periods
    again = Scene(replace(RULES, period=7))
    again.manager.restore_periods(first.manager.periods.plain())
    again.manager.change_rules(replace(RULES, period=7))
    assert not again.manager.drain_changes().periods
    for at in range(T0 - 1000, T0 + 3000, 7):
        assert again.manager.periods.start(at) == first.manager.periods.start(at)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 300)), max_size=12), st.integers(0, 1200))
def test_windows_of_changing_lengths_never_overlap(changes: list[tuple[int, int]], time: int) -> None:
    periods = Periods(4)
    for length, after in changes:
        before = [periods.start(at) for at in range(after)]
        periods.change(length, after)
        assert [periods.start(at) for at in range(after)] == before, "what has been stays as it was"
    start = periods.start(time)
    assert start <= time < start + periods.length(start)
    assert {periods.start(at) for at in range(start, start + periods.length(start))} == {start}
    assert Periods(1, periods.plain()).plain() == periods.plain()


def test_periods_are_bounded() -> None:
    periods = Periods(60)
    for i in range(PERIODS + 20):
        periods.change((61, 60)[i % 2], (i + 1) * 3660)
    assert len(periods.plain()) == PERIODS
    assert periods.plain()[0][0] == 0


# --- closed spans -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=40))
def test_spans_are_a_set_of_seconds(stretches: list[tuple[int, int]]) -> None:
    spans, seconds = Spans(), set()
    for start, length in stretches:
        spans.add(start, start + length)
        seconds.update(range(start, start + length))
    assert {second for second in range(-2, 80) if second in spans} == seconds


def test_spans_are_bounded() -> None:
    spans = Spans()
    for i in range(SPANS + 50):
        spans.add(i * 10, i * 10 + 1)
    assert len(spans.starts) == SPANS
    assert 5 in spans, "the gap between the oldest counts as closed"
    assert (SPANS + 49) * 10 in spans
