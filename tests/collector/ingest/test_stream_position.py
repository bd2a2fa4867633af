"""Positions of streams: duplicates dropped, loss exact. Against a model that keeps every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.ingest.stream_position import StreamPosition, first_contact

from zmon._transport.conversion import Conversion, Loss
from zmon._transport.intake import Intake
from zmon._transport.ledger import Ledger
from zmon._wire.control import Greeting
from zmon._wire.frames import Message, Topic, pack

TOPIC = Topic("m", "", "a")


def message(first: int, rows: int, base: int) -> Message:
    return Message(TOPIC, "batch", b"s" * 16, b"h" * 8, first, rows, base)


def greeting(acked: int, issued: int, base: int = 1, store: bytes = b"") -> Greeting:
    tally = {"sampled_out": 3, "rejected": {"x": 2}}
    return Greeting("hello", TOPIC, b"s" * 16, base, acked, issued, 0, tally, store)


def test_in_order() -> None:
    stream = StreamPosition(0)
    assert stream.accept(message(1, 5, 1)) == (0, 0)
    assert stream.accept(message(6, 5, 1)) == (0, 0)
    assert stream.row == 10


def test_a_duplicate_and_an_overlap_give_only_what_is_new() -> None:
    stream = StreamPosition(10)
    assert stream.accept(message(6, 5, 1)) == (5, 0)
    assert stream.accept(message(6, 9, 1)) == (5, 0)
    assert stream.row == 14


def test_rows_after_a_gap_wait_for_those_that_are_still_held() -> None:
    stream = StreamPosition(10)
    assert stream.accept(message(21, 5, 11)) == (5, 0)
    assert stream.row == 10


def test_rows_below_the_base_are_lost_exactly() -> None:
    stream = StreamPosition(10)
    assert stream.accept(message(21, 5, 21)) == (0, 10)
    assert stream.row == 25
    assert stream.write_off(40) == 15
    assert stream.write_off(30) == 0


def test_a_fresh_collector_does_not_count_history_as_lost() -> None:
    stream = first_contact(greeting(acked=100, issued=150), b"mine")
    assert stream.row == 100
    assert stream.update_tally({"sampled_out": 3, "rejected": {"x": 2}}) == []
    assert stream.update_tally({"sampled_out": 5, "rejected": {"x": 2, "y": 1}}) == [
        ("sampled_out", "", 2),
        ("rejected", "y", 1),
    ]


def test_a_new_stream_tells_all_it_has_counted() -> None:
    stream = first_contact(greeting(acked=0, issued=5), b"mine")
    tally = {"sampled_out": 3, "rejected": {"x": 2}}
    assert stream.update_tally(tally) == [("sampled_out", "", 3), ("rejected", "x", 2)]
    assert stream.update_tally(dict(tally)) == []


def test_a_tally_that_a_greeting_has_overtaken_is_not_counted_again() -> None:
    """Greetings and batches travel on two sockets: one that is behind must not lower what is known."""
    stream = first_contact(greeting(acked=0, issued=5), b"mine")
    newer = {"lost": 9, "sampled_out": 4, "rejected": {"x": 2, "y": 3}, "degraded": {"z": 1}}
    assert len(stream.update_tally(newer)) == 5
    assert stream.update_tally({"lost": 5, "sampled_out": 1, "rejected": {"x": 1}}) == []
    assert stream.update_tally(newer) == []
    assert stream.update_tally({**newer, "lost": 10}) == [("lost", "", 1)]


def test_reasons_that_change_without_end_are_bounded() -> None:
    stream = first_contact(greeting(acked=0, issued=5), b"mine")
    for number in range(100):
        stream.update_tally({"rejected": {f"reason_{number}_{i}": 1 for i in range(64)}})
    assert 0 < len(stream.tally["rejected"]) <= 64


@settings(max_examples=300)
@given(st.data())
def test_every_row_is_taken_once_or_lost_once(data: st.DataObject) -> None:
    """A publisher with a ring that overflows, a network that repeats and loses, and going back in between."""
    stream = StreamPosition(0)
    cuts = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    messages, first = [], 1
    for rows in cuts:
        messages.append((first, rows))
        first += rows
    issued = first - 1
    taken: list[int] = []
    lost = 0
    base = 1
    for _ in range(data.draw(st.integers(0, 30))):
        if data.draw(st.booleans()) and base <= issued:  # the ring pushes its oldest message out
            base = next(start + rows for start, rows in messages if start + rows > base)
        held = [(start, rows) for start, rows in messages if start >= base]
        if not held:
            break
        start, rows = data.draw(st.sampled_from(held))
        skip, gone = stream.accept(message(start, rows, base))
        taken += range(start + skip, start + rows)
        lost += gone
    for start, rows in messages:  # in the end it goes back and everything held arrives
        if start >= base:
            skip, gone = stream.accept(message(start, rows, base))
            taken += range(start + skip, start + rows)
            lost += gone
    lost += stream.write_off(issued)
    assert taken == sorted(set(taken))
    assert len(taken) + lost == issued


KINDS = [("sampled_out", ""), ("lost", ""), ("rejected", "x"), ("rejected", "y"), ("degraded", "x")]


def tally_of(counts: Counter[tuple[str, str]]) -> dict[str, Any]:
    tally: dict[str, Any] = {}
    for (kind, reason), rows in counts.items():
        if reason:
            tally.setdefault(kind, {})[reason] = rows
        else:
            tally[kind] = rows
    return tally


@settings(max_examples=200)
@given(st.data())
def test_tallies_in_any_order_add_up_to_the_last_over_restarts_and_moves(data: st.DataObject) -> None:
    """Batches and greetings race, some are lost or come twice; a restart goes on from the journal, a move elsewhere."""
    told: Counter[tuple[str, str]] = Counter()
    sent = [tally_of(told)]
    stream, elsewhere, counted = StreamPosition(0), StreamPosition(0), Counter[tuple[str, str]]()
    for step in data.draw(st.lists(st.sampled_from(["count", "hear", "restart", "move"]), max_size=30)):
        if step == "count":
            told[data.draw(st.sampled_from(KINDS))] += data.draw(st.integers(1, 5))
            sent.append(tally_of(told))
        elif step == "hear":
            for kind, reason, rows in stream.update_tally(data.draw(st.sampled_from(sent))):
                counted[kind, reason] += rows
        elif step == "restart":
            kept = msgpack.unpackb(pack(stream.tally))
            stream = StreamPosition(stream.row)
            stream.tally = kept
        else:
            hello = Greeting("hello", TOPIC, b"s" * 16, 1, 0, 0, 0, sent[-1], counted=dict(stream.tally))
            stream, elsewhere = elsewhere, stream
            stream.hand_over(hello, b"mine")
    for kind, reason, rows in stream.update_tally(sent[-1]):
        counted[kind, reason] += rows
    assert counted == told


def test_a_publisher_of_more_reasons_than_a_tally_holds_is_counted_once() -> None:
    ledger, stream, counted, sent = Ledger("m", Intake(10**6)), StreamPosition(0), 0, []
    for number in range(100):
        ledger.add(Conversion((), 0, [Loss(f"reason_{number}", 2, "")]), 0, issued=0, labels=False)
        sent.append(ledger.tally())
        counted += sum(rows for *_, rows in stream.update_tally(sent[-1]))
        counted += sum(rows for *_, rows in stream.update_tally(sent[number // 2]))
    assert counted == 200


def test_a_stream_that_comes_back_begins_after_what_others_settled() -> None:
    stream = first_contact(greeting(acked=10, issued=10), b"mine")
    back = replace(greeting(acked=90, issued=95, base=91, store=b""), counted={"sampled_out": 7, "rejected": {"x": 1}})
    assert stream.hand_over(back, b"mine")
    assert not stream.hand_over(back, b"mine")
    assert (stream.row, stream.write_off(back.base - 1)) == (90, 0)
    assert stream.update_tally({"sampled_out": 8, "rejected": {"x": 2}}) == [("sampled_out", "", 1)]


def test_what_this_store_acknowledged_beyond_its_knowledge_is_lost() -> None:
    """As after a restore from a backup; and a publisher of release 0.1 says nothing of others."""
    for counted, store in (({}, b"mine"), (None, b"")):
        stream = first_contact(greeting(acked=10, issued=10), b"mine")
        back = replace(greeting(acked=90, issued=95, base=91, store=store), counted=counted)
        assert not stream.hand_over(back, b"mine")
        assert stream.write_off(back.base - 1) == 80


def test_what_this_store_had_acknowledged_and_lost_is_counted() -> None:
    stream = first_contact(greeting(acked=100, issued=150, store=b"mine"), b"mine")
    assert stream.row == 0
    assert stream.write_off(greeting(acked=100, issued=150, base=101).base - 1) == 100
