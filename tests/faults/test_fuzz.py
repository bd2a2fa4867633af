"""Mutated messages and raw bytes on both ports: the collector stays up and flat, a good publisher is untouched."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from zmon_collector.admin import ask

from tests.faults.harness import FULL, LIVE, Timed, settled
from tests.fuzz.decoders import BODY, batch, greeting
from tests.fuzz.mutate import bent, moved
from tests.support.mortal import Mortal
from tests.support.waiting import until
from zmon._wire import frames as wire

MESSAGES = 1_000_000 if FULL else 30_000
CONNECTIONS = 2000 if FULL else 100
STREAMS = [b"f" * 16, b"g" * 16]  # of two publishers: each is another's


def corpus(agent: str, stream: bytes) -> tuple[list[list[bytes]], list[bytes]]:
    """Sound data messages and sound greetings of a stream: schema, batch, labels, and one without its arrays."""
    topic = wire.Topic("m", "", agent).encode()
    data = [
        list(map(bytes, frames))
        for frames in (
            wire.encode_schema_message(topic, stream, BODY),
            *(batch(kind, ts=time.time_ns(), stream=stream) for kind in ("batch", "labels")),
            batch(ts=time.time_ns(), stream=stream, withheld=2**30),
        )
    ]
    for frames in data:
        frames[0] = topic
    return data, [greeting(kind, topic=topic, stream=stream) for kind in ("hello", "ping", "bye")]


def mutants(data: list[list[bytes]], chance: random.Random) -> Iterator[list[bytes]]:
    """Messages that are changed; some are sound in themselves: at extremes, another's, or sent before."""
    sent: deque[list[bytes]] = deque(maxlen=100)
    while True:
        frames = list(chance.choice(data))
        match chance.randrange(8):
            case 0:
                del frames[chance.randrange(1, len(frames)) :]
            case 1:
                frames.insert(chance.randrange(1, len(frames) + 1), chance.randbytes(chance.choice([0, 8, 1000])))
            case 2 | 3:
                frames[1] = moved(frames[1], chance, STREAMS)
            case 4 if sent:
                frames = chance.choice(sent)
            case _:
                for _ in range(chance.choice([1, 1, 2])):
                    at = chance.randrange(len(frames))
                    frames[at] = (b"z1/" + bent(frames[at], chance)[3:]) if at == 0 else bent(frames[at], chance)
        sent.append(frames)
        yield frames


@pytest.mark.timeout(3600 if FULL else 180)
def test_mutated_messages(tmp_path: Path) -> None:
    chance = random.Random(5)
    collector = Mortal(tmp_path, LIVE)
    data, greetings = (
        [each for part in parts for each in part]
        for parts in zip(*(corpus(f"fuzz-{number}", stream) for number, stream in enumerate(STREAMS)), strict=True)
    )
    context = zmq.Context()
    with collector.running(), context, context.socket(zmq.XPUB) as bad, context.socket(zmq.DEALER) as worse:
        assert collector.process is not None
        for each in (bad, worse):
            each.setsockopt(zmq.LINGER, 0)
        bad.setsockopt(zmq.XPUB_NODROP, 1)
        bad.connect(collector.endpoint)
        port = int(collector.endpoint.rpartition(":")[2])
        worse.connect(f"tcp://127.0.0.1:{port + 1}")
        assert bad.poll(5000), "no subscription"
        timed = Timed(collector.publisher("good"))
        timed.publish(20)
        assert timed.publisher.flush(60)
        memory = psutil.Process(collector.process.pid).memory_info
        stream = mutants(data, chance)
        begun = 0
        for number in range(MESSAGES):
            try:
                bad.send_multipart(next(stream), zmq.DONTWAIT)
            except zmq.Again:  # the collector is slower than this loop
                time.sleep(0.001)
            if number % 4 == 0:
                sound = chance.choice(greetings)
                mutant = moved(sound, chance, STREAMS) if number % 8 else bent(sound, chance)
                with contextlib.suppress(zmq.Again):  # one above 64 KiB ends the connection, which comes back
                    worse.send(mutant, zmq.DONTWAIT)
                while worse.poll(0):
                    worse.recv()
            if number % 500 == 0:
                timed.publish(20)
            if number == MESSAGES // 4:
                begun = memory().rss
        assert timed.publisher.flush(60), timed.publisher.stats

        def drained() -> dict[str, Any] | None:
            health = ask(collector.folder, "health", 5.0)
            return health if health and health["inbox_bytes"] == 0 else None

        health = until(drained, what="the inbox to be empty")
        grown = (memory().rss - begun) / 2**20
        rejected = {key: n for key, n in health["counters"].items() if key.startswith("rejected_messages")}
        print(
            f"{MESSAGES} mutants: {sum(rejected.values())} rejected for {len(rejected)} reasons, {grown:.0f} MB grown"
        )
        assert len(rejected) >= 12, rejected
        assert grown < 64
        assert collector.alive
        timed.publish(20)
        assert timed.publisher.flush(60), "fresh data flows"
        timed.publisher.close()
        collector.end()
    assert "Traceback" not in collector.said()
    good = [
        value
        for window in collector.points().values()
        for names, value in window.items()
        if dict(names)["what"] == "buffer_count" and dict(names).get("agent_id") == "good"
    ]
    assert sum(good) == timed.issued


