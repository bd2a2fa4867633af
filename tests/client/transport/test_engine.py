"""One supervised thread serves all publishers: faults cost a piece or a pause, and no publisher starves another."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.waiting import settled, until
from zmon._capture.assembler import Assembler
from zmon._transport import headroom
from zmon._transport.delivery import Delivery
from zmon._transport.engine import Engine
from zmon._transport.stream import Stream

NOWHERE = "ipc:///nonexistent/zmon"


def test_a_piece_that_cannot_be_converted_costs_its_rows_only(
    collect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    convert = Assembler.convert
    faults = []

    def faulty(self: Assembler, snapshots: Any) -> Any:
        if any(snapshot.rows == 13 for snapshot in snapshots):
            faults.append(len(snapshots))
            raise ArithmeticError("thirteen")
        return convert(self, snapshots)

    monkeypatch.setattr(Assembler, "convert", faulty)
    with collect().publisher("m", classes=2) as publisher:
        for rows in (2, 13, 3, 13, 4):
            publisher.publish(np.full((rows, 2), 0.5))
        assert publisher.flush(60)
        stats = publisher.stats
    assert faults
    assert (stats.acknowledged, dict(stats.rejected)) == (9, {"internal": 26})
    assert caplog.text.count("Traceback") == 1, "one trace for the first of them"


class Ending(str):
    """A value whose method raises what would end a thread."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise SystemExit


def test_a_value_that_would_end_the_thread_costs_its_rows_only(collect: Any) -> None:
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((2, 2), 0.5), [{"word": Ending("x")}, {"word": "y"}])
        publisher.publish(np.full((3, 2), 0.5), [{"word": "a"}] * 3)
        assert publisher.flush(60)
        stats = publisher.stats
    assert stats.acknowledged >= 3
    assert stats.acknowledged + sum(stats.rejected.values()) == 5


def test_a_detail_that_quotes_an_odd_value_does_not_stop_the_greetings(collect: Any) -> None:
    with collect().publisher("m", classes=["a", "b"]) as publisher:
        publisher.publish(np.full((2, 2), 0.5), labels=["caf\ud800", "a"])
        publisher.reject("odd", "a value of an adapter: \udfff\x1b", 3)
        assert publisher.flush(60), "the first greeting holds the details"
        assert publisher.stats.acknowledged == 2


def test_an_encoding_that_fails_drops_its_rows_and_the_stream_goes_on(
    collect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = Delivery._frames
    monkeypatch.setattr(Delivery, "_frames", lambda self, entry: 1 / 0 if entry.first == 1 else frames(self, entry))
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((590, 2), 0.5))
        until(lambda: publisher.stats.dropped)
        publisher.publish(np.full((610, 2), 0.5))
        until(lambda: publisher.stats.acknowledged == 610)
        assert dict(publisher.stats.dropped) == {"buffer_full": 590}


