"""What holds for a window when it opens still holds for it after a kill, whatever the configuration says by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute.restatement import Restater
from zmon_collector.config.sections import MetricsSection, ModelSection
from zmon_collector.storage import journal, journal_state, label_join

from tests.support.unstarted import AB, T0, Table, restarted
from zmon import Report
from zmon.batch import Schema


def reload(table: Table, **models: ModelSection) -> None:
    table.service.reloader.read = lambda: replace(table.service.config, models=models)
    table.service.reloader.reload()


def rows_at(table: Table, *seconds: int, first: int = 1, schema: Any = AB) -> None:
    times = np.repeat(np.array([T0 + at for at in seconds]) * 10**9, 10)
    columns = {"probabilities": np.full((len(times), 2), 0.5), "timestamps": times}
    table.send(schema, columns, first=first)


def windows(table: Table) -> list[tuple[int, int]]:
    """The open windows: start after T0, and length."""
    open_ = table.ingestor.models["m", ""].windows.open
    return [(start - T0, open_[start].end - start) for start in sorted(open_)]


# --- periods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("periods", [(30,), (120,), (300, 60, 600), (30, 20, 40)], ids=str)
def test_the_periods_of_a_model_survive_a_kill(lay: Callable[[], Table], periods: tuple[int, ...]) -> None:
    first, second = lay(), lay()
    for table in (first, second):
        table.goes(3000)
    rows_at(first, 5)
    for number, period in enumerate(periods):
        reload(first, m=ModelSection(window=period))
        rows_at(first, 5 + 300 * (number + 1), first=11 + 10 * number)
        first.end_turn()
    reload(second, m=ModelSection(window=periods[-1]))
    again = restarted(first, second)
    for table in (first, again):
        rows_at(table, *range(5, 1200, 29), first=1 + 10 * (len(periods) + 1))
    assert windows(again) == windows(first)


def test_a_period_that_was_edited_while_the_collector_was_down_begins_after_what_was_there(
    lay: Callable[[], Table],
) -> None:
    first = lay()
    rows_at(first, 5, 70)
    first.end_turn()
    second = lay()
    reload(second, m=ModelSection(window=20))
    again = restarted(first, second)
    rows_at(again, 5, 50, 70, 110, 130, 150, first=21)
    assert windows(again) == [(0, 60), (60, 60), (120, 20), (140, 20)]


def test_a_reload_says_from_when_on_windows_have_another_length(
    lay: Callable[[], Table], caplog: pytest.LogCaptureFixture
) -> None:
    table = lay()
    rows_at(table, 5)
    caplog.set_level("INFO")
    reload(table, m=ModelSection(window=86_399))
    assert "windows of model 'm' will be 86399 s long in " in caplog.text
    caplog.clear()
    reload(table, m=ModelSection(window=86_399, preset="full"))
    assert "will be" not in caplog.text


# --- settings -----------------------------------------------------------------------------------------------------

OTHER = ModelSection(
    preset="minimal", sample_rows=3, drop=("max_prediction_proba",), segment_metrics=(), max_segments=1,
    grace=50.0, metrics={"performance": {"segments": False}},
)  # fmt: skip


def points(table: Table) -> dict[Any, float]:
    """What the window of T0 comes to."""
    (closed,) = (each for each in table.finished(1) if each.window.start == T0)
    return {(point.agent_id, *point.value._replace(value=0.0)): point.value.value for point in closed.points}


def segmented(table: Table, at: int, first: int) -> None:
    schema = Schema(classes=("a", "b"), segments=("country",))
    random = np.random.default_rng(at)
    columns: dict[str, Any] = {"probabilities": random.dirichlet((1, 2), 50), "labels": random.integers(0, 2, 50)}
    columns |= {
        "segments": random.integers(0, 2, (50, 1)).astype(np.int8),
        "timestamps": np.full(50, (T0 + at) * 10**9),
    }
    table.send(schema, columns, {"segments": [["de", "fr"]]}, first=first)


@pytest.mark.parametrize("killed", [False, True])
def test_a_window_is_reported_with_the_settings_of_its_opening(lay: Callable[[], Table], killed: bool) -> None:
    undisturbed, table = lay(), lay()
    for each in (undisturbed, table):
        segmented(each, 5, 1)
        each.end_turn()
    reload(table, m=OTHER)
    table.end_turn()
    if killed:
        before, table = table, lay()
        reload(table, m=OTHER)
        restarted(before, table)
    for each in (undisturbed, table):
        segmented(each, 6, 51)
        each.end_turn()
        each.ingestor.close_all(each.now)
    assert points(table) == pytest.approx(points(undisturbed))


def test_windows_with_the_same_settings_share_what_is_kept_of_them(lay: Callable[[], Table]) -> None:
    table = lay()
    for minute in range(4):
        rows_at(table, 60 * minute, first=1 + 10 * minute)
        table.end_turn()
    (before,) = journal_state.load(table.disk).contracts
    reload(table, m=OTHER)
    rows_at(table, 240, first=41)
    table.end_turn()
    state = journal_state.load(table.disk)
    assert len(state.contracts) == 2
    for row in state.windows[:4]:
        journal.write_closed(row.number, ("m", ""), {}, table.disk)
        table.ingestor.unreported.pop(row.number)
    reload(table, m=ModelSection(window=20))
    rows_at(table, 300, first=51)
    table.end_turn()
    state = journal_state.load(table.disk)
    assert len(state.contracts) == 2
    assert before not in state.contracts
    assert {row.policy for row in state.windows} == set(state.contracts)


def test_damaged_settings_are_replaced_by_the_present_ones_and_counted(lay: Callable[[], Table]) -> None:
    first = lay()
    rows_at(first, 5)
    first.end_turn()
    first.disk.execute("UPDATE contracts SET data = x'00'")
    second = lay()
    reload(second, m=OTHER)
    again = restarted(first, second)
    assert again.counts("contracts_damaged") == 1
    (window,) = again.ingestor.models["m", ""].windows.open.values()
    assert (window.rules.grace, again.tally().received) == (50.0, 10)
    assert any("what held for an open window" in problem for problem in again.service.health().problems)


# --- closing ------------------------------------------------------------------------------------------------------


def test_closing_windows_close_in_the_order_of_the_first_time(lay: Callable[[], Table]) -> None:
    first = lay()
    for number, at in enumerate((125, 5, 65, 185)):  # numbers are given in this order, and windows close by time
        rows_at(first, at, first=1 + 10 * number)
        first.end_turn()
    first.ingestor.close_all(first.now)
    first.end_turn()
    again = restarted(first, lay())
    assert [closed.window.start - T0 for closed in again.finished(4)] == [0, 60, 120, 180]


def reported_tags(table: Table, count: int) -> dict[int, dict[str, Any]]:
    """The tags of the next windows that are reported, by start after T0 and agent."""
    unreported = dict(table.ingestor.unreported)
    closed = table.finished(count)
    table.ingestor.unreported.update(unreported)
    return {each.window.start - T0: table.ingestor.finish_window(each) for each in closed}


def test_tags_are_those_of_the_first_time(lay: Callable[[], Table]) -> None:
    first = lay()
    rows_at(first, 5, schema=replace(AB, tags={"zone": "a"}))
    first.end_turn()
    rows_at(first, 5, 65, first=11, schema=replace(AB, tags={"zone": "b"}))
    first.ingestor.close_all(first.now)
    first.end_turn()
    again = restarted(first, lay())
    for table in (first, again):
        assert reported_tags(table, 2) == {0: {"a": {"zone": "a"}}, 60: {"a": {"zone": "b"}}}


def test_an_agent_with_counts_only_has_the_tags_of_its_newest_rows(lay: Callable[[], Table]) -> None:
    first = lay()
    rows_at(first, 5, schema=replace(AB, tags={"zone": "a"}))
    first.end_turn()
    again = restarted(first, lay())
    again.ingestor.close_all(again.now)
    again.finished(1)
    again.greeting("ping", rejected={"x": 5})
    again.ingestor.close_all(again.now)
    again.end_turn()
    assert reported_tags(again, 1) == {60: {"a": {"zone": "a"}}}


def test_damage_of_tags_or_periods_costs_nothing_else(lay: Callable[[], Table]) -> None:
    first = lay()
    rows_at(first, 5, schema=replace(AB, tags={"zone": "a"}))
    first.end_turn()
    first.disk.execute("UPDATE tags SET tags = x'80'")
    first.disk.execute("UPDATE periods SET steps = x'00'")
    again = restarted(first, lay())
    rows_at(again, 65, first=11)
    assert (windows(again), again.tally().received) == ([(0, 60), (60, 60)], 20)


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_an_agent_that_is_forgotten_and_met_in_one_turn_is_on_disk(lay: Callable[[], Table]) -> None:
    table = lay()
    rows_at(table, 5)
    table.end_turn()
    model = table.ingestor.models["m", ""]
    table.goes(4000)
    table.ingestor.forget_agents(model, model.windows.forget_agents(table.now, 3600.0))
    rows_at(table, 65, first=11, schema=replace(AB, tags={"zone": "a"}))
    table.end_turn()
    state = journal_state.load(table.disk)
    assert [agent for _, _, agent, *_ in state.agents] == ["a"]
    assert {number for number, *_ in state.tags} == {0, 2}


def test_a_model_that_is_forgotten_and_met_in_one_turn_remembers_the_same_in_memory_and_on_disk(
    lay: Callable[[], Table],
) -> None:
    """A window that still closes for the forgotten model leaves nothing to the one that is met again."""
    table = lay()
    table.ingestor.policies.replace(replace(table.service.config, metrics=MetricsSection(reference_windows=3)))
    seen: list[set[tuple[str, str | None]]] = []

    def report() -> None:
        table.ingestor.close_all(table.now)
        (closed,) = table.finished(1)
        journal.write_closed(closed.number, closed.model, closed.memory, table.disk)
        seen.append(set(closed.memory))

    rows_at(table, 5)
    table.end_turn()
    table.ingestor.close_all(table.now)
    table.ingestor.forget(("m", ""))
    report()
    rows_at(table, 65, first=11)
    table.end_turn()
    assert table.service.engine.memory.of(("m", "")) == {}
    assert journal_state.load(table.disk).memory == []
    report()
    assert seen == [set(), {("reference", None)}]
    (kept,) = (row[-1] for row in journal_state.load(table.disk).memory)
    assert table.service.engine.memory.of(("m", ""))["reference", None] == kept


# --- restatement --------------------------------------------------------------------------------------------------


def predictions(table: Table, at: int, first: int) -> None:
    ids = np.array([f"{at} {i}".encode() for i in range(4)])
    times = np.full(4, (T0 + at) * 10**9)
    table.send(AB, {"probabilities": np.full((4, 2), 0.5), "ids": ids, "timestamps": times}, first=first)
    table.end_turn()


def labels(table: Table, at: int, first: int) -> None:
    ids = np.array([f"{at} {i}".encode() for i in range(4)])
    table.send(AB, {"ids": ids, "labels": np.zeros(4, np.int8)}, agent="job", kind="labels", first=first)
    table.end_turn()


class OnDisk:
    """A database whose jobs are done at once."""

    def __init__(self, table: Table) -> None:
        self._disk = table.disk

    def submit(self, work: Any, done: Any = lambda result: None, failed: Any = None) -> None:
        done(work(self._disk))


def restated(table: Table) -> dict[int, set[str]]:
    """The measures of the windows that are due to be restated, by start after T0."""
    reports: list[Report] = []

    def keep(make: Callable[[], list[Report]], done: Callable[[bool], None]) -> None:
        reports.extend(make())
        done(True)

    service = table.service
    database: Any = OnDisk(table)
    restater = Restater(
        database, keep, service.registry, service.ingestor.policies, service.telemetry, wall=lambda: 1e12
    )
    restater.turn(0.0)
    return {report.window.start - T0: {point.value.what for point in report.points} for report in reports}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("damaged", ["", "contracts", "label_policies"])
def test_a_window_is_restated_with_the_settings_of_its_opening(
    lay: Callable[[], Table], killed: bool, damaged: str
) -> None:
    table = lay()
    rows_at(table, 5)
    table.end_turn()
    reload(table, m=ModelSection(drop=("label_coverage",)))
    predictions(table, 6, 11)  # of the window that is open
    predictions(table, 70, 15)
    if killed:
        before, table = table, lay()
        restarted(before, table)
    reload(table)
    predictions(table, 130, 19)
    predictions(table, 7, 23)
    table.goes(300)
    table.ingestor.close_all(table.now)
    table.end_turn()
    for closed in table.finished(3):
        journal.write_closed(closed.number, closed.model, {}, table.disk)
    rows_at(table, 301, first=27)
    table.end_turn()
    if damaged:
        column = "data" if damaged == "contracts" else "policy"
        table.disk.execute(f"UPDATE {damaged} SET {column} = x'00'")
    for first, at in enumerate((6, 7, 70, 130)):
        labels(table, at, 1 + 4 * first)
    measures = restated(table)
    assert {start: "label_coverage" in names for start, names in measures.items()} == {
        0: True,
        60: bool(damaged),
        120: True,
    }
    assert all("accuracy" in names for names in measures.values())


def test_settings_of_predictions_go_with_them(lay: Callable[[], Table]) -> None:
    table = lay()
    table.goes(600)
    noted = "SELECT n, policy FROM label_policies ORDER BY n"
    for number in range(6):
        reload(table, m=ModelSection(sample_rows=number // 2 + 1))
        predictions(table, 5 + 60 * number, 1 + 4 * number)
    steps = table.disk.execute(noted).fetchall()
    assert [n for n, _ in steps] == [1, 9, 17]
    work = label_join.JoinWork(sweep=label_join.Sweep(0, 0, {}), limit=1500)
    label_join.join(work, table.disk)
    (oldest,) = table.disk.execute("SELECT min(n) FROM predictions").fetchone()
    assert 9 <= oldest < 17
    assert table.disk.execute(noted).fetchall() == steps[1:]
    label_join.join(replace(work, limit=0), table.disk)
    assert table.disk.execute(noted).fetchall() == []
    predictions(table, 305, 25)
    assert table.disk.execute(noted).fetchall() == [(1, steps[-1][1])]


def test_damaged_settings_of_predictions_are_not_those_of_others(lay: Callable[[], Table]) -> None:
    table = lay()
    table.goes(600)
    for number in range(3):
        reload(table, m=ModelSection(sample_rows=number + 1))
        predictions(table, 5 + 60 * number, 1 + 4 * number)
    table.disk.execute("UPDATE label_policies SET policy = x'00' WHERE n = 5")
    again = restarted(table, lay())
    assert again.disk.execute("SELECT n FROM label_policies").fetchall() == []
    assert again.service.telemetry.get("state_rows_damaged", "label_policies") == 1
