"""Bytes on the wire: the largest messages, and those that never end, cost their sender alone."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from zmon_collector import sizing
from zmon_collector.config import Config
from zmon_collector.config.sections import WebSection

from tests.hostile.scene import Scene
from tests.support.waiting import until
from zmon import categories
from zmon._wire import frames as wire
from zmon.batch import Schema

MIB = 2**20
# What a ZMTP peer of type PUB says first, without CURVE.
HELLO = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL" + bytes(16) + b"\x00" + bytes(31)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
CONNECTIONS = 4
# What a collector without a page takes at most next to Python.
MEMORY = sizing.total(sizing.memory(Config(web=WebSection(enabled=False)))) - sizing.PYTHON_BYTES


class Attacker:
    """A peer that sends on a PUB of its own, and never waits."""

    def __init__(self, endpoint: str, context: Any, number: int = 0, schema: Schema | None = None) -> None:
        self.topic = wire.Topic("evil", "", f"evil-{number}").encode()
        self.stream = bytes([number]) * 16
        self.body = wire.encode_schema(schema or Schema(classes=("a", "b")))
        self.schema = wire.schema_hash(self.body)
        self.first = 1
        self.socket = context.socket(zmq.XPUB)
        for option, value in ((zmq.XPUB_NODROP, 1), (zmq.SNDHWM, 2), (zmq.SNDTIMEO, 100), (zmq.LINGER, 0)):
            self.socket.setsockopt(option, value)
        self.socket.connect(endpoint)
        assert self.socket.poll(20_000), "the collector subscribes"
        self.send(wire.encode_schema_message(self.topic, self.stream, self.body))

    def send(self, frames: list[Any]) -> bool:
        """Send a message; return whether it was taken by the socket."""
        try:
            self.socket.send_multipart(frames)
        except zmq.Again:
            return False
        return True

    def batch(self, rows: int, **arrays: Any) -> list[Any]:
        """The next batch; a blob is given as bytes."""
        described = [
            (name, "|u1", [1]) if isinstance(each, bytes) else (name, each.dtype.str, each.shape)
            for name, each in arrays.items()
        ]
        buffers = [each if isinstance(each, bytes) else each.tobytes() for each in arrays.values()]
        frames = wire.encode_batch(
            self.topic, stream=self.stream, schema=self.schema, first=self.first, rows=rows, base=self.first,
            ts=time.time_ns(), arrays=described, buffers=buffers,
        )  # fmt: skip
        self.first += rows
        return frames


@contextmanager
def raw(endpoint: str) -> Iterator[socket.socket]:
    """A connection on which the handshake is done, and any bytes may follow."""
    with socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), 20) as connection:
        connection.sendall(HELLO + READY)
        until(lambda: b"READY" in connection.recv(4096), "the collector's half of the handshake")
        yield connection


def counted(name: str) -> Any:
    """A condition of `Scene.wait_for`: something was counted under this name, whatever its labels."""
    return lambda health: sum(n for key, n in health["counters"].items() if key.partition("{")[0] == name)


def test_the_largest_messages_from_several_connections_while_nothing_is_accepted(tmp_path: Path) -> None:
    """Sound batches of 15 MiB, more than metrics and disk keep up with: rows that find no room are sent again."""
    rows, width = 2**17, 15
    schema = Schema(classes=("a", "b"), features=tuple(f"f{i}" for i in range(width)), kinds=("numeric",) * width)
    values = {"predictions": np.zeros(rows, np.int8), "inputs": np.random.default_rng(0).random((rows, width))}
    with Scene(tmp_path) as scene, zmq.Context() as context:
        attackers = [Attacker(scene.collector.endpoint, context, number, schema) for number in range(CONNECTIONS)]
        until_discarded = counted("messages_discarded")
        ended = threading.Event()

        def attack(attacker: Attacker) -> None:
            frames = attacker.batch(rows, **values)
            while not ended.is_set():
                if attacker.send(frames):
                    frames = attacker.batch(rows, **values)

        threads = [threading.Thread(target=attack, args=(attacker,)) for attacker in attackers]
        for thread in threads:
            thread.start()
        try:
            scene.wait_for(until_discarded, "messages without room")
            scene.wait_for(counted("paused"), "a pause")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
            for attacker in attackers:
                attacker.socket.close(0)
    assert scene.grown < MEMORY, scene.grown >> 20


def test_a_message_above_the_limit_is_refused_as_a_whole(tmp_path: Path) -> None:
    """Each frame is within the limit; 226 of such messages took 3.8 GiB."""
    with Scene(tmp_path) as scene, zmq.Context() as context:
        attacker = Attacker(scene.collector.endpoint, context)
        frame = np.zeros((2**18, 13))
        for _ in range(60):
            batch = attacker.batch(2**18, predictions=np.zeros(2**18, np.int8), one=frame[: 2**17], two=frame[: 2**17])
            until(lambda batch=batch: attacker.send(batch), "room to send")  # type: ignore[misc]
        scene.wait_for(lambda health: counted("rejected_messages")(health) >= 40, "refusals")
        attacker.socket.close(0)
    assert scene.grown < MEMORY // 2, scene.grown >> 20


def test_dictionaries_of_a_row_each(tmp_path: Path) -> None:
    """They took 6.8 s of the collector's thread, and 426 MiB."""
    rows = 2**20
    schema = Schema(classes=("a", "b"), segments=("s",))
    blobs = categories.encode(1, (("a",),)) * rows
    with Scene(tmp_path) as scene, zmq.Context() as context:
        attacker = Attacker(scene.collector.endpoint, context, 0, schema)
        values = {"predictions": np.zeros(rows, np.int8), "segments": np.zeros((rows, 1), np.int8)}
        for _ in range(10):
            batch = attacker.batch(rows, **values, segment_values=blobs)
            until(lambda batch=batch: attacker.send(batch), "room to send")  # type: ignore[misc]
        refused = "rejected{categories}"
        scene.wait_for(lambda health: health["counters"].get(refused) == 10 * rows, "all rows to be refused")
        attacker.socket.close(0)
    assert scene.grown < MEMORY // 2, scene.grown >> 20


