"""Labels and ids of clients with different rights: none takes what is another's, and each label has one outcome."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.storage import label_join, schema
from zmon_collector.storage.label_join import Joined
from zmon_collector.storage.label_work import ANYBODY, JoinWindow, JoinWork, Labelled, Predicted, Sweep

from tests.support.databases import in_memory

OPEN = JoinWindow(7, 60)
OUTCOMES = ("joined", "unknown", "duplicate", "conflict", "repeated", "forbidden")
GOOD, OTHER = msgpack.packb(["good*"]), msgpack.packb(["other"])


def rows(ids: Sequence[str], agent: str = "good-1", client: str | None = None, sender: str = "") -> Predicted:
    n, names = len(ids), [each.encode() for each in ids]
    times, client = np.zeros(n, np.int64), agent.partition("-")[0] if client is None else client
    outputs: tuple[Any, ...] = (np.ones(n, np.int64), None, None)
    return Predicted(1, JoinWindow(5, 0), 60, agent, 0.0, names, times, *outputs, client, sender)


def labels(ids: Sequence[str], label: int, agents: bytes = ANYBODY, agent: str = "truth") -> Labelled:
    names, times = [each.encode() for each in ids], np.zeros(len(ids), np.int64)
    return Labelled(1, OPEN, agent, 0.0, names, np.full(len(ids), label), times, agent.encode(), agents)


def join(connection: sqlite3.Connection, *blocks: Predicted | Labelled, sweep: Sweep | None = None) -> Joined:
    predicted = [block for block in blocks if isinstance(block, Predicted)]
    labelled = [block for block in blocks if isinstance(block, Labelled)]
    return label_join.join(JoinWork(predicted=predicted, labelled=labelled, sweep=sweep), connection)


def outcomes(*joined: Joined) -> dict[tuple[str, str], int]:
    """Counts by agent and outcome."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in joined:
        for record in (record for records in each.records.values() for record in records):
            counts.update((record.agent, OUTCOMES[code]) for code in record.columns["label_outcomes"].tolist())
    return dict(counts)


def given_labels(connection: sqlite3.Connection) -> list[tuple[str, int | None]]:
    return connection.execute("SELECT agent, label FROM predictions ORDER BY n").fetchall()


def test_a_label_without_the_right_changes_nothing_and_its_sender_is_told() -> None:
    connection = in_memory()
    join(connection, rows(["x", "y"]))
    refused = join(connection, labels(["x", "y"], 0, OTHER, "other"))
    assert outcomes(refused) == {("other", "forbidden"): 2}
    assert refused.forbidden == {
        b"other": (
            2,
            "ids 'x', 'y' are of agent 'good-1'; `labels` in the collector's allow-list gives the right to label them",
        )
    }
    allowed = join(connection, labels(["x", "y"], 1, GOOD))
    assert outcomes(allowed) == {("good-1", "joined"): 2}, "not duplicates: nothing was used up"
    assert given_labels(connection) == [("good-1", 1)] * 2


@pytest.mark.parametrize("first", [OTHER, GOOD], ids=["other", "good"])
def test_labels_wait_side_by_side_for_the_row_that_they_may_label(first: bytes) -> None:
    connection = in_memory()
    sent = [labels(["x"], 0, OTHER, "other"), labels(["x"], 1, GOOD)]
    for block in sent if first == OTHER else reversed(sent):
        assert outcomes(join(connection, block)) == {}
    found = join(connection, rows(["x"]))
    assert (outcomes(found), given_labels(connection)) == ({("good-1", "joined"): 1}, [("good-1", 1)])
    ended = join(connection, sweep=Sweep(0.0, 1.0, {1: OPEN}))
    assert outcomes(ended) == {("other", "forbidden"): 1}, "it waited for a row of its own, which did not come"
    assert list(ended.forbidden) == [b"other"]


