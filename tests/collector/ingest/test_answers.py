"""What a collector refuses it answers: rows, reason and detail, for good, and no stream waits behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from zmon_collector.ingest.answers import DETAILS, OF_ONE_AGENT, REASONS, Answers, Detail, Details
from zmon_collector.telemetry import LABELS, LOG_LINES
from zmon_collector.windows.window import Tally

from tests.support.unstarted import AB, STREAM, T0, TOPIC, Table, stream_of, topic_of
from zmon._wire import frames as wire
from zmon._wire.checks import MAX_DETAIL
from zmon.batch import Schema

P = np.full((3, 2), 0.5)
Lay = Callable[[], Table]


def test_what_validation_refuses_is_answered(lay: Lay) -> None:
    table = lay()
    table.send(AB, {"probabilities": P * 30})
    table.send(AB, {"probabilities": P}, first=4)
    ack = table.answer()
    assert ack.row == 6
    assert ack.refused == {"probabilities_range": (3, "a probability is 15; expected values in [0, 1]")}
    assert table.tally() == Tally(received=3, rejected={"probabilities_range": 3})
    table.send(AB, {"probabilities": P * 40}, first=7)
    assert table.answer().refused == {"probabilities_range": (6, "a probability is 20; expected values in [0, 1]")}


def test_a_message_that_comes_twice_is_refused_once(lay: Lay) -> None:
    table = lay()
    for _ in range(2):
        table.send(AB, {"probabilities": P * 30})
    assert table.answer().refused["probabilities_range"][0] == 3


def test_answers_survive_a_restart(lay: Lay) -> None:
    first, second = lay(), lay()
    first.send(AB, {"probabilities": P * 30})
    before = first.answer()
    second.recovery(first.disk).restore(second.now)
    assert second.answer().refused == before.refused != {}
    second.send(AB, {"probabilities": P * 30}, first=4)
    assert second.answer().refused["probabilities_range"][0] == 6


def test_positions_of_0_1_0_have_no_answers(lay: Lay) -> None:
    first, second = lay(), lay()
    first.greeting("hello", rejected={"x": 1})
    first.end_turn()
    (blob,) = first.disk.execute("SELECT tally FROM streams").fetchone()
    assert msgpack.unpackb(blob) == {"rejected": {"x": 1}}, "as 0.1.0 wrote it"
    second.recovery(first.disk).restore(second.now)
    second.greeting("ping", rejected={"x": 1})
    assert second.counts("rejected") == 0, "the tally was counted in the first run"


# --- schemas --------------------------------------------------------------------------------------------------------

WIDE = Schema("regression", (), tuple(map(str, range(70_000))), ("numeric",) * 70_000)
NAMELESS = Schema("regression", (), ("", "age"), ("numeric", "numeric"))


@pytest.mark.parametrize(
    ("schema", "reason", "what"),
    [(WIDE, "schema", "70000 features; at most 65536"), (NAMELESS, "schema", "features[0] has 0 characters")],
)
def test_a_refused_schema_does_not_block_its_stream(schema: Schema, reason: str, what: str, lay: Lay) -> None:
    table = lay()
    table.send(schema, {"predictions": np.zeros(5), "inputs": np.zeros((5, 2))})
    table.send(AB, {"probabilities": P}, first=6)
    ack = table.answer()
    assert (ack.row, ack.need) == (8, b"")
    assert ack.refused[reason][0] == 5
    assert what in ack.refused[reason][1]
    assert table.tally() == Tally(received=3, rejected={reason: 5})


def test_a_schema_beyond_the_limits_is_named_and_judged_again_after_a_reload(lay: Lay) -> None:
    table = lay()
    config = table.ingestor.config
    table.ingestor.reload(with_limits(config, features=1))
    schema = Schema(classes=("a", "b"), features=("x", "y"), kinds=("numeric", "numeric"))
    rows = {"probabilities": P, "inputs": np.zeros((3, 2))}
    table.send(schema, rows)
    detail = "2 features; the collector takes limits.features = 1"
    assert table.answer().refused == {"schema_limits": (3, detail)}
    table.ingestor.reload(config)
    table.send(schema, rows, first=4)
    assert table.tally() == Tally(received=3, rejected={"schema_limits": 3})


def test_columns_beyond_the_limit_of_a_model_are_left_out_of_their_rows_and_answered(lay: Lay) -> None:
    table = lay()
    table.ingestor.policies.replace(with_limits(table.ingestor.config, features=2))
    table.ingestor.reload(with_limits(table.ingestor.config, features=2))
    for number, name in enumerate("xyz"):
        schema = Schema(classes=("a", "b"), features=(name,), kinds=("numeric",))
        table.send(schema, {"probabilities": P, "inputs": np.zeros((3, 1))}, first=1 + 3 * number)
    ack = table.answer()
    most = "limits.features = 2 of all publishers of a model together, and 32 segments"
    detail = f"1 columns are left out; the collector takes {most}"
    assert (ack.refused, ack.degraded) == ({}, {"schema_limits": (3, detail)})
    assert table.tally() == Tally(received=9, degraded={"schema_limits": 3})
    table.goes(60)
    table.send(schema, {"probabilities": P, "inputs": np.zeros((3, 1))}, first=10)
    newest = table.ingestor.models["m", ""].windows.open[T0 + 60]
    assert newest.schema.features == ("z", "x")


def with_limits(config: Any, **limits: int) -> Any:
    return replace(config, limits=replace(config.limits, **limits))


def test_a_body_under_another_hash_does_not_shut_out_that_schema(lay: Lay) -> None:
    table = lay()
    sound = wire.schema_hash(wire.encode_schema(AB))
    header = wire.pack({"v": 1, "kind": "schema", "stream": b"x" * 16, "schema": sound})
    table.data([topic_of("stranger"), header, b"\x80"])
    table.send(AB, {"probabilities": P})
    assert table.tally() == Tally(received=3)


# --- messages that cannot be decoded --------------------------------------------------------------------------------

BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "a dtype": ("dtype", {"arrays": [["probabilities", "<i8", [3, 2]]]}),
    "a shape": ("shape", {"arrays": [["probabilities", "<f8", [4, 2]]]}),
    "a length": ("length", {"arrays": [["probabilities", "<f8", [3, 1]]]}),
    "no array": ("arrays", {"arrays": []}),
    "a tally": ("tally", {"tally": {"rejected": []}}),
    "no time": ("header", {"ts": -1}),
    "labels without ids": ("arrays", {"kind": "labels"}),
}


@pytest.mark.parametrize(("reason", "header"), BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_settled_and_answered(reason: str, header: dict[str, Any], lay: Lay) -> None:
    table = lay()
    table.send(AB, {"probabilities": P}, **header)
    table.send(AB, {"probabilities": P}, first=4)
    ack = table.answer()
    assert ack.row == 6
    assert ack.refused[reason][0] == 3
    assert table.tally() == Tally(received=3, rejected={reason: 3})
    assert table.counts("rejected_messages") == 1


def test_more_arrays_than_this_release_takes_are_settled(lay: Lay) -> None:
    table = lay()
    arrays = [["probabilities", "<f8", [3, 2]], *([f"n{i}", "<f8", [3]] for i in range(20))]
    header = {"v": 1, "kind": "batch", "stream": STREAM, "first": 1, "rows": 3, "base": 1, "ts": 1, "arrays": arrays}
    schema = wire.schema_hash(wire.encode_schema(AB))
    table.data([TOPIC, wire.pack({**header, "schema": schema}), *[b""] * 21])
    assert table.answer().refused["frames"][0] == 3


@pytest.mark.parametrize("header", [{"rows": 2**40}, {"first": 0}, {"v": 2}, {"stream": b"x"}, {"base": 9}])
def test_a_message_of_unknown_rows_moves_nothing(header: dict[str, Any], lay: Lay) -> None:
    table = lay()
    table.batch(1, 3)
    table.send(AB, {"probabilities": P}, first=4)
    packed = msgpack.packb(
        {"v": 1, "kind": "batch", "stream": STREAM, "first": 7, "rows": 3, "base": 7, "ts": 1, "schema": b"x" * 8,
         "arrays": [], **header}
    )  # fmt: skip
    table.data([TOPIC, packed])
    ack = table.answer()
    assert (ack.row, ack.refused) == (6, {})


# --- bounds, log ----------------------------------------------------------------------------------------------------


def test_answers_are_bounded() -> None:
    answers = Answers()
    for i in range(200):
        answers.add("rejected", 1, f"reason {i}", "x" * 1000)
        answers.add("degraded", 2**53, "same", f"{i}\n")
    assert len(answers.refused) == REASONS + 1
    assert sum(rows for rows, _ in answers.refused.values()) == 200
    assert all(len(detail) == MAX_DETAIL for _, detail in answers.refused.values())
    assert answers.degraded == {"same": (2**53, "199�")}
    assert Answers(msgpack.unpackb(msgpack.packb(answers.plain()))).plain() == answers.plain()


def test_details_are_bounded_and_printable() -> None:
    details = Details()
    assert details.note(Detail("rejected", "r", "a", "one", 1.0))
    assert not details.note(Detail("rejected", "r", "a", "two\x1b[31m", 2.0))
    assert [each.detail for each in details.newest()] == ["two�[31m"]
    details.note(Detail("degraded", "r", "other", "kept", 1.0))
    for i in range(2 * DETAILS):
        details.note(Detail("rejected", f"{i}", "a", "", 3.0))
    assert [each.agent for each in details.newest()].count("a") == OF_ONE_AGENT
    assert details.newest()[-1].detail == "kept", "nobody pushes out the details of others"
    for i in range(2 * DETAILS):
        details.note(Detail("rejected", "r", f"agent {i}", "", 3.0))
    assert len(details.newest()) == DETAILS


def test_a_refusal_is_logged_once_for_each_agent_and_reason(lay: Lay, caplog: pytest.LogCaptureFixture) -> None:
    table = lay()
    with caplog.at_level(logging.WARNING, "zmon.collector"):
        for i in range(5):
            for agent in ("a", "b"):
                table.send(AB, {"probabilities": P * 30}, first=3 * i + 1, agent=agent)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == ["model 'm', agent 'a'", "model 'm', agent 'b'"]
    assert "3 rows rejected (probabilities_range): a probability is 15" in lines[0]


def test_no_sender_fills_the_log_or_the_counters(lay: Lay, caplog: pytest.LogCaptureFixture) -> None:
    table = lay()
    with caplog.at_level(logging.WARNING, "zmon.collector"):
        for i in range(90):
            table.send(AB, {"probabilities": P * 30}, agent=f"agent {i}")
    assert len(caplog.records) == LOG_LINES
    for i in range(2 * LABELS):
        table.ingestor.telemetry.count("rejected", f"{i}")
    assert len([name for name in table.ingestor.telemetry.snapshot() if name.startswith("rejected{")]) <= LABELS + 1


def test_an_unexpected_error_costs_the_rows_of_one_message(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lay()
    table.batch(1, 3)
    monkeypatch.setattr(table.ingestor.engine, "add_rows", lambda *_: 1 / 0)
    table.batch(4, 3)
    monkeypatch.undo()
    table.batch(7, 3)
    ack = table.answer()
    assert ack.row == 9
    assert ack.refused == {"internal": (3, "the collector cannot handle these rows; its log says why")}
    assert table.tally() == Tally(received=6, rejected={"internal": 3})


def test_a_publishers_own_details_are_kept_for_the_page(lay: Lay) -> None:
    table = lay()
    table.greeting("hello", rejected={"r": 2}, degraded={"d": 1}, details={"r": "row 7", "d": "column 'x'"})
    details = table.ingestor.models["m", ""].details.newest()
    assert {(each.kind, each.reason, each.agent, each.detail) for each in details} == {
        ("rejected", "r", "a", "row 7"),
        ("degraded", "d", "a", "column 'x'"),
    }
    assert table.tally() == Tally(rejected={"r": 2}, degraded={"d": 1})
    table.greeting("ping", lost=3, rejected={"r": 1}, degraded={"d": 0})
    assert table.tally() == Tally(rejected={"r": 2}, degraded={"d": 1}, lost=3), "counts never go back"
    table.greeting("ping", lost=5, rejected={"r": 2}, degraded={"d": 4})
    assert table.tally() == Tally(lost=5, rejected={"r": 2}, degraded={"d": 4})
    assert table.answer().refused == {}, "what the publisher reported is not answered"


def test_a_model_that_is_not_taken_is_declined_with_what_was_settled_of_it(lay: Lay) -> None:
    """Its publishers greet a collector that comes back without the model, before another one gets their rows."""
    table = lay()
    table.greeting("hello", rejected={"x": 2})
    table.batch(1, 10)
    table.end_turn()
    config = table.ingestor.config
    table.ingestor.config = replace(config, collector=replace(config.collector, models=("other", "a*")))
    table.greeting("hello", issued=30, rejected={"x": 5})
    table.greeting("hello", issued=30, agent="b")
    answers = table.answers()
    ack = answers.pop(stream_of("a"))
    assert (ack.row, ack.tally, ack.declined) == (10, {"rejected": {"x": 2}}, b"")
    assert {each.declined for each in answers.values()} <= {stream_of("a"), stream_of("b")}
    assert stream_of("b") not in answers
    assert len(table.ingestor.sessions) == 1, "no session for what is not taken"
    assert table.counts("rejected") == 2, "the rest is for another collector"
