"""A publisher's thread sleeps while nothing is published, and is woken by the first batch after that."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import until
from zmon._transport import sender
from zmon._transport.wakeup import Wakeup


def rung(alarm: Wakeup) -> bool:
    return bool(select.select([alarm.fileno()], [], [], 0)[0])


def test_it_rings_once_for_each_time_it_was_set() -> None:
    alarm = Wakeup()
    alarm.ring()
    assert not rung(alarm), "nobody sleeps"
    alarm.set()
    alarm.ring()
    alarm.ring()
    assert len(os.read(alarm.fileno(), 10)) == 1
    alarm.set()
    alarm.ring()
    alarm.clear(rung(alarm))
    assert not rung(alarm)
    alarm.wake()
    assert rung(alarm), "set or not"
    alarm.set()
    alarm.close()
    alarm.ring()  # and no file that has the pipe's number by now gets a byte


def test_a_sleeping_publisher_sends_at_once_and_costs_next_to_nothing(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sender, "SLEEP", 20.0)
    with collect().publisher("m", classes=2) as publisher:
        for _ in range(3):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(5), "the thread sleeps, and nobody woke it"
            until(lambda: asleep(publisher), 5, "the thread to sleep")
        started = time.monotonic()
    assert time.monotonic() - started < 2, "close() waits for a thread that sleeps"


def test_who_flushes_does_not_wait_for_the_next_look(collect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sender, "BUSY_POLL", 5.0)
    monkeypatch.setattr(sender, "BUSY_FOR", 60.0)
    with collect().publisher("m", classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        until(lambda: publisher.stats.connected, 5, "the collector")
        started = time.monotonic()
        for _ in range(5):
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(20)
        assert time.monotonic() - started < 4, "it naps while somebody waits"


def asleep(publisher: Any) -> bool:
    alarm = publisher._transport._alarm
    return alarm is not None and alarm._set


def test_a_closed_publisher_leaves_no_pipe_behind(collect: Any) -> None:
    collector = collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with collector.publisher("m", classes=2) as publisher:
            publisher.publish(np.full((4, 2), 0.5))
            assert publisher.flush(5)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 8, 10, "the files to be closed")
