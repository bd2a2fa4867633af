"""The engine's thread sleeps while nothing is published, and is woken by the first batch after that."""

from __future__ import annotations

import select
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.waiting import until
from zmon._transport import engine
from zmon._transport.engine import ENGINE
from zmon._transport.ledger import Ledger
from zmon._transport.wakeup import Wakeup


def triggered(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_it_wakes_and_is_cleared() -> None:
    wakeup = Wakeup()
    assert not triggered(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert triggered(wakeup)
    wakeup.clear()
    assert not triggered(wakeup)
    wakeup.close()


def test_a_full_pipe_does_not_stop_a_caller() -> None:
    wakeup = Wakeup()
    for _ in range(100_000):
        wakeup.wake()
    while triggered(wakeup):
        wakeup.clear()
    wakeup.close()


def test_a_sleeping_engine_sends_at_once_and_costs_next_to_nothing(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "SLEEP", 20.0)
    with collect().publisher("m", classes=2) as publisher:
        for _ in range(3):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60), "the thread sleeps, and nobody woke it"
            until(lambda: not ENGINE.awake, what="the thread to sleep")
        started = time.monotonic()
    assert time.monotonic() - started < 2, "close() waits for a thread that sleeps"


def test_who_flushes_does_not_wait_for_the_next_look(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "BUSY_POLL", 5.0)
    monkeypatch.setattr(engine, "BUSY_FOR", 60.0)
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        until(lambda: publisher.stats.connected, what="the collector")
        started = time.monotonic()
        for _ in range(5):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60)
        assert time.monotonic() - started < 4, "it naps while somebody waits"


def test_counters_are_up_to_date_when_flush_returns(collect: Any, monkeypatch: Any) -> None:
    move = Ledger.move

    def slow(ledger: Ledger, **positions: int) -> None:
        time.sleep(0.05)  # longer than who waits takes to look again
        move(ledger, **positions)

    monkeypatch.setattr(Ledger, "move", slow)
    with collect().publisher("m", classes=2) as publisher:
        for batch in range(1, 4):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60)
            stats = publisher.stats
            assert (stats.acknowledged, stats.queued, stats.queued_bytes) == (4 * batch, 0, 0)


def test_a_closed_publisher_leaves_no_descriptor_behind(collect: Any) -> None:
    collector = collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with collector.publisher("m", classes=2) as publisher:
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 8, what="the files to be closed")
