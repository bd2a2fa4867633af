"""Labels of a client for rows of another: who may, who may not, and what the senders hear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.ingest.auth import AllowedClient

from tests.support.unstarted import AB, Table, restarted, stream_of

Lay = Callable[[], Table]
IDS = np.array([b"1", b"2", b"3"])
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
RIGHT, WRONG = np.array([0, 1, 1]), np.array([1, 0, 0])
CLIENTS = {
    "a": AllowedClient("good", ("m",), ("a",)),
    "b": AllowedClient("other", ("m",), ("b",)),
    "truth": AllowedClient("truth", ("m",), ("truth",), ("m*",)),
    "else": AllowedClient("else", ("*",), ("else",), ("n",)),
    "all": AllowedClient("all", ("m",), ("*",)),
}


@pytest.fixture
def table(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A collector with CURVE, as far as it knows."""
    return secured(lay(), monkeypatch)


def secured(table: Table, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(table.service.receiver.auth, "check", lambda user, topic: CLIENTS[topic.agent_id])
    return table


def labels(table: Table, agent: str, given: np.ndarray = RIGHT) -> None:
    table.send(AB, {"ids": IDS, "labels": given}, agent=agent, kind="labels")


def accuracy(table: Table) -> dict[str | None, Any]:
    table.ingestor.close_all(table.now)
    table.end_turn()
    (closed,) = table.finished(1)
    return {point.agent_id: point.value.value for point in closed.points if point.value.what == "accuracy"}


@pytest.mark.parametrize(("agent", "may"), [("a", True), ("truth", True), ("all", True), ("b", False), ("else", False)])
def test_who_may_label_rows_of_agent_a(agent: str, may: bool, table: Table) -> None:
    table.send(AB, {"probabilities": P, "ids": IDS})
    if agent == "a":
        table.send(AB, {"ids": IDS, "labels": RIGHT}, first=4, kind="labels")
    else:
        labels(table, agent)
    table.greeting("ping", agent=agent)
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined" if may else "forbidden") == 3
    refused = table.answer(agent).refused
    assert may or refused["forbidden"][0] == 3
    assert may == (not refused)
    assert not table.tally(agent).rejected, "each has one outcome"


@pytest.mark.parametrize("early", [False, True])
def test_labels_of_another_client_leave_the_place_of_the_right_ones(early: bool, table: Table) -> None:
    if early:
        labels(table, "b", WRONG)
    table.send(AB, {"probabilities": P, "ids": IDS})
    table.end_turn()
    if not early:
        labels(table, "b", WRONG)
    labels(table, "truth")
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined") == 3
    assert accuracy(table) == {"a": 1.0, None: 1.0}


def test_the_answer_waits_for_nobody_who_has_gone(table: Table) -> None:
    table.send(AB, {"probabilities": P, "ids": IDS})
    labels(table, "b")
    table.greeting("bye", agent="b", base=4, issued=3)
    table.later(3)
    table.later(3)
    assert table.ingestor.sessions.get(stream_of("b")) is None
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "forbidden") == 3


def test_rights_of_waiting_labels_survive_a_restart(table: Table, lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    labels(table, "b", WRONG)
    table.end_turn()
    again = secured(restarted(table, lay()), monkeypatch)
    again.send(AB, {"probabilities": P, "ids": IDS})
    labels(again, "truth")
    again.end_turn()
    assert accuracy(again) == {"a": 1.0, None: 1.0}


def test_without_an_allow_list_anybody_labels_anything(lay: Lay) -> None:
    table = lay()
    table.send(AB, {"probabilities": P, "ids": IDS})
    labels(table, "b")
    table.end_turn()
    assert table.service.telemetry.get("late_labels", "joined") == 3


def test_labels_with_own_rows_ask_for_no_right(table: Table) -> None:
    table.send(AB, {"probabilities": P, "ids": IDS, "labels": RIGHT}, agent="b")
    table.send(AB, {"probabilities": P, "ids": IDS, "labels": RIGHT})
    table.end_turn()
    assert accuracy(table) == {"a": 1.0, "b": 1.0, None: 1.0}
    assert table.service.telemetry.get("late_labels", "repeated") == 0
