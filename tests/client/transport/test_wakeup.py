"""A publisher's thread sleeps while nothing is published, and is woken by the first batch after that."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.waiting import until
from zmon._transport import sender
from zmon._transport.wakeup import Wakeup


def triggered(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_it_wakes_once_for_each_time_it_was_armed() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    assert not triggered(wakeup), "nobody sleeps"
    wakeup.arm()
    wakeup.wake()
    wakeup.wake()
    assert len(os.read(wakeup.fileno(), 10)) == 1
    wakeup.arm()
    wakeup.wake()
    wakeup.clear(triggered(wakeup))
    assert not triggered(wakeup)
    wakeup.interrupt()
    assert triggered(wakeup), "armed or not"
    wakeup.arm()
    wakeup.close()
    wakeup.wake()  # and no file that has the pipe's number by now gets a byte


def test_a_sleeping_publisher_sends_at_once_and_costs_next_to_nothing(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sender, "SLEEP", 20.0)
    with collect().publisher("m", classes=2) as publisher:
        for _ in range(3):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60), "the thread sleeps, and nobody woke it"
            until(lambda: asleep(publisher), what="the thread to sleep")
        started = time.monotonic()
    assert time.monotonic() - started < 2, "close() waits for a thread that sleeps"


def test_who_flushes_does_not_wait_for_the_next_look(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sender, "BUSY_POLL", 5.0)
    monkeypatch.setattr(sender, "BUSY_FOR", 60.0)
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        until(lambda: publisher.stats.connected, what="the collector")
        started = time.monotonic()
        for _ in range(5):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60)
        assert time.monotonic() - started < 4, "it naps while somebody waits"


def asleep(publisher: Any) -> bool:
    sender_of = publisher._sender
    return sender_of is not None and sender_of.asleep


def test_a_closed_publisher_leaves_no_pipe_behind(collect: Any) -> None:
    collector = collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with collector.publisher("m", classes=2) as publisher:
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(60)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 8, what="the files to be closed")
