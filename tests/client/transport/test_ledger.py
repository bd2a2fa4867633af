"""Every row is in exactly one state, at any moment, whatever the engine is doing."""

from __future__ import annotations

import logging

import pytest

from zmon._transport.answers import Answers
from zmon._transport.conversion import Conversion, Loss
from zmon._transport.intake import REFUSED, Intake, Snapshot
from zmon._transport.ledger import DETAILS, Ledger, Stats
from zmon._transport.notices import MOST, RateLimit
from zmon._wire.control import Ack, decode_greeting, encode_greeting
from zmon._wire.frames import Topic
from zmon._wire.tally import REASONS


def stats(ledger: Ledger, **state: object) -> Stats:
    return ledger.stats(**{"connected": True, "failed": "", "after_close": 0, "ended": False, **state})  # type: ignore[arg-type]


def total(one: Stats) -> int:
    return (
        one.queued
        + one.underway
        + one.acknowledged
        + sum(one.dropped.values())
        + sum(one.rejected.values())
        + one.sampled_out
    )


def test_it_adds_up_between_any_two_steps_of_the_engine() -> None:
    intake = Intake(10_000)
    ledger = Ledger("m", intake)
    for rows in (10, 20, 30):
        intake.put(Snapshot("batch", None, 0, rows, 10))
    assert (total(stats(ledger)), stats(ledger).queued) == (60, 60)
    snapshots = intake.peek(2, 1000)
    assert total(stats(ledger)) == 60
    ledger.add(Conversion((), 3, [Loss("bad", 5, "why")]), 2, issued=22, labels=False)
    assert total(stats(ledger)) == 60, "entered, and still in the queue"
    intake.drop(snapshots)
    assert total(stats(ledger)) == 60
    ledger.move(delivered=0, underway=12, pushed_out=4)
    now = stats(ledger)
    assert (total(now), now.queued, now.underway, now.published) == (60, 36, 12, 52)
    ledger.move(delivered=15, underway=3, pushed_out=4)
    ledger.answer({"odd": 2}, {}, [("odd", 2, "column x")])
    now = stats(ledger)
    assert (total(now), now.acknowledged, dict(now.rejected)) == (60, 13, {"bad": 5, "odd": 2})
    now = stats(ledger, ended=True)
    assert (total(now), now.queued, dict(now.dropped)) == (60, 0, {"buffer_full": 4, "closed": 33})


def test_rows_that_one_of_two_collectors_refused_are_counted_once() -> None:
    ledger = Ledger("m", Intake(1000))
    ledger.add(Conversion(()), 1, issued=10, labels=False)
    ledger.move(delivered=0, underway=10, pushed_out=0)
    ledger.answer({"odd": 10}, {}, [("odd", 10, "")])
    now = stats(ledger)
    assert (total(now), now.underway, now.rejected["odd"]) == (10, 0, 10)
    ledger.move(delivered=10, underway=0, pushed_out=0)
    assert (total(stats(ledger)), stats(ledger).acknowledged) == (10, 0)


def test_refused_rows_that_another_collector_never_acknowledged_are_counted_once() -> None:
    ledger = Ledger("m", Intake(1000))
    ledger.add(Conversion(()), 1, issued=100, labels=False)
    ledger.answer({"odd": 30}, {}, [("odd", 30, "")])
    ledger.move(delivered=0, underway=20, pushed_out=60)
    now = stats(ledger)
    assert (total(now), now.queued, now.underway, dict(now.dropped)) == (100, 10, 0, {"buffer_full": 60})
    ledger.move(delivered=0, underway=5, pushed_out=90)
    now = stats(ledger)
    assert (total(now), now.queued, now.underway, dict(now.dropped)) == (100, 0, 0, {"buffer_full": 70})
    now = stats(ledger, ended=True)
    assert (total(now), now.queued, dict(now.rejected)) == (100, 0, {"odd": 30})


def test_what_is_left_at_the_end_is_closed() -> None:
    """Also where the engine never came to enter it."""
    intake = Intake(1000)
    ledger = Ledger("m", intake)
    ledger.add(Conversion(()), 1, issued=10, labels=False)
    ledger.move(delivered=2, underway=3, pushed_out=0)
    intake.put(Snapshot("batch", None, 0, 5, 10))
    now = stats(ledger, ended=True, after_close=4)
    assert (total(now), now.queued, now.underway, dict(now.dropped)) == (19, 0, 0, {"closed": 17})
    ledger.answer({"odd": 6}, {}, [("odd", 6, "")])
    now = stats(ledger, ended=True)
    assert (total(now), now.queued, dict(now.dropped)) == (15, 0, {"closed": 9})


def test_rows_that_were_never_converted_are_closed_and_told_as_lost() -> None:
    intake = Intake(1000)
    ledger = Ledger("m", intake)
    for kind in ("batch", "labels"):
        intake.put(Snapshot(kind, None, 0, 5, 10))
    for ordinal, kind in enumerate(("batch", "labels"), start=1):
        snapshots = intake.peek(1, 1000)
        ledger.abandon(5, ordinal, labels=kind == "labels")
        assert total(stats(ledger)) == 10, "entered, and still in the queue"
        intake.drop(snapshots)
    now = stats(ledger)
    assert (total(now), now.published, now.labels, dict(now.dropped)) == (10, 10, 5, {"closed": 10})
    assert ledger.tally() == {"lost": 10}


