"""What flush() says about rows that were dropped: each loss is reported once, to every call that was waiting then."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import zmon
from tests.support.peer import Peer
from tests.support.waiting import settled, stream_of, until
from zmon._transport import threads
from zmon._transport.engine import Engine
from zmon._transport.intake import MARKS
from zmon._transport.ring import Ring, RingLayout, RingPiece
from zmon._transport.stream import Mark

MANY = np.full((600, 2), 0.5)
TOO_LARGE = np.full((20_000, 2), 0.5)  # finds no room


@pytest.fixture
def publisher(peer: Peer) -> Iterator[zmon.Publisher]:
    with zmon.Publisher("m", classes=2, collector=peer.endpoint, agent_id="a", buffer_bytes=65_536) as one:
        yield one
        one.close(timeout=0)


def connect(peer: Peer, publisher: zmon.Publisher) -> bytes:
    """Let the publisher say hello, acknowledge its first row, and return the name of its stream."""
    publisher.publish(MANY[:1])
    stream = peer.greeting("hello").stream
    peer.ack(stream, 1)
    until(lambda: publisher.stats.acknowledged == 1, what="the acknowledgement")
    return stream


def overflow(publisher: zmon.Publisher) -> int:
    """Publish until the ring has dropped rows; return how many rows have a number."""
    while not publisher.stats.dropped:
        publisher.publish(MANY)
        settled(publisher)
    return stream_of(publisher)._ring.issued


def waiting(publisher: zmon.Publisher, calls: int) -> None:
    until(lambda: len(stream_of(publisher)._marks) == calls, what="calls of flush")


def test_each_of_several_threads_hears_of_a_loss(peer: Peer, publisher: zmon.Publisher) -> None:
    stream = connect(peer, publisher)
    issued = overflow(publisher)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(publisher.flush, 60) for _ in range(4)]
        waiting(publisher, 4)
        peer.ack(stream, issued)
        assert [call.result() for call in calls] == [False] * 4
    assert publisher.flush(60), "the loss was reported"
    publisher.publish(MANY)
    peer.ack(stream, issued + 600)
    assert publisher.flush(60), "and everything since has arrived"


@pytest.mark.parametrize("timeout", [0, 0.05, -1])
def test_a_call_whose_time_is_over_reports_nothing(timeout: float, peer: Peer, publisher: zmon.Publisher) -> None:
    stream = connect(peer, publisher)
    issued = overflow(publisher)
    assert not publisher.flush(timeout)
    peer.ack(stream, issued)
    until(lambda: not publisher.stats.queued + publisher.stats.underway, what="the acknowledgement")
    assert not publisher.flush(60), "it is the first that came to its end"
    assert publisher.flush(60)


def test_a_second_loss_is_reported_as_well(peer: Peer, publisher: zmon.Publisher) -> None:
    stream = connect(peer, publisher)
    for _ in range(2):
        publisher.publish(TOO_LARGE)
        assert not publisher.flush(60)
        assert publisher.flush(60)
    publisher.publish(MANY)
    publisher.publish(TOO_LARGE)
    peer.ack(stream, 601)
    assert not publisher.flush(60)
    assert publisher.flush(60)


def test_rows_that_come_later_are_the_next_calls_concern(peer: Peer, publisher: zmon.Publisher) -> None:
    stream = connect(peer, publisher)
    publisher.publish(MANY)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(publisher.flush, 60)
        waiting(publisher, 1)
        publisher.publish(TOO_LARGE)
        assert publisher.stats.dropped
        peer.ack(stream, 601)
        assert call.result()
    assert not publisher.flush(60)
    assert publisher.flush(60)


def test_a_call_ends_when_the_publisher_does(publisher: zmon.Publisher) -> None:
    publisher.publish(MANY)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(publisher.flush, 10_000)
        waiting(publisher, 1)
        publisher.close(timeout=0)
        assert not call.result()
    assert not publisher.flush(60), "nothing has arrived"


def test_calls_in_a_process_without_the_engine_leave_no_more_than_so_many_marks(
    publisher: zmon.Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threads, "start", refused)
        engine = Engine()  # of this test: others look for what its failure leaves behind
        patched.setattr("zmon.publisher.ENGINE", engine)
        engine.register(stream_of(publisher))
        publisher.publish(MANY[:1])
        for _ in range(MARKS + 100):
            assert not publisher.flush(0)
        assert len(stream_of(publisher).intake) == MARKS + 1


LAYOUT = RingLayout(b"h", (("probabilities", "<f8", 2),))


def put(ring: Ring, rows: int) -> None:
    ring.append(LAYOUT, RingPiece(rows, 0, [b"x"]), 1000 * rows)


def test_a_mark_counts_the_dropped_rows_before_it() -> None:
    ring = Ring(10**9)
    put(ring, 600)
    put(ring, 600)
    ring.release(600)
    mark = Mark(0.0, 5, 0)
    mark.look(ring)
    mark.reach(ring)
    put(ring, 600)
    mark.look(ring)
    assert (mark.row, mark.lost) == (1200, 5), "five found no room; 600 have arrived"
    ring.limit = ring.nbytes
    put(ring, 1200)
    mark.look(ring)
    assert (ring.dropped, mark.lost) == (1200, 605), "and of 1,200 that the ring dropped, half were before the mark"
    put(ring, 600)
    mark.look(ring)
    assert mark.lost == 605