def test_a_thread_that_fails_starts_again(
    collect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop, faults = Engine._loop, []

    def faulty(self: Engine, *arguments: Any) -> None:
        if len(faults) < 3:
            faults.append(self.failed)
            raise MemoryError("none left")
        loop(self, *arguments)

    until(lambda: not gc.collect() and zmon.Publisher("q", classes=2).stats.failed == "")
    monkeypatch.setattr(Engine, "_loop", faulty)
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        until(lambda: publisher.stats.failed, what="the failure to be said")
        assert publisher.flush(60)
        assert publisher.stats.failed == ""
    assert len(faults) == 3
    assert caplog.text.count("Traceback") == 1


def test_a_stream_that_fails_pauses_and_the_others_do_not_notice(
    collect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, faults = Stream.step, []

    def faulty(self: Stream, *arguments: Any) -> int:
        if self.target.topic.model == "bad" and len(faults) < 5:
            faults.append(1)
            raise KeyError("nobody foresaw this")
        return step(self, *arguments)

    monkeypatch.setattr(Stream, "step", faulty)
    collector = collect()
    with collector.publisher("bad", classes=2) as bad, collector.publisher("good", classes=2) as good:
        bad.publish(np.full((2, 2), 0.5))
        good.publish(np.full((3, 2), 0.5))
        assert good.flush(60)
        assert bad.flush(60)
    assert len(faults) == 5
    assert caplog.text.count("Traceback") == 1


def test_without_descriptors_rows_are_kept_and_go_out_later(
    collect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = "14 file descriptors are needed: Too many open files"
    with collect().publisher("m", classes=2) as publisher, monkeypatch.context() as patched:
        patched.setattr(headroom, "lacking", lambda *_: lacking)
        publisher.publish(np.full((4, 2), 0.5))
        until(lambda: publisher.stats.failed)
        assert publisher.stats.failed == lacking
        assert not publisher.flush(0.1)
        patched.undo()
        assert publisher.flush(60)
        assert publisher.stats.failed == ""
    assert caplog.text.count(lacking) == 1


def test_what_libzmq_needs_is_looked_for_by_taking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert headroom.lacking(headroom.CONTEXT, headroom.CONTEXT_THREADS) == ""
    assert "descriptors" in headroom.lacking(10**6)

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(headroom.threads, "start", refused)
    assert "threads" in headroom.lacking(1, 2)


def test_a_publisher_ends_with_its_last_reference_and_delivers(collect: Any) -> None:
    collector = collect()
    publisher = collector.publisher("m", classes=2)
    publisher.publish(np.full((7, 2), 0.5))
    del publisher
    until(lambda: collector.service.telemetry.get("rows") == 7, what="the rows")
    until(lambda: not collector.service.telemetry.get("lost"))


def test_what_was_rejected_is_told_before_the_end(collect: Any) -> None:
    """A short job all of whose rows were bad: there is nothing to deliver but the news."""
    collector = collect()
    publisher = collector.publisher("m", classes=2)
    publisher.publish(np.full((40, 2), np.nan))
    publisher.close()
    assert dict(publisher.stats.rejected) == {"probabilities_nan": 40}
    until(lambda: collector.service.telemetry.get("rejected", "probabilities_nan") == 40, what="the collector to know")


def test_a_second_publisher_of_the_same_model_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    held = [zmon.Publisher("twin", classes=2, collector=NOWHERE) for _ in range(60)]
    assert caplog.text.count("another publisher of model 'twin'") == 1
    zmon.Publisher("twin", version="2", classes=2, collector=NOWHERE)
    assert caplog.text.count("another publisher") == 1, "another version is another model"
    for each in held:
        each.close()


def test_slow_conversions_keep_no_other_publisher_waiting(collect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = Assembler.convert

    def slow(self: Assembler, snapshots: Any) -> Any:
        if snapshots[0].rows == 3:
            time.sleep(0.005 * len(snapshots))
        return convert(self, snapshots)

    monkeypatch.setattr(Assembler, "convert", slow)
    collector, done = collect(), threading.Event()
    busy, other = collector.publisher("busy", classes=2), collector.publisher("other", classes=2)

    def flood() -> None:
        while not done.wait(0.002):
            busy.publish(np.full((3, 2), 0.5))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        until(lambda: busy.stats.connected and busy.stats.acknowledged, what="the busy one to get through")
        other.publish(np.full((1, 2), 0.5))
        assert other.flush(60)
        assert busy.stats.queued, "its queue has never been empty"
    finally:
        done.set()
        thread.join()
        busy.close(0)
        other.close()


@pytest.mark.parametrize("rows", [32, 200])
def test_a_small_ring_stays_full(rows: int) -> None:
    """A ring drops whole messages, so none may be a large part of it, however many calls are converted together."""
    limit = 256 * 2**10
    with zmon.Publisher("m", classes=10, collector=NOWHERE, buffer_bytes=limit) as publisher:
        p = np.full((rows, 10), 0.1)
        while not publisher.stats.dropped.get("buffer_full"):
            publisher.publish(p)
        for _ in range(20):
            publisher.publish(p)
            assert settled(publisher).queued_bytes > limit / 2
        publisher.close(0)


def test_many_publishers_share_one_thread_and_close_within_one_deadline(caplog: pytest.LogCaptureFixture) -> None:
    held = [zmon.Publisher(f"m{i}", classes=2, collector=NOWHERE) for i in range(8)]
    with caplog.at_level(logging.WARNING):
        for each in held:
            each.publish(np.full((1, 2), 0.5))
            settled(each)
    for each in held:
        each.close()
    assert [dict(each.stats.dropped) for each in held] == [{"closed": 1}] * 8