def test_a_row_of_another_client_does_not_take_an_id() -> None:
    """Known ids, published first, would otherwise take each label of the agent whose they are."""
    connection = in_memory()
    found = [join(connection, rows(["x"], "other")), join(connection, rows(["x"]))]
    assert outcomes(*found) == {}, "not repeated"
    found = [join(connection, labels(["x"], 1, GOOD)), join(connection, labels(["x"], 0, OTHER, "other"))]
    assert outcomes(*found) == {("good-1", "joined"): 1, ("other", "joined"): 1}
    assert given_labels(connection) == [("other", 0), ("good-1", 1)]


def test_a_label_that_came_first_waits_for_its_row_behind_one_of_another_client() -> None:
    connection = in_memory()
    join(connection, labels(["x"], 1, GOOD))
    assert outcomes(join(connection, rows(["x"], "other"))) == {}
    assert outcomes(join(connection, rows(["x"]))) == {("good-1", "joined"): 1}
    assert given_labels(connection) == [("other", None), ("good-1", 1)]


def test_who_may_label_all_labels_the_rows_of_each_client() -> None:
    connection = in_memory()
    join(connection, rows(["x"], "other"), rows(["x"]))
    assert outcomes(join(connection, labels(["x"], 1))) == {("good-1", "joined"): 1, ("other", "joined"): 1}


def test_an_agent_beyond_the_limit_of_agents_labels_its_own_rows() -> None:
    connection = in_memory()
    join(connection, rows(["x"], "__other__", sender="good-101"))
    assert outcomes(join(connection, labels(["x"], 1, OTHER, "other"))) == {("other", "forbidden"): 1}
    assert outcomes(join(connection, labels(["x"], 1, GOOD))) == {("__other__", "joined"): 1}


def test_without_an_allow_list_an_id_is_used_once() -> None:
    connection = in_memory()
    join(connection, rows(["x"], client=""))
    assert outcomes(join(connection, rows(["x"], "other", client=""))) == {("other", "repeated"): 1}


@pytest.mark.parametrize("column", ["agents", "stream"])
def test_rights_are_under_the_checksum_of_a_waiting_label(column: str) -> None:
    connection = in_memory()
    join(connection, labels(["x"], 0, OTHER, "other"))
    connection.execute(f"UPDATE labels_waiting SET {column} = x''")
    found = join(connection, rows(["x"]))
    assert (found.damaged["labels_waiting"], given_labels(connection)) == (1, [("good-1", None)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["rows", "labels"]), st.sampled_from(["good", "other"]), st.integers(0, 2))))
def test_each_label_has_one_outcome_and_joins_rows_of_its_client_only(
    steps: list[tuple[str, str, int]],
) -> None:
    connection = in_memory()
    found, sent, rights = [], Counter[str](), {"good": GOOD, "other": OTHER}
    for what, who, name in steps:
        if what == "rows":
            found.append(join(connection, rows([str(name)], who)))
        else:
            sent[who] += 1
            found.append(join(connection, labels([str(name)], int(who == "good"), rights[who], who)))
    found.append(join(connection, sweep=Sweep(0.0, 1.0, {1: OPEN})))
    counts = outcomes(*found)
    assert sum(n for (_, outcome), n in counts.items() if outcome != "repeated") == sum(sent.values())
    assert set(given_labels(connection)) <= {("good", 1), ("other", 0), ("good", None), ("other", None)}
    assert not any(outcome == "conflict" for _, outcome in counts)


def test_a_file_of_the_last_version_keeps_its_labels() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(schema.TABLES + schema.LABELS + schema.RESTS)
    connection.execute(
        "INSERT INTO labels_waiting (owner, id, label, at, agent, received, size) VALUES (1, ?, 1, 0, 'truth', 0, 9)",
        (b"x",),
    )
    schema.migrate(connection, 3)
    assert outcomes(join(connection, rows(["x"]))) == {("good-1", "joined"): 1}
