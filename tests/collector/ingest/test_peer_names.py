"""Names that come over the wire: a publisher's are taken, others are refused or made readable on arrival."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.ingest.late_labels import EARLY, OWNERS
from zmon_collector.ingest.receiver import ReceivedMessage

from tests.support import unstarted
from tests.support.unstarted import AB, STREAM, Table, restarted
from zmon._capture.faults import Faults
from zmon._capture.rows import segments as publish_segments
from zmon._wire import control
from zmon._wire import frames as wire
from zmon._wire.checks import published
from zmon.batch import Schema
from zmon.errors import WireError
from zmon.names import LENGTH, is_name, readable

P = np.full((3, 2), 0.5)
Lay = Callable[[], Table]
HOSTILE = {
    "an escape sequence": "a\x1b[2J",
    "a bell": "a\x07",
    "a line": "a\n2026-01-01 ERROR forged",
    "a carriage return": "a\r",
    "a NUL": "a\0b",
    "a C1 control": "a\x9b2J",
    "another direction": "a\u202egnp.exe",
    "an isolate": "a\u2066b",
    "no width": "a\u200bb",
    "a byte order mark": "\ufeffa",
    "a line separator": "a\u2028b",
}
hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


# --- the functions ---------------------------------------------------------------------------------------------------


@hostile
def test_a_hostile_name_is_none_and_is_made_readable(name: str) -> None:
    assert not is_name(name)
    assert readable(name, LENGTH).isprintable()


@given(st.text(min_size=1), st.text(min_size=1))
def test_readable_names_are_stable_short_and_stay_different(one: str, other: str) -> None:
    shown = readable(one, 20)
    assert len(shown) <= 20
    assert readable(shown, 20) == shown
    assert (shown == readable(other, 20)) == (one == other) or len(one) > 11
    assert not any(char in shown for char in "\x1b\n\r\x07\u202e\u2028")


@pytest.mark.parametrize("name", ["Größe", "価格", "سعر\u200cها", "👩\u200d💻", "a\xa0b", "a\u3000b", "\ue000"])
def test_what_people_write_stays_as_it_is(name: str) -> None:
    assert readable(name, LENGTH) == name


# --- models, versions, agents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hello", "batch", "a batch that cannot be decoded"])
def test_a_message_of_a_hostile_source_is_refused(lay: Lay, kind: str) -> None:
    table = lay()
    schema, batch = unstarted.messages(AB, {"probabilities": P}, ts=0)
    sources = [
        wire.Topic(**{"model": "m", "version": "", "agent_id": "a", place: name})
        for name in (*HOSTILE.values(), "x" * (LENGTH + 1))
        for place in ("model", "version", "agent_id")
    ]
    for topic in (source.encode() for source in sources):
        if kind == "hello":
            frame = control.encode_greeting(
                kind, topic=topic, stream=STREAM, base=1, acked=0, issued=0, clock=0, tally={"lost": 5}
            )
            table.service.message_handler.handle(ReceivedMessage("control", [frame], b"peer"), table.now)
        else:
            table.data([topic, *schema[1:]])
            table.data([topic, *batch[1:]] if kind == "batch" else [topic, *batch[1:], b""])
    assert table.service.telemetry.get("rejected_messages", "topic") >= len(sources)
    assert not table.ingestor.models
    assert not len(table.ingestor.sessions)
    if kind == "hello":
        (ack,) = table.answers().values()
        assert ack.declined == STREAM


def test_a_stream_that_an_earlier_release_took_under_a_hostile_name_is_forgotten(lay: Lay) -> None:
    first, second = lay(), lay()
    first.batch(1, 3)
    first.end_turn()
    hostile_topic = wire.Topic("m", "", "a\x1b[2J").encode()
    first.disk.execute("UPDATE streams SET topic = ?, crc = NULL", (hostile_topic,))
    second.recovery(first.disk).restore(second.now)
    assert not second.ingestor.sessions.knows(STREAM)
    _, forgotten = second.ingestor.sessions.drain_changes(second.now)
    assert forgotten == [STREAM]


# --- schemas ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "a class": (Schema(classes=("a", "b\x1b[2J")), "a class is named 'b\\x1b[2J'"),
    "a long class": (Schema(classes=("a", "b" * 151)), "a class is named 'bbb"),
    "a tag": (Schema(classes=("a", "b"), tags={"zone\n": "x"}), "a tag is named 'zone\\n'"),
    "the value of a tag": (Schema(classes=("a", "b"), tags={"zone": "\u202ex"}), "a tag is named '\\u202ex'"),
    "many segments": (Schema(classes=("a", "b"), segments=tuple("abcdefghi")), "9 segments; a publisher has at most 8"),
    "a long segment": (Schema(classes=("a", "b"), segments=("s" * 151,)), "has 151 characters"),
}


@pytest.mark.parametrize(("schema", "detail"), REFUSED.values(), ids=REFUSED)
def test_a_schema_with_a_name_that_no_publisher_gives_is_answered(lay: Lay, schema: Schema, detail: str) -> None:
    table = lay()
    columns = {"probabilities": P}
    if schema.segments:
        columns["segments"] = np.zeros((3, len(schema.segments)), np.int8)
    names = {"segments": [["x"]] * len(schema.segments)} if schema.segments else None
    table.send(schema, columns, names)
    rows, said = table.answer().refused["schema"]
    assert (rows, detail in said, said.isprintable()) == (3, True, True)
    table.batch(4, 3)
    assert table.tally().received == 3, "later rows of the stream are taken"


@pytest.mark.parametrize("name", [HOSTILE["an escape sequence"], HOSTILE["another direction"]], ids=["escape", "bidi"])
def test_columns_are_shown_by_readable_names(lay: Lay, name: str) -> None:
    schema = Schema(classes=("a", "b"), features=(name, "x"), kinds=("numeric", "categorical"), segments=(name,))
    table = lay()
    columns = {
        "probabilities": P,
        "inputs": np.ones((3, 1)),
        "codes": np.array([[0], [1], [-1]], np.int8),
        "segments": np.array([[0], [0], [1]], np.int8),
    }
    table.send(schema, columns, {"codes": [[name, "fine"]], "segments": [[name, "eu"]]})
    table.end_turn()
    again = restarted(table, lay())
    for one in (table, again):
        one.ingestor.close_all(one.now)
        one.ingestor.end_turn(one.now)
        (closed,) = one.finished(1)
        values = [point.value for point in closed.points if point.agent_id is None]
        shown = readable(name, LENGTH)
        assert {value.feat_name for value in values} == {"", shown, "x"}
        assert {value.category for value in values if value.what == "feature_count"} == {shown, "fine"}
        texts = {text for value in values for text in value if isinstance(text, str)}
        assert all(text.isprintable() for text in texts)
    assert not table.answer().refused


def test_two_columns_that_would_be_named_alike_are_refused() -> None:
    name = "a\n"
    with pytest.raises(WireError, match="features repeat the name"):
        published(Schema("regression", (), (name, readable(name, LENGTH)), ("numeric", "numeric")))


def test_categories_that_would_be_named_alike_are_refused(lay: Lay) -> None:
    schema = Schema(classes=("a", "b"), features=("x",), kinds=("categorical",))
    table = lay()
    names = ["a\n", readable("a\n", LENGTH)]
    table.send(schema, {"probabilities": P, "codes": np.zeros((3, 1), np.int8)}, {"codes": [names]})
    assert table.answer().refused["categories"][0] == 3


def test_a_publisher_sends_readable_segments() -> None:
    found = publish_segments({"a\nb": ["x\x1b[2J", "fine"]}, 2, Faults(2))
    assert found.keys() == {readable("a\nb", LENGTH)}
    (coded,) = found.values()
    assert coded.names == (readable("x\x1b[2J", LENGTH), "fine")


def test_sets_of_classes_of_early_labels_are_bounded(lay: Lay) -> None:
    """Labels before any rows choose their classes, and each set of them is kept until rows come."""
    table, count = lay(), 3 * EARLY
    for number in range(count):
        schema = Schema(classes=("a", f"class {number}"))
        columns = {"ids": np.arange(3), "labels": np.zeros(3, np.int8)}
        table.send(schema, columns, first=1 + 3 * number, kind="labels")
        table.end_turn()
    model = table.ingestor.models["m", ""]
    assert len(model.early_owners) == len(model.owners) == EARLY
    rows, detail = table.answer().refused["schema_limits"]
    assert rows == 3 * (count - EARLY)
    assert "publish rows first" in detail


def test_sets_of_classes_of_rows_are_remembered_up_to_a_bound(lay: Lay) -> None:
    table = lay()
    for number in range(OWNERS + 5):
        columns = {"probabilities": P, "ids": np.arange(3)}
        table.send(Schema(classes=("a", f"class {number}")), columns, first=1 + 3 * number)
        table.goes(61)
        table.ingestor.close_due(table.now, hold=False)
        table.end_turn()
    assert len(table.ingestor.models["m", ""].owners) <= OWNERS


# --- what is said of them --------------------------------------------------------------------------------------------


def test_nothing_of_a_peer_is_raw_in_the_log(lay: Lay, caplog: pytest.LogCaptureFixture) -> None:
    table, name = lay(), "".join(HOSTILE.values())
    with caplog.at_level(logging.DEBUG, "zmon"):
        table.greeting("hello", agent=name)
        table.greeting("hello", rejected={name: 3}, details={name: name})
        table.send(Schema(classes=("a", name)), {"probabilities": P})
        table.send(Schema(task=name, classes=("a", "b")), {"probabilities": P}, first=4)
        table.send(Schema(classes=("a", "b"), tags={name: name}), {"probabilities": P}, first=7)
        table.send(AB, {"probabilities": P}, first=10)
        table.send(Schema(classes=("a", "c")), {"probabilities": P}, first=13)
        table.end_turn()
    assert caplog.records
    assert all(record.getMessage().isprintable() for record in caplog.records)
    details = table.ingestor.details_of(("m", ""))
    assert details
    assert all(text.isprintable() for detail in details for text in detail if isinstance(text, str))