def test_rows_that_an_adapter_refused_are_rejected_at_once_and_never_published() -> None:
    intake = Intake(1000)
    ledger = Ledger("m", intake)
    intake.put(Snapshot(REFUSED, Loss("multi_output", 4, "two"), 0, 4, 0))
    now = stats(ledger)
    assert (now.published, now.queued, dict(now.rejected), total(now)) == (0, 0, {"multi_output": 4}, 4)


def test_the_tally_names_what_never_arrives_whole_and_not_what_collectors_said() -> None:
    intake = Intake(100)
    ledger = Ledger("m", intake)
    assert ledger.tally() == {}
    intake.put(Snapshot("batch", None, 0, 9, 1000))
    ledger.add(Conversion((), 1, [Loss("a", 2, "x")], [Loss("b", 3, "y")]), 1, issued=5, labels=False)
    ledger.answer({"c": 4}, {"d": 5}, [])
    assert ledger.tally() == {"sampled_out": 1, "rejected": {"a": 2}, "degraded": {"b": 3}, "lost": 9}
    assert ledger.details == {"a": "x", "b": "y"}
    assert dict(stats(ledger).degraded) == {"b": 3, "d": 5}


def test_reasons_are_bounded_and_each_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger("m", Intake(100))
    with caplog.at_level(logging.WARNING, logger="zmon"):
        for number in range(3 * REASONS):
            losses = [Loss(f"reason_{number}", 1, ""), Loss("often", 1, "")]
            ledger.add(Conversion((), 0, losses), number, issued=0, labels=False)
    rejected = stats(ledger).rejected
    assert len(rejected) <= REASONS
    assert sum(rejected.values()) == 6 * REASONS
    assert sum("(often)" in each.getMessage() for each in caplog.records) == 1


def test_details_can_be_sent_whatever_they_quote(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger("m", Intake(100))
    odd = "label 'caf\ud800\x1b[31m\n' " + "é" * 5000
    for number in range(3 * REASONS):
        losses = [Loss(f"rejected_{number}", 1, odd)], [Loss(f"degraded_{number}", 1, odd)]
        ledger.add(Conversion((), 0, *losses), number, issued=0, labels=False)
    tally = {**ledger.tally(), "details": ledger.details}
    position = {"base": 1, "acked": 0, "issued": 0, "clock": 0}
    topic = Topic("m", "", "a").encode()
    greeting = decode_greeting(encode_greeting("hello", topic=topic, stream=b"s" * 16, **position, tally=tally))
    assert greeting.details == ledger.details
    assert len(ledger.details) == DETAILS
    assert all(len(detail) == 200 for detail in ledger.details.values())
    assert not any("\x1b" in each.getMessage() or "\ud800" in each.getMessage() for each in caplog.records)


def ack(**refused: int) -> Ack:
    return Ack(b"s" * 16, 0, 0, b"", refused={reason: (rows, "d") for reason, rows in refused.items()})


def test_rows_that_one_collector_refused_and_the_other_never_took_are_counted_once() -> None:
    ledger = Ledger("m", Intake(1000))
    ledger.add(Conversion(()), 1, issued=10, labels=False)
    ledger.answer({"odd": 10}, {}, [("odd", 10, "")])
    for pushed_out in (0, 6, 10):
        ledger.move(delivered=0, underway=0, pushed_out=pushed_out)
        now = stats(ledger)
        assert total(now) == 10
        assert (now.queued, now.underway, now.acknowledged) == (0, 0, 0)
        assert dict(now.rejected) == {"odd": 10}


def test_no_collector_refuses_or_degrades_more_rows_than_there_are() -> None:
    ledger = Ledger("m", Intake(1000))
    ledger.add(Conversion((), 0, [], [Loss("here", 2, "")]), 1, issued=10, labels=False)
    ledger.answer({"a": 7, "b": 2**53, "c": 2**53}, {"a": 2**53, "here": 2**53}, [])
    now = stats(ledger)
    assert (total(now), dict(now.rejected)) == (10, {"a": 7, "b": 3})
    assert dict(now.degraded) == {"here": 12, "a": 10}


def test_a_collector_has_a_bounded_number_of_reasons() -> None:
    answers = Answers()
    for number in range(3 * REASONS):
        answers.add(ack(**{f"reason_{number}": 1, "first\x1b": 1}))
    assert len(answers.refused) == REASONS
    assert answers.refused["first�"] == 1


def test_lines_are_bounded_whatever_their_kinds() -> None:
    limit = RateLimit()
    assert sum(limit.allows(str(number % 1000)) for number in range(5000)) == MOST


def test_answers_are_cumulative_and_a_new_store_begins_at_zero() -> None:
    answers = Answers()
    assert answers.add(ack(a=3)) == [("a", 3, "d")]
    assert answers.add(ack(a=3)) == []
    assert answers.add(ack(a=5, b=1)) == [("a", 2, "d"), ("b", 1, "d")]
    assert answers.add(ack(a=2)) == [("a", 2, "d")], "the collector has lost its store"
    assert answers.refused == {"a": 7, "b": 1}