def test_schemas_of_many_short_names(tmp_path: Path) -> None:
    """The bound of 64 MiB was one of bytes as sent: ninety such schemas took 1.3 GiB."""
    width = 2**16
    with Scene(tmp_path) as scene, zmq.Context() as context:
        attacker = Attacker(scene.collector.endpoint, context)
        for number in range(40):
            features = tuple(f"{number:x}{i:x}" for i in range(width))
            body = wire.encode_schema(Schema("regression", (), features, ("numeric",) * width))
            attacker.schema = wire.schema_hash(body)
            frames = wire.encode_schema_message(attacker.topic, attacker.stream, body)
            until(lambda frames=frames: attacker.send(frames), "room to send")  # type: ignore[misc]
            batch = attacker.batch(1, predictions=np.zeros(1))
            until(lambda batch=batch: attacker.send(batch), "room to send")  # type: ignore[misc]
        scene.wait_for(lambda health: health["counters"].get("schemas_forgotten", 0) >= 25, "forgotten schemas")
        attacker.socket.close(0)
    assert scene.grown < MEMORY // 2, scene.grown >> 20


@pytest.mark.parametrize("size", [0, MIB], ids=["empty frames", "frames of a MiB"])
def test_messages_without_end(size: int, tmp_path: Path) -> None:
    """libzmq passes on whole messages only, and holds the frames of one however many they are."""
    frame = b"\x01\x00" * MIB if not size else b"\x03" + size.to_bytes(8, "big") + bytes(size)
    with Scene(tmp_path) as scene:

        def attack() -> None:
            with raw(scene.collector.endpoint) as connection:
                connection.sendall(b"\x01\x03z1/")
                while True:
                    connection.sendall(frame)

        with pytest.raises(OSError):  # a reset or a broken pipe
            attack()
        scene.wait_for(counted("connections_cut"), "a cut connection")
    # A frame takes 64 bytes of libzmq's memory, and an empty one 2 on the wire.
    assert scene.grown < (MEMORY if size else 32 * 128 * MIB), scene.grown >> 20


def test_a_connection_that_breaks_off_with_a_full_queue_does_not_end_the_collector(tmp_path: Path) -> None:
    """libzmq ends the process by an assertion if it then has a heartbeat to send: queues are read, and no heartbeats
    are sent."""
    with Scene(tmp_path) as scene:
        for _ in range(3):
            with raw(scene.collector.endpoint) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends by a reset
                for _ in range(40):
                    connection.sendall(b"\x01\x03z1/" + b"\x02" + (8 * MIB).to_bytes(8, "big") + bytes(8 * MIB))
        scene.wait_for(lambda health: counted("rejected_messages")(health) >= 20, "messages")
    assert scene.grown < MEMORY, scene.grown >> 20
