"""The collector's clock never goes back, and what goes by it is as it would be without the step of the system's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.clock import MOST_AHEAD, RATE, Clock
from zmon_collector.health import HealthReport
from zmon_collector.storage import journal_state
from zmon_collector.storage.journal_state import JournalState
from zmon_collector.storage.journal_tables import WindowRow
from zmon_collector.storage.positions import Positions
from zmon_collector.windows.window import Now

from tests.support.unstarted import AB, T0, Table

HOUR = 3600.0


class Machine:
    """The clocks of a machine: `step` sets that of the day."""

    def __init__(self, wall: float = T0) -> None:
        self.system, self.mono = wall, 500.0

    def clock(self) -> Clock:
        return Clock(lambda: self.system, lambda: self.mono)

    def wait(self, seconds: float) -> None:
        self.system, self.mono = self.system + seconds, self.mono + seconds

    def step(self, seconds: float) -> None:
        self.system += seconds


steps = st.lists(st.tuples(st.floats(0, 1e5), st.floats(-1e6, 1e6)), max_size=20)


@given(steps)
def test_it_never_goes_back_and_is_never_behind_the_system(moves: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock.wall()
    for seconds, step in moves:
        machine.wait(seconds)
        machine.step(step)
        assert clock.wall() >= max(last + RATE * seconds - 1e-3, machine.system)
        last = clock.wall()
        assert clock.ahead == last - machine.system >= 0


def test_it_follows_a_system_that_is_not_set_back() -> None:
    machine = Machine()
    clock = machine.clock()
    for step in (0.0, HOUR, 86400.0):  # a machine that was suspended
        machine.wait(10)
        machine.step(step)
        assert (clock.wall(), clock.ahead, clock.problem) == (machine.system, 0.0, "")


def test_after_a_step_back_it_goes_on_and_is_caught_up() -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.wall()
    machine.step(-HOUR)
    assert clock.wall() == before
    assert "3600 s ahead" in clock.problem
    machine.wait(5 * HOUR)
    assert clock.wall() == pytest.approx(before + 4.5 * HOUR)
    machine.wait(5 * HOUR + 1)
    assert (clock.wall(), clock.problem) == (machine.system, "")


def test_a_system_that_is_corrected_again_is_followed_at_once() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.wall()
    machine.step(-HOUR)
    machine.wait(60)
    clock.wall()
    machine.step(HOUR)
    assert (clock.wall(), clock.problem) == (machine.system, "")


def test_a_start_goes_on_from_the_newest_time_that_was_written(lay: Callable[[], Table]) -> None:
    first = lay()
    first.batch(1, 10)
    first.end_turn()
    newest = journal_state.load(first.disk).newest
    assert newest == first.now.wall
    machine = Machine(newest - HOUR)
    clock = machine.clock()
    clock.restore(newest)
    assert clock.wall() == newest
    assert clock.ahead == HOUR


def test_a_window_that_has_counts_only_says_what_time_it_was() -> None:
    """It may open long after the last message; one with rows says nothing: their times are the publishers'."""
    counts = JournalState(Positions(b""), windows=[WindowRow(1, "m", "", 120, 180, b"")])
    rows = JournalState(Positions(b""), windows=[WindowRow(1, "m", "", 120, 180, b"schema")])
    assert (counts.newest, rows.newest) == (120, float("-inf"))


def test_a_start_does_not_wait_for_a_clock_that_was_set_far_ahead_by_mistake() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.restore(T0 + MOST_AHEAD + 60)
    assert (clock.wall(), clock.problem) == (T0, "")
    clock.restore(float("-inf"))
    assert clock.wall() == T0


def test_it_is_said_in_health() -> None:
    assert HealthReport(clock_problem="the clock").problems == ["the clock"]
    assert HealthReport(clock_ahead=3.0).as_dict()["clock_ahead"] == 3.0
    assert "clock_problem" not in HealthReport().as_dict()


def test_the_parts_of_a_collector_share_it(lay: Callable[[], Table], monkeypatch: pytest.MonkeyPatch) -> None:
    table = lay()
    before = table.service.live.wall()
    monkeypatch.setattr("time.time", lambda: before - HOUR)
    assert table.service.live.wall() >= before
    assert table.service.health().clock_ahead == pytest.approx(HOUR, abs=60)
    assert any("was set back" in problem for problem in table.service.health().problems)


@pytest.mark.parametrize("steps", [[-HOUR], [HOUR], [-86400.0], [86400.0, -86400.0], [-HOUR, HOUR]], ids=str)
def test_no_row_is_late_because_of_steps_of_the_collectors_clock(lay: Callable[[], Table], steps: list[float]) -> None:
    """Publishers elsewhere go on in the right time, ten rows a second for an hour after the first step."""
    table, machine, true = lay(), Machine(), float(T0)
    clock = machine.clock()
    batch = {"probabilities": np.full((100, 2), 0.5)}
    for number in range(2 * 360):
        machine.wait(10)
        true += 10
        if number in (360, 390) and steps:
            machine.step(steps.pop(0))
        table.now = Now(clock.wall(), machine.mono)
        table.send(AB, batch, first=1 + 100 * number, ts=int(true * 1e9))
        table.ingestor.close_due(table.now, hold=False)
        table.end_turn()
    assert (table.counts("rows"), table.counts("late_or_conflicting")) == (72_000, 0)
