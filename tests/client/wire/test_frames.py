"""The wire: a round trip for every frame, golden bytes, and a decoder that survives anything with one typed error."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema
from zmon.errors import WireError

STREAM = bytes(range(16))
TOPIC = wire.Topic("fraud", "2", "pod-1")
SCHEMA = Schema(classes=("no", "yes"), features=("age",), kinds=("numeric",), threshold=0.3, tags={"zone": "a"})
BODY = wire.encode_schema(SCHEMA)
HASH = wire.schema_hash(BODY)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
DTYPES = ["<f2", "<f4", "<f8"]


def batch(**changes: object) -> list[bytes]:
    arguments: dict[str, object] = {
        "stream": STREAM,
        "schema": HASH,
        "first": 5,
        "rows": 2,
        "base": 3,
        "ts": 1_700_000_000_000_000_000,
        "arrays": [("probabilities", "<f8", [2, 2]), ("labels", "<i8", [2])],
        "buffers": [np.array([[0.9, 0.1], [0.2, 0.8]]).tobytes(), np.array([0, -1]).tobytes()],
        "tally": {"sampled_out": 7, "rejected": {"label_index": 2}},
    }
    return wire.encode_batch(TOPIC.encode(), **{**arguments, **changes})  # type: ignore[arg-type]


def with_header(**changes: object) -> list[bytes]:
    frames = batch()
    header = msgpack.unpackb(frames[1])
    header.update(changes)
    frames[1] = msgpack.packb({key: value for key, value in header.items() if value is not ...})
    return frames


@given(names, names | st.just(""), names)
def test_topic_round_trip(model: str, version: str, agent: str) -> None:
    topic = wire.Topic(model, version, agent)
    frame = topic.encode()
    assert wire.Topic.decode(frame) == topic
    assert frame.endswith(b"/")
    assert frame.count(b"/") == 5


def test_a_models_prefix_matches_no_other_model() -> None:
    prefix = b"/".join(wire.Topic("m1", "", "a").encode().split(b"/")[:3]) + b"/"
    assert not wire.Topic("m10", "", "a").encode().startswith(prefix)


def test_batch_round_trip() -> None:
    message = wire.decode(batch())
    assert (message.topic, message.kind, message.stream, message.schema) == (TOPIC, "batch", STREAM, HASH)
    assert (message.first, message.rows, message.base, message.ts) == (5, 2, 3, 1_700_000_000_000_000_000)
    assert message.columns["probabilities"].tolist() == [[0.9, 0.1], [0.2, 0.8]]
    assert message.columns["labels"].tolist() == [0, -1]
    assert message.tally == {"sampled_out": 7, "rejected": {"label_index": 2}}


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.sampled_from(DTYPES),
    st.sampled_from(sorted({"<f4", "|u1", "<i8", "|b1", "<u2"})),
    st.booleans(),
)
def test_arrays_round_trip(rows: int, width: int, floats: str, kind: str, timed: bool) -> None:
    random = np.random.default_rng(rows)
    p = random.random((rows, width)).astype(floats)
    x = random.integers(0, 2, (rows, width)).astype(kind)
    arrays = [("probabilities", floats, p.shape), ("inputs", kind, x.shape)]
    buffers = [p.tobytes(), x.tobytes()]
    if timed:
        arrays.append(("timestamps", "<i8", (rows,)))
        buffers.append(np.arange(rows).tobytes())
    message = wire.decode(batch(rows=rows, first=1, base=1, arrays=arrays, buffers=buffers))
    np.testing.assert_array_equal(message.columns["probabilities"], p)
    np.testing.assert_array_equal(message.columns["inputs"], x)
    assert ("timestamps" in message.columns) == timed


def test_labels_round_trip() -> None:
    arrays = [("ids", "|S3", (2,)), ("labels", "<i8", (2,)), ("inputs", "<i8", (2, 1))]
    buffers = [b"a\0\0bcd", np.array([1, 0]).tobytes(), np.array([[1], [0]]).tobytes()]
    message = wire.decode(batch(kind="labels", rows=2, first=1, base=1, arrays=arrays, buffers=buffers))
    assert (message.kind, message.first, message.rows) == ("labels", 1, 2)
    assert {name: column.tolist() for name, column in message.columns.items()} == {
        "ids": [b"a", b"bcd"],
        "labels": [1, 0],
    }
    with pytest.raises(WireError, match="labels without ids"):
        wire.decode(batch(kind="labels", rows=2, first=1, base=1, arrays=arrays[1:], buffers=buffers[1:]))


def test_schema_round_trip() -> None:
    message = wire.decode(wire.encode_schema_message(TOPIC.encode(), STREAM, BODY))
    assert message.kind == "schema"
    assert wire.decode_schema(message.body, message.schema) == SCHEMA


def test_control_round_trips() -> None:
    tally = {"sampled_out": 1, "rejected": {}}
    frame = control.encode_greeting(
        "hello", topic=TOPIC.encode(), stream=STREAM, base=3, acked=2, issued=9, clock=11, tally=tally
    )
    assert control.decode_greeting(frame) == control.Greeting("hello", TOPIC, STREAM, 3, 2, 9, 11, tally)
    ack = control.encode_ack(STREAM, 9, 65536, need=HASH)
    assert control.decode_ack(ack) == control.Ack(STREAM, 9, 65536, HASH)


def test_counts_and_details_round_trip() -> None:
    counts = {"sampled_out": 1, "lost": 4, "rejected": {"a": 2}, "degraded": {"b": 3}}
    assert wire.decode(batch(tally=counts)).tally == counts
    sent = {**counts, "details": {"a": "class 'maybe'"}, "novel": [1]}
    greeting = control.decode_greeting(greet(tally=sent))
    assert (greeting.tally, greeting.details) == (counts, {"a": "class 'maybe'"})
    answers = {"schema_conflict": (3, "feature 'a'")}
    ack = control.decode_ack(control.encode_ack(STREAM, 9, 65536, refused=answers, degraded=answers))
    assert (ack.refused, ack.degraded) == (answers, answers)
    assert "refused" not in msgpack.unpackb(control.encode_ack(STREAM, 9, 65536)), "an older publisher sees no change"


def greet(**changes: object) -> bytes:
    good = control.encode_greeting(
        "ping", topic=TOPIC.encode(), stream=STREAM, base=3, acked=2, issued=9, clock=11, tally={}
    )
    return bytes(msgpack.packb({**msgpack.unpackb(good), **changes}))


MANY = {str(i): [1, ""] for i in range(65)}
ANSWERS = {
    "a list": [],
    "too many reasons": MANY,
    "an empty reason": {"": [1, ""]},
    "a reason as bytes": {b"a": [1, ""]},
    "a negative count": {"a": [-1, ""]},
    "a count as a bool": {"a": [True, ""]},
    "a huge count": {"a": [2**60, ""]},
    "no detail": {"a": [1]},
    "a detail as bytes": {"a": [1, b"x"]},
    "a long detail": {"a": [1, "x" * 201]},
    "a number": {"a": 1},
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("key", ["refused", "degraded"])
def test_wrong_answers_are_refused(key: str, answers: object) -> None:
    frame = msgpack.packb({**msgpack.unpackb(control.encode_ack(STREAM, 9, 65536)), key: answers})
    with pytest.raises(WireError) as error:
        control.decode_ack(frame)
    assert error.value.reason == "control"


@pytest.mark.parametrize(
    "details", [[], {str(i): "" for i in range(65)}, {"a": 1}, {"a": "x" * 201}, {"": "x"}, {"a": b"x"}]
)
def test_wrong_details_are_refused(details: object) -> None:
    with pytest.raises(WireError) as error:
        control.decode_greeting(greet(tally={"details": details}))
    assert error.value.reason == "tally"


def test_golden_bytes() -> None:
    """What this release writes; the next one must still read it."""
    assert TOPIC.encode() == b"z1/d0/fraud/2/pod-1/"
    assert BODY.hex() == (
        "86a47461736bae636c617373696669636174696f6ea7636c617373657392a26e6fa3796573a8666561747572657391a3616765a5"
        "6b696e647391a76e756d65726963a97468726573686f6c64cb3fd3333333333333a47461677381a47a6f6e65a161"
    )
    assert HASH.hex() == "91ca809977016136"
    frames = batch()
    assert frames[1].hex() == (
        "8aa17601a46b696e64a56261746368a673747265616dc410000102030405060708090a0b0c0d0e0fa5666972737405a4726f7773"
        "02a46261736503a27473cf17979cfe362a0000a6736368656d61c40891ca809977016136a66172726179739293ad70726f626162"
        "696c6974696573a33c663892020293a66c6162656c73a33c69389102a574616c6c7982ab73616d706c65645f6f757407a872656a"
        "656374656481ab6c6162656c5f696e64657802"
    )
    assert frames[2].hex() == "cdccccccccccec3f9a9999999999b93f9a9999999999c93f9a9999999999e93f"


def test_a_newer_minor_is_read() -> None:
    frames = with_header(novelty={"x": 1}, arrays=[["probabilities", "<f8", [2, 2]], ["novel", "<z9", [1]]])
    message = wire.decode([*frames[:3], b"whatever"])
    assert set(message.columns) == {"probabilities"}


P16 = np.zeros(2).tobytes()
WRONG = {
    "one frame": ("frames", batch()[:1]),
    "many frames": ("frames", [*batch()[:2], *[b""] * 17]),
    "another protocol": ("version", [b"x" + TOPIC.encode(), *batch()[1:]]),
    "a topic without end": ("topic", [TOPIC.encode()[:-1], *batch()[1:]]),
    "a topic of bad UTF-8": ("topic", [b"z1/d0/%ff/2/pod-1/", *batch()[1:]]),
    "a topic spelled otherwise": ("topic", [b"z1/d0/%66raud/2/pod-1/", *batch()[1:]]),
    "a topic of another shard": ("topic", [b"z1/d1/fraud/2/pod-1/", *batch()[1:]]),
    "no agent": ("topic", [b"z1/d0/fraud/2//", *batch()[1:]]),
    "a long topic": ("topic", [b"z1/" + b"a" * 5000, *batch()[1:]]),
    "no msgpack": ("header", [batch()[0], b"\xc1", *batch()[2:]]),
    "bad UTF-8": ("header", [batch()[0], b"\x81\xa1\xff\x01", *batch()[2:]]),
    "deep": ("header", [batch()[0], b"\x91" * 5000, *batch()[2:]]),
    "a huge header": ("header", [batch()[0], msgpack.packb({"x": b"a" * 70_000}), *batch()[2:]]),
    "a list": ("header", [batch()[0], msgpack.packb([1]), *batch()[2:]]),
    "extra bytes": ("header", [batch()[0], batch()[1] + b"\x00", *batch()[2:]]),
    "a newer major": ("version", with_header(v=2)),
    "no version": ("version", with_header(v=...)),
    "another kind": ("kind", with_header(kind="novel")),
    "a short stream": ("header", with_header(stream=b"x")),
    "a schema as text": ("header", with_header(schema="text")),
    "rows 0": ("header", with_header(rows=0)),
    "rows beyond": ("header", with_header(rows=2**30)),
    "first 0": ("header", with_header(first=0, base=0)),
    "base beyond first": ("header", with_header(base=6)),
    "a negative number": ("header", with_header(first=-1)),
    "a huge number": ("header", with_header(first=2**63)),
    "a bool": ("header", with_header(rows=True)),
    "arrays missing": ("arrays", with_header(arrays=[])),
    "arrays as text": ("arrays", with_header(arrays="xy")),
    "an array twice": ("arrays", with_header(arrays=[["probabilities", "<f8", [2, 2]]] * 2)),
    "an object dtype": ("dtype", with_header(arrays=[["labels", "|O8", [2]], ["probabilities", "<f8", [2, 2]]])),
    "big endian": ("dtype", with_header(arrays=[["probabilities", ">f8", [2, 2]], ["labels", "<i8", [2]]])),
    "text as probabilities": ("dtype", with_header(arrays=[["probabilities", "|S8", [2, 2]], ["labels", "<i8", [2]]])),
    "a dtype of many fields": ("dtype", with_header(arrays=[["probabilities", "f8,f8", [2]], ["labels", "<i8", [2]]])),
    "shape beyond": ("shape", with_header(arrays=[["probabilities", "<f8", [2, 2**40]], ["labels", "<i8", [2]]])),
    "negative shape": ("shape", with_header(arrays=[["probabilities", "<f8", [-2, -2]], ["labels", "<i8", [2]]])),
    "three dimensions": ("shape", with_header(arrays=[["probabilities", "<f8", [2, 2, 1]], ["labels", "<i8", [2]]])),
    "other rows": ("shape", with_header(arrays=[["probabilities", "<f8", [4, 1]], ["labels", "<i8", [2]]])),
    "another length": ("length", with_header(arrays=[["probabilities", "<f8", [2, 1]], ["labels", "<i8", [2]]])),
    "a negative tally": ("tally", with_header(tally={"sampled_out": -1})),
    "a tally of text": ("tally", with_header(tally={"rejected": {"x": "many"}})),
    "a lost count of text": ("tally", with_header(tally={"lost": "many"})),
    "a degraded list": ("tally", with_header(tally={"degraded": [1]})),
    "degraded reasons without end": ("tally", with_header(tally={"degraded": {str(i): 1 for i in range(100)}})),
    "reasons without end": ("tally", with_header(tally={"rejected": {str(i): 1 for i in range(100)}})),
}


@pytest.mark.parametrize(("reason", "frames"), WRONG.values(), ids=WRONG.keys())
def test_wrong_messages_carry_their_reason(reason: str, frames: list[bytes]) -> None:
    with pytest.raises(WireError) as error:
        wire.decode(frames)
    assert error.value.reason == reason


SCHEMAS = {
    "task": {"task": "ranking"},
    "one class": {"classes": ["a"]},
    "a class twice": {"classes": ["a", "a"]},
    "an empty name": {"features": [""], "kinds": ["numeric"]},
    "kinds of another length": {"kinds": []},
    "an unknown kind": {"kinds": ["tensor"]},
    "threshold": {"threshold": 2},
    "tags": {"tags": {"a": 1}},
    "a long name": {"classes": ["a", "b" * 2000]},
}


@pytest.mark.parametrize("change", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_wrong_schemas_are_refused(change: dict[str, object]) -> None:
    body = msgpack.packb({**msgpack.unpackb(BODY), **change})
    with pytest.raises(WireError):
        wire.decode_schema(body, wire.schema_hash(body))


def test_a_schema_under_another_hash_is_refused() -> None:
    with pytest.raises(WireError):
        wire.decode_schema(BODY, b"12345678")


@settings(max_examples=400)
@given(st.data())
def test_mutated_messages_raise_nothing_else(data: st.DataObject) -> None:
    frames = list(data.draw(st.sampled_from([batch(), wire.encode_schema_message(TOPIC.encode(), STREAM, BODY)])))
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(frames) - 1))
        where = data.draw(st.integers(0, len(frames[i])))
        junk = data.draw(st.binary(max_size=6))
        frames[i] = frames[i][:where] + junk + frames[i][where + data.draw(st.integers(0, 8)) :]
    try:
        message = wire.decode(frames)
        if message.kind == "schema":
            wire.decode_schema(message.body, message.schema)
    except WireError as error:
        assert error.reason


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_any_bytes_raise_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.binary(max_size=20), st.lists).map(repr).map(str.encode)
)
def test_any_control_bytes_raise_nothing_else(frame: bytes) -> None:
    for read in (control.decode_greeting, control.decode_ack):
        with pytest.raises(WireError):
            read(frame)


greeting_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=20),
    st.text(max_size=10),
    st.dictionaries(st.text(), st.integers(-5, 5)),
)


@given(
    st.dictionaries(
        st.sampled_from(["kind", "topic", "stream", "base", "acked", "issued", "clock", "tally", "v", "row"]),
        greeting_values,
    )
)
def test_mutated_greetings_raise_nothing_else(changes: dict[str, object]) -> None:
    try:
        control.decode_greeting(greet(**changes))
    except WireError as error:
        assert error.reason


@given(
    st.dictionaries(
        st.sampled_from(["stream", "row", "window", "need", "store", "refused", "degraded"]),
        greeting_values | st.dictionaries(st.text(max_size=3), st.lists(st.integers() | st.text(max_size=3))),
    )
)
def test_mutated_answers_raise_nothing_else(changes: dict[str, object]) -> None:
    good = control.encode_ack(STREAM, 9, 65536, refused={"a": (1, "b")}, degraded={"a": (1, "b")})
    try:
        frame = msgpack.packb({**msgpack.unpackb(good), **changes})
    except OverflowError:
        return
    try:
        control.decode_ack(frame)
    except WireError as error:
        assert error.reason
