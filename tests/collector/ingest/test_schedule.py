"""A turn costs in proportion to what is due, and nothing that is due is missed."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from zmon_collector.ingest.schedule import Schedule
from zmon_collector.windows.manager import WindowManager

from tests.support.unstarted import Table

A, B = ("a", ""), ("b", "")


def test_the_earliest_time_counts() -> None:
    schedule = Schedule()
    schedule.note(A, 5.0)
    schedule.note(A, 9.0)
    schedule.note(B, 7.0)
    schedule.note(B, 3.0)
    assert list(schedule.due(2.0)) == []
    assert list(schedule.due(4.0)) == [B]
    assert list(schedule.due(10.0)) == [A], "each once, whatever was noted before"
    assert list(schedule.due(10.0)) == []


def test_a_model_without_a_time_is_never_due() -> None:
    schedule = Schedule()
    schedule.note(A, inf)
    assert list(schedule.due(1e300)) == []


def test_a_model_that_is_noted_again_while_it_is_looked_at_comes_next_time() -> None:
    schedule = Schedule()
    schedule.note(A, 1.0)
    looks = 0
    for model in schedule.due(5.0):
        looks += 1
        schedule.note(model, 2.0)
    assert looks == 1
    assert list(schedule.due(5.0)) == [A]


def test_against_a_scan_of_all() -> None:
    chance = random.Random(1)
    schedule, times = Schedule(), dict[tuple[str, str], float]()
    for step in range(2000):
        model = (str(chance.randrange(20)), "")
        time = step + chance.choice([-5, 0, 10, 50, inf])
        schedule.note(model, time)
        times[model] = min(times.get(model, inf), time)
        due = {key for key, at in times.items() if at <= step}
        assert set(schedule.due(step)) == due
        times = {key: at for key, at in times.items() if key not in due}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often windows are looked at, by what."""
    counts = {"close_due": 0, "drain_changes": 0}

    def counted(name: str) -> Callable[..., Any]:
        inner = getattr(WindowManager, name)

        def count(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return inner(*arguments, **options)

        return count

    for name in counts:
        monkeypatch.setattr(WindowManager, name, counted(name))
    return counts


def turn(table: Table) -> None:
    table.ingestor.close_due(table.now, hold=False)
    table.end_turn()


def test_a_turn_looks_at_what_changed_and_what_is_due(lay: Callable[[], Table], looks: dict[str, int]) -> None:
    table = lay()
    models = [table.ingestor.add_model((f"quiet{i}", "")) for i in range(50)]
    table.batch(1, 10)
    turn(table)
    for name in looks:
        looks[name] = 0
    for _ in range(10):
        turn(table)
    assert looks == {"close_due": 0, "drain_changes": 0}, "nothing has come, and nothing is due"
    table.batch(11, 10)
    turn(table)
    assert looks == {"close_due": 0, "drain_changes": 1}
    table.goes(3600.0)
    turn(table)
    assert not table.ingestor.models["m", ""].windows.open, "its window was due"
    assert looks["close_due"] == 1
    assert len(models) == 50


def test_windows_of_the_past_close_in_the_turn_in_which_they_can(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    turn(table)
    table.goes(55.0)
    table.batch(11, 10)
    turn(table)
    table.goes(5.0)  # the end of the window, for whose last rows it waits
    turn(table)
    (first,) = table.ingestor.models["m", ""].windows.open
    table.batch(21, 10)  # of the next window: the agent has passed
    table.ingestor.close_due(table.now, hold=False)
    (second,) = table.ingestor.models["m", ""].windows.open
    assert second == first + 60


def test_counts_without_a_window_get_one(lay: Callable[[], Table]) -> None:
    table = lay()
    table.greeting("hello", rejected={"ids": 3})
    turn(table)
    table.goes(61.0)
    turn(table)
    table.goes(61.0)
    turn(table)
    table.goes(61.0)
    turn(table)
    (closed,) = table.finished(1)
    assert closed.rows["a"].rejected == {"ids": 3}


def test_a_window_that_is_closed_early_goes_in_the_next_turn(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    turn(table)
    assert table.ingestor.close_early(("m", "")) is not None
    turn(table)
    assert table.finished(1)


def test_a_model_that_is_forgotten_is_not_looked_at(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    turn(table)
    table.ingestor.forget(("m", ""))
    table.goes(3600.0)
    turn(table)
    assert not table.ingestor.models
