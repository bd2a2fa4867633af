"""The receiving thread: what it holds while the collector's thread takes nothing."""

from __future__ import annotations

import contextlib
import socket as sockets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection, LimitsSection
from zmon_collector.ingest import connections
from zmon_collector.ingest import receiver as receiving
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.telemetry import Telemetry

from tests.support.waiting import until
from tests.support.zmtp import PING, shake_hands
from zmon._wire import control
from zmon._wire.control import decode_greeting

PINGS = 5000
LIMIT = 100_000  # bytes
MESSAGE = 20_000  # the same


def greeting(kind: str, number: int) -> bytes:
    return control.encode_greeting(
        kind, topic=b"z1/d0/fraud//x/", stream=b"s" * 16, base=1, acked=0, issued=number, clock=0, tally={}
    )


def connect(receiver: Receiver, heartbeats: bytes = b"") -> sockets.socket:
    """Connect to the data socket as a publisher that sends heartbeats and no message."""
    host, _, port = receiver.data.removeprefix("tcp://").rpartition(":")
    peer = sockets.create_connection((host, int(port)))
    shake_hands(peer, b"PUB")
    peer.sendall(heartbeats)
    return peer


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver with little room, whose inbox nobody empties."""
    monkeypatch.setattr(receiving, "GREETING_BYTES", LIMIT)
    config = Config(
        collector=CollectorSection(bind="tcp://127.0.0.1:0", data_dir=tmp_path),
        limits=LimitsSection(inflight_bytes=LIMIT),
    )
    receiver = Receiver(config, Telemetry(), lambda: None)
    receiver.start()
    yield receiver
    receiver.stop()


def publisher(context: Any, receiver: Receiver) -> Any:
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.connect(receiver.data)
    assert socket.poll(20_000), "it subscribes"
    return socket


def sent_by(receiver: Receiver, frame: bytes) -> int:
    return sum(received.frames[-1] == frame for received in list(receiver.inbox))


def test_greetings_that_nobody_handles_are_bounded_and_no_goodbye_is_lost(receiver: Receiver) -> None:
    """A pause may last as long as a disk is full, and every publisher greets once a second."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.connect(receiver.control)
        for number in range(PINGS):
            socket.send(greeting("ping", number))
        for number in range(20):
            socket.send(greeting("bye", number))

        def byes() -> int:
            return sum(decode_greeting(received.frames[0]).kind == "bye" for received in list(receiver.inbox))

        until(lambda: byes() == 20, what="the goodbyes, which are not repeated")
        assert receiver.telemetry.get("messages_discarded", "control") > PINGS // 2
        assert receiver.inbox_bytes <= 3 * LIMIT + 21 * (receiving.OVERHEAD + len(greeting("ping", PINGS)))


def test_rows_without_room_are_discarded_and_libzmq_keeps_none(receiver: Receiver) -> None:
    with zmq.Context() as context, publisher(context, receiver) as socket:
        for _ in range(1000):
            socket.send_multipart([b"z1/", bytes(MESSAGE)])
        discarded = receiver.telemetry.get
        until(lambda: discarded("messages_discarded", "data") + len(receiver.inbox) == 1000, "all to be read")
        assert receiver.inbox_bytes <= 2 * LIMIT + MESSAGE + receiving.OVERHEAD
        while receiver.next_message() is not None:
            pass
        socket.send_multipart([b"z1/", b"again"])
        until(lambda: sent_by(receiver, b"again"), "a message after there is room")


def test_a_connection_that_sends_much_leaves_room_to_others(receiver: Receiver) -> None:
    with zmq.Context() as context, publisher(context, receiver) as much, publisher(context, receiver) as little:
        for _ in range(100):
            much.send_multipart([b"z1/", bytes(MESSAGE)])
        until(lambda: receiver.telemetry.get("messages_discarded", "data") > 50, "messages without room")
        little.send_multipart([b"z1/", b"little"])
        until(lambda: sent_by(receiver, b"little"), "the other's message")


def test_of_a_message_above_the_limit_only_what_names_its_rows_is_kept(receiver: Receiver) -> None:
    frame = bytes(2**23)
    with zmq.Context() as context, publisher(context, receiver) as socket:
        socket.send_multipart([b"z1/", b"header", frame, frame, frame])
        until(lambda: receiver.inbox, "the message")
        received = receiver.next_message()
        assert received is not None
        assert received.frames == [b"z1/", b"header"]
        assert received.too_large == 9 + 3 * len(frame)


def test_connections_that_end_before_they_are_looked_at_end_nothing_else(receiver: Receiver) -> None:
    host, _, port = receiver.data.removeprefix("tcp://").rpartition(":")
    for _ in range(300):
        sockets.create_connection((host, int(port))).close()
    with zmq.Context() as context, publisher(context, receiver) as socket:
        socket.send_multipart([b"z1/", b"after"])
        until(lambda: sent_by(receiver, b"after"), "a message after them")
    assert receiver.telemetry.get("threads_restarted", receiver.thread.name) == 0


def test_heartbeats_are_no_message_that_does_not_end(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that has nothing to send for days is not cut off."""
    monkeypatch.setattr(connections, "UNFINISHED", 1000)
    monkeypatch.setattr(connections, "HEARTBEAT", 10**9)

    def cuts() -> int:
        return receiver.telemetry.get("connections_cut")

    def look() -> None:
        """Wait until all connections were looked at: one that sends much in its first moment is cut then."""
        before = cuts()
        with contextlib.ExitStack() as peers:

            def is_cut() -> bool:
                peers.enter_context(connect(receiver, PING * 1000))
                return cuts() > before

            until(is_cut, "a look")

    def is_open(peer: sockets.socket) -> bool:
        try:
            while peer.recv(1000):
                pass
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        return False

    with connect(receiver) as idle:
        look()
        idle.sendall(PING * 1000)
        idle.setblocking(False)
        look()
        look()
        assert is_open(idle)
        monkeypatch.setattr(connections, "HEARTBEAT", 0)
        until(lambda: not is_open(idle), "what was sent to be counted")
