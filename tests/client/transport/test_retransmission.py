"""When rows are sent again: after what a collector takes to acknowledge, and only if it says something meanwhile."""

from __future__ import annotations

from collections import deque

import pytest

from zmon._transport.retransmission import FIRST, LONGEST, Retransmission
from zmon._transport.ring import MERGE_ROWS, Cursor, Ring, RingLayout, RingPiece

STEP = 0.05  # seconds


def test_a_collector_that_says_nothing_is_sent_nothing_again() -> None:
    timer = Retransmission()
    timer.begin()
    assert not timer.is_due(1e6)
    timer.hear(1e6)
    timer.hear(1e6 + FIRST)
    assert not timer.is_due(1e6 + FIRST)
    assert timer.is_due(1e6 + FIRST + 0.1)


def test_the_wait_doubles_until_rows_that_were_sent_once_are_acknowledged() -> None:
    timer, waits = Retransmission(), []
    for _ in range(7):
        waits.append(timer.wait)
        timer.repeat()
    assert waits == [1, 2, 4, 8, 16, 30, 30] and LONGEST == 30
    timer.advance(None)
    assert timer.wait == LONGEST
    timer.advance(0.01)
    assert timer.wait == FIRST


def test_the_wait_follows_the_latency_and_becomes_short_again() -> None:
    timer = Retransmission()
    timer.advance(4.0)
    assert timer.wait == 8.0
    for _ in range(30):
        timer.advance(0.01)
    assert timer.wait == FIRST


def test_only_rows_that_were_sent_once_tell_a_latency() -> None:
    ring, cursor = Ring(2**20), Cursor()
    for _ in range(2):
        ring.append(RingLayout(b"schema", ()), RingPiece(MERGE_ROWS, 0, [b"x"]), 1)
    cursor.acknowledge(0, 10**6)

    def send(now: float) -> None:
        entry = cursor.peek(ring)
        assert entry is not None
        cursor.sent(entry, now)

    send(1.0)
    send(2.0)
    assert cursor.acknowledge(MERGE_ROWS, 10**6, 5.0)
    assert cursor.latency == 4.0
    cursor.rewind(ring)
    send(6.0)
    assert cursor.acknowledge(2 * MERGE_ROWS, 10**6, 7.0)
    assert cursor.latency is None


@pytest.mark.parametrize("pause", [0.0, 12.0])
def test_a_collector_that_is_slower_than_its_publishers_is_not_sent_everything_many_times(pause: float) -> None:
    """Many publishers, one queue that is worked off late: what is sent again must not outgrow what is new."""
    publishers, rate = 50, 20  # messages a second
    timers = [Retransmission() for _ in range(publishers)]
    sent: list[float | None] = [0.0] * publishers  # when the message under way was sent; None if more than once
    numbers = [0] * publishers  # of that message
    queue = deque((who, 0) for who in range(publishers))
    handled, budget = 0, 0.0
    for step in range(int(120 / STEP)):
        now = step * STEP
        for who, timer in enumerate(timers):
            if timer.is_due(now):
                timer.repeat()
                sent[who] = None
                queue.append((who, numbers[who]))
        budget = min(budget + rate * STEP, 1.0) if now >= pause else 0.0
        while budget >= 1 and queue:
            budget -= 1
            handled += 1
            who, number = queue.popleft()
            at = sent[who]
            timers[who].hear(now)
            if number == numbers[who]:
                timers[who].advance(None if at is None else now - at)
                timers[who].begin()
                sent[who], numbers[who] = now, number + 1
                queue.append((who, number + 1))
    assert sum(numbers) > 0.9 * handled > 100
