"""Delivery, seen by a collector that this test plays itself: hello, window, acknowledgement, going back."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.collectors import received
from tests.support.peer import Peer
from tests.support.waiting import until
from zmon._transport import delivery
from zmon._transport.link import Link
from zmon._transport.settings import Endpoint
from zmon._wire import control
from zmon._wire.frames import Message

P = np.array([[0.7, 0.3]])

APART = [[0.5, 0.5]] * 600  # too many rows of lists to be joined with others


@pytest.fixture
def publisher(peer: Peer) -> Iterator[zmon.Publisher]:
    with zmon.Publisher("m", classes=2, collector=peer.endpoint, agent_id="a") as one:
        yield one
        one.close(timeout=0)


def batches(messages: list[Message]) -> list[tuple[int, int]]:
    return [(each.first, each.rows) for each in messages if each.kind == "batch"]


def test_nothing_is_sent_before_the_collector_answers(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(P)
    hello = peer.greeting("hello")
    assert (hello.base, hello.acked, hello.issued) == (1, 0, 1)
    assert peer.messages() == []
    peer.ack(hello.stream, 0)
    found = peer.messages()
    assert [each.kind for each in found] == ["schema", "batch"]
    assert found[0].schema == found[1].schema
    assert not publisher.flush(0.1)
    peer.ack(hello.stream, 1)
    assert publisher.flush(60)
    assert publisher.stats.acknowledged == 1
    assert publisher.stats.queued_bytes == 0


def test_a_publisher_without_a_place_keeps_its_rows_says_why_once_and_asks_again(
    peer: Peer, publisher: zmon.Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(P)
    for _ in range(3):
        hello = peer.greeting("hello")
        why = {"streams": (0, "pod fills its share of limits.streams: it holds 3 of 4 places")}
        peer.router.send_multipart([peer.who, control.encode_hold_off(hello.stream, why)])
        assert peer.messages() == []
    assert (publisher.stats.queued, publisher.stats.rejected, publisher.stats.dropped) == (1, {}, {})
    peer.ack(peer.greeting("hello").stream, 0)
    assert [each.kind for each in peer.messages()] == ["schema", "batch"]
    peer.ack(hello.stream, 1)
    assert publisher.flush(60)
    assert caplog.text.count("takes no rows of model 'm' now (streams: pod fills its share") == 1


def test_collectors_that_have_taken_a_model_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "takers", OrderedDict())
    for number in range(2 * delivery.TAKERS):
        delivery.note_taker((Endpoint("tcp://a:1", "tcp://a:2"), f"m{number}"))
    assert len(delivery.takers) == delivery.TAKERS
    assert (Endpoint("tcp://a:1", "tcp://a:2"), f"m{2 * delivery.TAKERS - 1}") in delivery.takers


def test_the_window_holds_back(peer: Peer, publisher: zmon.Publisher) -> None:
    for _ in range(8):
        publisher.publish(APART)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0, window=25_000)
    assert batches(peer.messages()) == [(1, 600), (601, 600)]
    peer.ack(hello.stream, 1200, window=25_000)
    assert batches(peer.messages()) == [(1201, 600), (1801, 600)]


def test_without_progress_it_goes_back(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(P)
    publisher.publish(P)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0)
    first = batches(peer.messages())
    peer.greeting("ping")
    peer.ack(hello.stream, 0)  # it works, and has not got the rows
    again = until(lambda: batches(peer.messages()), what="the same message again")
    assert first == again[: len(first)] == [(1, 2)]


def test_after_a_reconnect_it_says_hello_and_goes_on_from_the_acknowledged_row(
    peer: Peer, publisher: zmon.Publisher
) -> None:
    for _ in range(3):
        publisher.publish(APART)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0)
    assert len(batches(peer.messages())) == 3
    peer.ack(hello.stream, 600)
    until(lambda: publisher.stats.acknowledged == 600)
    peer.close()
    peer.open()
    again = peer.greeting("hello")
    assert (again.stream, again.acked, again.base) == (hello.stream, 600, 601)
    assert peer.messages() == []
    peer.ack(again.stream, 600)
    found = peer.messages()
    assert [each.kind for each in found] == ["schema", "batch", "batch"]
    assert batches(found) == [(601, 600), (1201, 600)]


@pytest.mark.parametrize(
    ("notices", "subscribed"),
    [
        ((b"\1z1/",), True),
        ((b"\1z1/", b"\0z1/"), False),
        ((b"\1z1/", b"\0z1/", b"\1z1/"), True),
        ((b"\1z1/", b"\1z1/", b"\0z1/"), True),  # the new connection's before the end of the old one
        ((b"\1z1/", b"\1", b"\0z1/"), True),
        ((b"\0z1/", b"\1z2/"), False),
    ],
)
def test_a_subscription_outlives_the_one_of_the_connection_before(notices: tuple[bytes], subscribed: bool) -> None:
    link = Link(Endpoint("ipc:///nonexistent/zmon", "ipc:///nonexistent/zmon.ctl"), None)
    for notice in notices:
        link.enter_subscription(notice, b"z1/00/m//a/")
    assert link.subscribed is subscribed


def test_a_missing_schema_is_sent_again(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(P)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0)
    schema, *_ = peer.messages()
    peer.ack(hello.stream, 1, need=schema.schema)
    until(lambda: publisher.stats.acknowledged == 1, what="the acknowledgement to be taken in")
    publisher.publish(P)
    assert [each.kind for each in peer.messages()][:2] == ["schema", "batch"]


def test_rows_of_many_calls_travel_with_their_own_times(peer: Peer, publisher: zmon.Publisher) -> None:
    for second in range(5):
        publisher.publish(P, timestamps=1_700_000_000 + second)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0)
    (message,) = [each for each in peer.messages() if each.kind == "batch"]
    assert message.rows == 5
    assert (message.columns["timestamps"] // 10**9 - 1_700_000_000).tolist() == [0, 1, 2, 3, 4]


def test_goodbye_names_the_last_row_and_waits_for_its_answer(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(P)
    hello = peer.greeting("hello")
    peer.ack(hello.stream, 0)
    peer.messages()
    peer.ack(hello.stream, 1)
    assert publisher.flush(60)
    started = time.monotonic()
    publisher.close()
    assert time.monotonic() - started < 1.0
    bye = peer.greeting("bye")
    assert (bye.issued, bye.base, bye.acked) == (1, 2, 1)


def test_rejected_and_sampled_rows_are_reported(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(np.zeros((3, 9)))
    publisher.publish(P)
    assert peer.greeting("hello").tally["rejected"] == {"probabilities_shape": 3}


def test_nonsense_from_the_collector_is_survived(peer: Peer, publisher: zmon.Publisher) -> None:
    publisher.publish(P)
    hello = peer.greeting("hello")
    peer.router.send_multipart([peer.who, b"\xc1 nonsense"])
    peer.ack(b"another stream..", 99)
    peer.ack(hello.stream, 10**9)  # more than was ever issued
    assert publisher.flush(60)
    publisher.publish(P)
    peer.ack(hello.stream, 2)
    assert publisher.flush(60)


def test_two_collectors_each_have_a_cursor(tmp_path: Path) -> None:
    peers = [Peer(str(tmp_path / name)) for name in "xy"]
    with zmon.Publisher("m", classes=2, collector=[peer.endpoint for peer in peers]) as publisher:
        publisher.publish(P)
        hellos = [peer.greeting("hello") for peer in peers]
        peers[0].ack(hellos[0].stream, 0)
        assert batches(peers[0].messages()) == [(1, 1)]
        peers[0].ack(hellos[0].stream, 1)
        assert not publisher.flush(0.2), "the second collector has not acknowledged"
        assert publisher.stats.acknowledged == 0
        peers[1].ack(hellos[1].stream, 0)
        assert batches(peers[1].messages()) == [(1, 1)]
        peers[1].ack(hellos[1].stream, 1)
        assert publisher.flush(60)
        publisher.close(timeout=0)
    for peer in peers:
        peer.close()
        peer.context.term()


def test_a_collector_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """It has subscribed, and has not acknowledged: neither flush() nor close() passes over it because another has."""
    there, away = (Peer(str(tmp_path / name)) for name in "xy")
    with zmon.Publisher("m", classes=2, collector=[there.endpoint, away.endpoint]) as publisher:
        publisher.publish(P)
        stream = b""
        for peer in (there, away):
            stream = peer.greeting("hello").stream
            peer.ack(stream, 1)
        assert publisher.flush(60)
        away.close()
        publisher.publish(P)
        there.ack(stream, 2)
        assert not publisher.flush(0.5)
        away.open()
        assert away.greeting("hello").acked == 1
        away.ack(stream, 1)
        assert batches(away.messages()) == [(2, 1)]
        away.ack(stream, 2)
        assert publisher.flush(60)
        publisher.close(timeout=0)
    for peer in (there, away):
        peer.close()
        peer.context.term()


def test_a_young_publisher_ends_with_everything_acknowledged(collect: Any) -> None:
    """The collector that does not take its model has not been there for long enough to be known for it."""
    owner, other = collect(folder="owner", models=("m",)), collect(folder="other", models=("n",))
    with zmon.Publisher("m", classes=2, collector=[owner.data, other.data]) as publisher:
        publisher.publish(P)
        assert publisher.flush(60)
    assert (publisher.stats.acknowledged, dict(publisher.stats.dropped)) == (1, {})


def test_a_collector_with_globs_holds_up_no_publisher_of_other_models(collect: Any) -> None:
    """It subscribes to everything: it must say what it does not take."""
    globs, plain = collect(folder="globs", models=("a*",)), collect(folder="plain", models=("b*", "[c]"))
    endpoints = [globs.data, plain.data]
    for model, owner in (("a1", globs), ("b1", plain), ("[c]", plain)):
        before = received(owner)
        with zmon.Publisher(model, classes=2, collector=endpoints) as publisher:
            for _ in range(5):
                publisher.publish(P)
            assert publisher.flush(60)
            until(lambda: not publisher.stats.queued_bytes, what="an empty ring")
            assert publisher.stats.acknowledged == 5
        assert received(owner) - before == 5
    with zmon.Publisher("d", classes=2, collector=endpoints) as publisher:
        publisher.publish(P)
        until(lambda: globs.service.telemetry.get("not_ours") >= 3, what="its hello")
        assert not publisher.flush(0.1), "nobody takes it"