def test_raw_bytes_on_both_ports(tmp_path: Path) -> None:
    """Rubbish, half a handshake, a handshake and then rubbish, HTTP, and connections that say nothing."""
    chance = random.Random(6)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL" + bytes(16) + b"\x00" + bytes(31)
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
    collector = Mortal(tmp_path, LIVE)
    with collector.running():
        assert collector.process is not None
        port = int(collector.endpoint.rpartition(":")[2])
        timed = Timed(collector.publisher("a"))
        timed.publish(20)
        assert timed.publisher.flush(60)
        silent = []
        for number in range(CONNECTIONS):
            with socket.create_connection(("127.0.0.1", port + number % 2), 5) as connection:
                said = [
                    chance.randbytes(chance.choice([1, 64, 5000])),
                    greeting[: chance.randrange(len(greeting))],
                    greeting + ready + chance.randbytes(200),
                    greeting + ready + b"\x02" + (2**62).to_bytes(8, "big") + b"x" * 1000,  # of 4 EiB
                    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ][number % 5]
                try:
                    connection.sendall(said)
                    if number % 3 == 0:
                        connection.settimeout(0.02)
                        connection.recv(1000)
                except OSError:
                    pass
            if number % 50 == 0:
                silent.append(socket.create_connection(("127.0.0.1", port), 5))
                timed.publish(20)
        timed.publish(20)
        assert timed.publisher.flush(60), timed.publisher.stats
        for each in silent:
            each.close()
        timed.publisher.close()
        collector.end()
    assert settled(collector, timed.issued)["buffer_count"] == timed.issued


def test_frames_without_end_from_a_client_that_is_not_allowed(tmp_path: Path) -> None:
    """libzmq would hold a message of ever more frames in memory: with CURVE on, a stranger never gets so far."""
    public, secret = zmq.curve_keypair()
    (tmp_path / "zmon.key_secret").write_bytes(secret)
    pod_public, pod_secret = zmq.curve_keypair()
    collector = Mortal(
        tmp_path,
        f"{LIVE}[security]\nsecret_key_file = '{tmp_path}/zmon.key_secret'\n"
        f"[security.clients.pod]\nkey = '{pod_public.decode()}'\nmodels = ['*']\nagents = ['*']\n",
    )
    with collector.running():
        assert collector.process is not None
        memory = psutil.Process(collector.process.pid).memory_info
        timed = Timed(collector.publisher("a", secret_key=pod_secret.decode(), server_key=public.decode()))
        timed.publish(20)
        assert timed.publisher.flush(60), timed.publisher.stats
        before = memory().rss
        sent = 0
        context = zmq.Context()
        with context, context.socket(zmq.PUB) as stranger:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(collector.endpoint)
            frame = bytes(2**20)
            for _ in range(300):
                stranger.send(b"z1/" + frame, zmq.SNDMORE)
                sent += len(frame)
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL" + bytes(16) + b"\x00" + bytes(31)
        port = int(collector.endpoint.rpartition(":")[2])
        refused = 0
        for each in (port, port + 1):
            with socket.create_connection(("127.0.0.1", each), 5) as connection:
                try:
                    connection.sendall(greeting + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB")
                    for _ in range(300):
                        connection.sendall(b"\x03" + (2**20).to_bytes(8, "big") + bytes(2**20))  # MORE, and long
                except OSError:
                    refused += 1  # it hangs up
        assert refused == 2
        assert memory().rss - before < 32 * 2**20, f"{(memory().rss - before) >> 20} MB after {sent >> 20} MB"
        timed.publish(20)
        assert timed.publisher.flush(60)
        timed.publisher.close()
        collector.end()
    assert settled(collector, timed.issued)["buffer_count"] == timed.issued
