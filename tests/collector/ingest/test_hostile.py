"""What a single sender, or a slip of the operator, may not do: end the collector. A good publisher goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from zmon_collector.admin import ask
from zmon_collector.ingest.receiver import subscriptions
from zmon_collector.windows.window import Tally

from tests.support.collectors import Collector
from tests.support.waiting import until
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema

TOPIC = wire.Topic("model", "", "stranger").encode()
BODY = wire.encode_schema(Schema(classes=("a", "b")))
P = np.full((3, 2), 0.5)


def batch(first: int = 1, times: np.ndarray | None = None) -> list[list[bytes]]:
    """A schema, and three rows."""
    columns = {"probabilities": P} if times is None else {"probabilities": P, "timestamps": times}
    described = [(name, column.dtype.str, list(column.shape)) for name, column in columns.items()]
    frames = wire.encode_batch(
        TOPIC, stream=b"s" * 16, schema=wire.schema_hash(BODY), first=first, rows=3, base=first, ts=time.time_ns(),
        arrays=described, buffers=[column.tobytes() for column in columns.values()],
    )  # fmt: skip
    return [wire.encode_schema_message(TOPIC, b"s" * 16, BODY), frames]


def greetings(kind: str, **said: Any) -> list[bytes]:
    """The same of three streams, whose sum no 63-bit number holds."""
    numbers = {"base": 1, "acked": 0, "issued": 0, "tally": {}, **said}
    return [
        control.encode_greeting(kind, topic=TOPIC, stream=bytes([i]) * 16, clock=time.time_ns(), **numbers)
        for i in range(3)
    ]


MOST = 2**63 - 1
DATA = {
    "short times": batch(times=np.array([1, 2, 3], dtype="<i2")),
    "shorter times": batch(times=np.array([1, 2, 3], dtype="|i1")),
    "the last row there can be": batch(first=MOST),
    "nearly the last row there can be": batch(first=wire.MAX_NUMBER),
}
CONTROL = {
    "sampled out": greetings("ping", tally={"sampled_out": MOST}),
    "rejected": greetings("ping", tally={"rejected": {"x": MOST}}),
    "lost": greetings("bye", base=MOST, issued=MOST),
    "degraded": greetings("ping", tally={"degraded": {"x": MOST}}),
    "degraded and lost as much as is taken": greetings(
        "ping", tally={"degraded": {"x": wire.MAX_NUMBER}, "lost": wire.MAX_NUMBER, "details": {"x": "y" * 200}}
    ),
    "lost before it had a number": greetings("ping", tally={"lost": -1}),
    "lost in part": greetings("ping", tally={"lost": 1.5}),
    "reasons as a list": greetings("ping", tally={"degraded": ["x"]}),
    "a nameless reason": greetings("ping", tally={"degraded": {"": 1}}),
    "a truth value": greetings("ping", tally={"degraded": {"x": True}}),
    "many reasons": greetings("ping", tally={"degraded": {str(i): 1 for i in range(1000)}}),
    "details as a number": greetings("ping", tally={"details": 5}),
    "a detail as bytes": greetings("ping", tally={"details": {"x": b"y"}}),
    "a long detail": greetings("ping", tally={"details": {"x": "y" * 201}}),
    "a detail of half a greeting": greetings("ping", tally={"details": {"x": "y" * 2**15}}),
    "many details": greetings("ping", tally={"details": {str(i): "y" for i in range(65)}}),
    "details of nothing": greetings("ping", tally={"details": {"x\x1b[31m\n": "\x1b[31m\n"}}),
    "as much as is taken": greetings("bye", base=wire.MAX_NUMBER, issued=wire.MAX_NUMBER),
}


@pytest.fixture
def sockets(collect: Callable[..., Collector]) -> Iterator[tuple[Collector, Any, Any]]:
    """A collector, and the data and control sockets of a stranger."""
    collector = collect()
    with zmq.Context() as context, context.socket(zmq.XPUB) as data, context.socket(zmq.DEALER) as dealer:
        for socket, endpoint in ((data, collector.data), (dealer, collector.control)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
        assert data.poll(5000), "the collector subscribes"
        yield collector, data, dealer


def goes_on(collector: Collector) -> None:
    with collector.publisher(classes=2) as publisher:
        publisher.publish(P)
        assert publisher.flush(60), "the collector has ended"
    assert ask(collector.folder, "health", 10.0) is not None


@pytest.mark.parametrize("messages", DATA.values(), ids=DATA.keys())
def test_no_batch_ends_it(messages: list[list[bytes]], sockets: tuple[Collector, Any, Any]) -> None:
    collector, data, _ = sockets
    for frames in messages:
        data.send_multipart(frames)
    seen = collector.service.telemetry.get
    until(lambda: seen("rejected_messages") + seen("messages"), what="the message")
    goes_on(collector)


@pytest.mark.parametrize("frames", CONTROL.values(), ids=CONTROL.keys())
def test_no_greeting_ends_it(frames: list[bytes], sockets: tuple[Collector, Any, Any]) -> None:
    collector, _, dealer = sockets
    for frame in frames:
        dealer.send(frame)
    seen = collector.service.telemetry.get
    until(lambda: seen("rejected_messages") >= 3 or len(collector.service.ingestor.sessions) >= 3, what="the greetings")
    time.sleep(1.2)  # a goodbye is settled a second later
    goes_on(collector)


@pytest.mark.parametrize(
    ("question", "more"),
    [("reports x", {}), ("batches 1.5", {}), ("reports", {}), ("outbox-show", {"ids": [2**63]}),
     ("outbox-show", {"ids": ["x"]}), ("outbox-drop", {"ids": [-(2**63)]}), ("outbox", {"after": "x"})],
)  # fmt: skip
def test_no_question_ends_it(question: str, more: dict[str, Any], collect: Callable[..., Collector]) -> None:
    collector = collect()
    answer = ask(collector.folder, question, 10.0, **more)
    assert answer is not None and ("error" in answer or answer == {"dropped": 0})
    goes_on(collector)


def test_what_cannot_be_foreseen_costs_one_message(
    collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = collect()
    take = collector.service.ingestor.handle_message

    def taken(message: Any, *rest: Any) -> None:
        if message.topic.agent_id == "stranger":
            raise ZeroDivisionError
        take(message, *rest)

    monkeypatch.setattr(collector.service.ingestor, "handle_message", taken)
    with collector.publisher(classes=2, agent_id="stranger") as publisher:
        for _ in range(3):
            publisher.publish(P)
            assert publisher.flush(60), "it is answered, and nothing waits behind it"
        goes_on(collector)
        publisher.close(0)
    assert collector.service.telemetry.get("rejected_messages", "internal") >= 1
    assert collector.service.telemetry.get("rejected", "internal") == 3 * len(P)
    assert len([each for each in caplog.records if "cannot handle a message" in each.message]) == 1


def test_counts_stay_within_what_the_journal_holds() -> None:
    tally = Tally()
    for _ in range(2000):
        tally.add("lost", wire.MAX_NUMBER)
        for kind in ("rejected", "degraded"):
            tally.add(kind, wire.MAX_NUMBER, "x")
    for i in range(100):
        tally.add("rejected", 1, f"reason {i}")
    assert len(tally.rejected) == 65
    assert sum(tally.rejected.values()) == wire.MAX_NUMBER + 100
    tally.rejected = {"x": tally.rejected["x"]}
    assert tally.plain() == [0, 0, wire.MAX_NUMBER, 0, {"x": wire.MAX_NUMBER}, {"x": wire.MAX_NUMBER}]


@pytest.mark.parametrize("name", ["fraud", "1", "d0", "z1", "x", "a/b", "é"])
def test_a_subscription_is_for_one_model(name: str) -> None:
    (prefix,) = subscriptions([name])
    assert wire.Topic(name, "2", "pod").encode().startswith(prefix)
    assert not wire.Topic(f"{name}x", "2", "pod").encode().startswith(prefix)
    assert prefix.count(b"/") == 3, "a name that also occurs before itself in the topic does not shorten it"
