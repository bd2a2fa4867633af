"""Rows with other classes, or another task, under one version: each is counted once, and nobody's are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmon_collector.config import Config
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest.variants import variant_version
from zmon_collector.windows.window import Tally

from tests.support.unstarted import Table, restarted
from zmon._wire.checks import MAX_NAME
from zmon.batch import Schema

Lay = Callable[[], Table]
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
IDS = np.array([b"1", b"2", b"3"])
MORE = np.array([b"4", b"5", b"6"])
MAIN, OTHER = Schema(classes=("no", "yes")), Schema(classes=("x", "y"))
AMOUNT = Schema("regression")
APART = variant_version("", OTHER)
SCHEMAS = (MAIN, OTHER, AMOUNT)


def send(table: Table, schema: Schema, agent: str, **more: Any) -> None:
    outputs = {"predictions": np.ones(3)} if schema is AMOUNT else {"probabilities": P}
    table.send(schema, {**outputs, **more.pop("columns", {})}, agent=agent, **more)


def label(table: Table, schema: Schema, ids: np.ndarray, given: list[int], **more: Any) -> None:
    table.send(schema, {"ids": ids, "labels": np.array(given)}, kind="labels", **{"agent": "job", **more})


def closed(table: Table, models: int) -> dict[tuple[str, str], dict[str | None, float]]:
    """Values by (version, series) of what is open, by agent."""
    table.ingestor.close_all(table.now)
    table.end_turn()
    found: dict[tuple[str, str], dict[str | None, float]] = {}
    for window in table.finished(models):
        for point in window.points:
            if not point.value.reason and not point.value.class_name:
                found.setdefault((window.model[1], point.value.what), {})[point.agent_id] = point.value.value
    return found


def test_the_name_of_a_variant_is_legal_and_does_not_depend_on_the_order_of_classes() -> None:
    assert variant_version("1", OTHER) == variant_version("1", Schema(classes=("y", "x")))
    long = "v" * MAX_NAME
    names = {variant_version(long, each) for each in SCHEMAS} | {variant_version(long[:-1], OTHER)}
    assert len(names) == 4
    assert all(len(name) <= MAX_NAME for name in names)


def test_other_classes_that_are_first_in_each_window_take_none(lay: Lay) -> None:
    """Its publisher restarts, and its times are ahead, so its rows open every window."""
    table = lay()
    send(table, MAIN, "a")
    for minute in range(1, 5):
        send(table, OTHER, "b", first=3 * minute - 2, ts=int((table.now.wall + 60) * 1e9))
        table.goes(60)
        send(table, MAIN, "a", first=1 + 3 * minute)
        assert table.answer("b").refused == table.answer().refused == table.answer().degraded == {}
    assert table.tally() == Tally(received=15)
    assert table.tally("b", version=APART) == Tally(received=12, degraded={"schema_conflict": 12})
    assert table.tally("b") == Tally()


def test_another_task_is_a_version_of_its_own(lay: Lay) -> None:
    table = lay()
    send(table, MAIN, "a")
    send(table, AMOUNT, "b")
    send(table, OTHER, "c")
    found = closed(table, 3)
    assert found["", "buffer_count"] == {"a": 3, None: 3}
    assert found[variant_version("", AMOUNT), "buffer_count"] == {"b": 3, None: 3}
    assert found[APART, "buffer_count"] == {"c": 3, None: 3}


@pytest.mark.parametrize("labels_first", [False, True])
def test_labels_find_the_rows_of_a_variant(labels_first: bool, lay: Lay) -> None:
    table, steps = (
        lay(),
        [
            lambda: send(table, OTHER, "b", columns={"ids": IDS}, first=4),
            lambda: label(table, Schema(classes=("y", "x")), IDS, [1, 0, 0]),
        ],
    )
    send(table, MAIN, "a", columns={"ids": MORE})
    send(table, OTHER, "b")
    for step in reversed(steps) if labels_first else steps:
        step()
        table.end_turn()
    label(table, MAIN, MORE, [0, 1, 1], first=4)
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined") == 6
    found = closed(table, 2)
    assert found["", "accuracy"] == {"a": 1.0, None: 1.0}
    assert found[APART, "accuracy"] == {"b": 1.0, None: 1.0}


def test_labels_that_list_some_classes_find_the_rows_that_have_them(lay: Lay) -> None:
    table, three = lay(), Schema(classes=("x", "y", "z"))
    send(table, MAIN, "a")
    table.send(three, {"probabilities": np.eye(3), "ids": IDS}, agent="b")
    label(table, Schema(classes=("z", "x")), IDS[::2], [1, 0])
    table.end_turn()
    assert closed(table, 2)[variant_version("", three), "accuracy"] == {"b": 1.0, None: 1.0}


def test_labels_before_any_rows_find_those_of_a_variant(lay: Lay) -> None:
    table = lay()
    label(table, OTHER, IDS, [0, 1, 1])
    send(table, MAIN, "a", columns={"ids": MORE})
    send(table, OTHER, "b", columns={"ids": IDS})
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined") == 3
    assert closed(table, 2)[APART, "accuracy"] == {"b": 1.0, None: 1.0}


def test_other_classes_follow_when_nobody_uses_the_first_ones(lay: Lay) -> None:
    """And labels find their rows of before, which are in the variant."""
    table = lay()
    send(table, MAIN, "a")
    send(table, OTHER, "b", columns={"ids": IDS})
    table.greeting("bye", base=4, issued=3)
    table.goes(60)
    send(table, OTHER, "b", first=4, columns={"ids": MORE})
    assert table.tally("b") == Tally(received=3)
    label(table, OTHER, np.concatenate([IDS, MORE]), [0, 1, 1] * 2)
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined") == 6
    send(table, MAIN, "a", first=4)
    assert table.answer().degraded["schema_conflict"][0] == 3, "it is too late for the name"
    assert table.tally("a", version=variant_version("", MAIN)) == Tally(received=3, degraded={"schema_conflict": 3})


@pytest.mark.parametrize("open_windows", [True, False])
def test_a_restart_changes_no_place(open_windows: bool, lay: Lay) -> None:
    table = lay()
    send(table, MAIN, "a", columns={"ids": MORE})
    send(table, OTHER, "b", columns={"ids": IDS})
    table.end_turn()
    if not open_windows:
        table.goes(120)
        table.ingestor.close_due(table.now, hold=False)
        table.end_turn()
        table.finished(2)
        table.disk.execute("DELETE FROM windows")
    again = lay()
    again.now = table.now
    restarted(table, again)
    send(again, OTHER, "b", first=4)  # it is the first to be heard
    send(again, MAIN, "a", first=4)
    label(again, OTHER, IDS, [0, 1, 1])
    again.end_turn()
    assert again.service.telemetry.get("late_labels", "joined") == 3
    received = 6 if open_windows else 3
    assert again.tally().received == again.tally("b", version=APART).received == received
    assert again.tally("b") == Tally()
    assert again.ingestor.models["m", APART].main is again.ingestor.models["m", ""]


def test_without_room_for_another_version_rows_are_rejected_and_told_why(lay: Lay) -> None:
    table = lay()
    limits = LimitsSection(models=1)
    table.ingestor.reload(replace(Config(), limits=limits))
    send(table, MAIN, "a")
    send(table, OTHER, "b")
    refused = table.answer("b").refused
    assert refused["schema_conflict"][0] == 3
    assert "limits.models" in refused["schema_conflict"][1]
    send(table, OTHER, "b", first=4)
    send(table, MAIN, "b", first=7)
    assert table.tally("b") == Tally(received=3, rejected={"schema_conflict": 6})


def test_windows_of_a_variant_do_not_wait_for_who_has_left(lay: Lay) -> None:
    table = lay()
    send(table, MAIN, "a")
    send(table, OTHER, "b")
    windows = table.ingestor.models["m", APART].windows
    assert not windows.close_due(table.now, hold=False)
    table.goes(61)
    send(table, OTHER, "c")
    table.greeting("bye", agent="b", base=4, issued=3)
    assert [window.contributors for window in windows.close_due(table.now, hold=False)] == [{"b"}]


def test_a_version_that_has_the_name_of_a_variant_is_in_nobodys_way(lay: Lay) -> None:
    table = lay()
    send(table, MAIN, "z", version=APART)
    send(table, MAIN, "a")
    send(table, OTHER, "b")
    assert table.tally("b", version=variant_version(APART, OTHER)).received == 3


def test_rows_over_several_windows_are_placed_one_by_one(lay: Lay) -> None:
    """A variant has the length of windows of its own beginning; each row keeps its number."""
    table = lay()
    send(table, MAIN, "a")
    table.ingestor.models["m", ""].windows.periods.change(90, int(table.now.wall))
    times = (table.now.wall + np.array([-100.0, 0.0, 70.0])) * 1e9
    send(table, OTHER, "b", columns={"timestamps": times.astype(np.int64)})
    assert table.tally("b", version=APART).received == 3
    starts = table.ingestor.models["m", APART].windows.open
    assert sorted(start - int(table.now.wall) for start in starts) == [-120, 0, 60]
    table.end_turn()
    again = restarted(table, lay())
    assert again.service.telemetry.get("lost") == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(SCHEMAS), st.sampled_from([0, 1, 30, 70]), st.booleans()),
        max_size=12,
    )
)
def test_whatever_is_sent_in_whatever_order_each_row_is_received_once(
    lay: Lay, steps: list[tuple[str, Schema, int, bool]]
) -> None:
    table, sent = lay(), Counter[str]()
    for agent, schema, seconds, closes in steps:
        send(table, schema, agent, first=1 + sent[agent])
        sent[agent] += 3
        table.goes(seconds)
        if closes:
            table.greeting("hello", agent=agent, issued=sent[agent])
            table.greeting("bye", agent=agent, base=1 + sent[agent], issued=sent[agent])
    received: Counter[str] = Counter()
    for model in table.ingestor.models.values():
        for window in model.windows.open.values():
            for agent, tally in window.tallies.items():
                assert not (tally.rejected or tally.late or tally.lost)
                received[agent] += tally.received
    assert received == sent
