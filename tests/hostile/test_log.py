"""A log that cannot be flooded: whatever comes, and however often, it has few lines, and each is one event."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import zmq
from zmon_collector.log_lines import LINES

from tests.hostile.scene import Scene
from zmon._transport.settings import control_of
from zmon._wire.frames import Topic, pack

MESSAGES = 25_000  # of each kind
REQUESTS = 2_000  # each on a connection of its own
MEMORY = 128 * 2**20  # bytes of rows that wait, as docs/operations.md has it
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR|CRITICAL) [a-z.]+: .+|    .*|Traceback.*")

Send = Callable[[list[bytes]], None]


def noise(chance: random.Random) -> list[bytes]:
    """No message at all."""
    return [chance.choice([b"", b"z1/", b"\xff"]), *(chance.randbytes(chance.choice([0, 30])) for _ in range(3))]


def header_of_many(chance: random.Random) -> list[bytes]:
    """A topic of a model, version and agent that nobody has seen, and what is no header."""
    topic = Topic(f"m{chance.getrandbits(40)}", f"v{chance.getrandbits(40)}", f"a{chance.getrandbits(40)}")
    return [topic.encode(), chance.randbytes(40)]


def batch_without_schema(chance: random.Random) -> list[bytes]:
    header = {"kind": "batch", "stream": chance.randbytes(16), "schema": chance.randbytes(8), "first": 1, "rows": 1,
              "base": 1, "ts": 0, "arrays": []}  # fmt: skip
    return [Topic("steady", "", f"a{chance.getrandbits(40)}").encode(), pack(header)]


def greeting(chance: random.Random) -> list[bytes]:
    names = chance.choice(["\x1b[2J", "\n2026-01-01 00:00:00,000 ERROR zmon: forged", "\u202e", "ok"])
    topic = f"z1/00/{quote(names, safe='')}/{quote(names, safe='')}/a/".encode()
    return [pack({"kind": chance.choice(["hello", "ping", "bye"]), "topic": topic, "stream": chance.randbytes(16)})]


@contextlib.contextmanager
def senders(scene: Scene) -> Iterator[tuple[Send, Send, Send]]:
    """Ways into a collector: the data port, the control port, the operators' socket."""
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        sends = []
        for kind, endpoint in (
            (zmq.PUB, scene.collector.endpoint),
            (zmq.DEALER, control_of(scene.collector.endpoint)),
            (zmq.DEALER, f"ipc://{scene.collector.folder / 'admin.sock'}"),
        ):
            one = stack.enter_context(context.socket(kind))
            one.setsockopt(zmq.LINGER, 0)
            one.connect(endpoint)
            sends.append(one.send_multipart)
        yield sends[0], sends[1], sends[2]


def rejected(scene: Scene) -> int:
    counters = scene.health.get("counters", {})
    return sum(count for name, count in counters.items() if name.startswith("rejected_messages"))


def test_a_hundred_thousand_messages_of_all_kinds_and_broken_requests(tmp_path: Path) -> None:
    chance = random.Random(1)
    with Scene(tmp_path) as scene:
        with senders(scene) as (data, control, admin):
            for _ in range(MESSAGES):
                data(noise(chance))
                data(chance.choice([header_of_many, batch_without_schema])(chance))
                control(greeting(chance))
                chance.choice([control, admin])(noise(chance)[:1])
            scene.wait_for(lambda health: rejected(scene) > MESSAGES, "rejections")
        address = urlsplit(scene.probe)
        for _ in range(REQUESTS):
            with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), 5.0) as one:
                one.sendall(chance.choice([b"\xff\xfe\n\n", b"GET / HTTP/9\r\n\r\n", b"GET /\x1b[2J HTTP/1.1\r\n\r\n"]))
                one.recv(1000)
        said = scene.collector.said().splitlines()
    assert len(said) < LINES, said[:50]
    assert [line for line in said if not LINE.fullmatch(line) or not line.isprintable()] == []
    assert scene.grown < MEMORY, scene.grown
