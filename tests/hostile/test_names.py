"""Names that an attacker makes up: what they cost is bounded, and none of them steers what people read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmon_collector.ingest.reason_names import OF_MODEL

from tests.hostile.scene import Scene
from zmon._transport.settings import control_of
from zmon._wire import control
from zmon._wire.frames import Topic

PINGS, REASONS = 1_000, 60
AGENTS = 100  # limits.agents
MEMORY = 128 * 2**20  # bytes of messages that wait, as docs/operations.md has it: names add little to that
DISK = 16 * 2**20


def ping(agent: str, stream: int, tally: dict[str, Any]) -> bytes:
    return control.encode_greeting(
        "ping",
        topic=Topic("evil", "", agent).encode(),
        stream=stream.to_bytes(16, "big"),
        base=1,
        acked=0,
        issued=0,
        clock=time.time_ns(),
        tally=tally,
    )


def fresh(number: int, text: str) -> dict[str, Any]:
    """Return a tally with reasons that no other has."""
    reasons = {f"r{number}_{place}{text}": 1 for place in range(REASONS)}
    return {"rejected": reasons, "details": dict.fromkeys(list(reasons)[:5], "x" * 200)}


PEERS: dict[str, Callable[[int], tuple[str, int]]] = {
    "one stream": lambda number: ("pod", 1),
    "a stream each": lambda number: ("pod", number),
    "an agent each": lambda number: (f"pod-{number}", number),
}


@contextmanager
def control_socket(scene: Scene) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 60_000)
        socket.connect(control_of(scene.collector.endpoint))
        yield socket


@pytest.mark.parametrize(
    ("peer", "text"), [("one stream", " " * 900), ("a stream each", ""), ("an agent each", "x" * 100)],
    ids=["one stream, no words", "a stream each, words", "an agent each, long words"],
)  # fmt: skip
def test_reasons_without_end(tmp_path: Path, peer: str, text: str) -> None:
    with Scene(tmp_path) as scene:
        with control_socket(scene) as socket:
            for number in range(1, PINGS + 1):
                socket.send(ping(*PEERS[peer](number), fresh(number, text)))
            socket.send(ping("last", PINGS + 1, {"lost": 1_000_003}))
            scene.wait_for(lambda health: health["counters"].get("lost", 0) >= 1_000_003, "the last ping")
            counters = scene.health["counters"]
        claimed = sum(rows for name, rows in counters.items() if name.startswith("rejected{"))
        assert claimed >= REASONS, "the attack has arrived"
        assert len(counters) < 600
    assert scene.grown < MEMORY, scene.grown
    assert size(scene) < DISK, size(scene)
    series = {
        (said.get("agent_id"), said["reason"])
        for said in written(scene)
        if said["model"] == "evil" and said["what"] == "rows_rejected"
    }
    agents = AGENTS + 1 if peer == "an agent each" else 1
    assert 0 < len(series) <= agents * (OF_MODEL + 1), len(series)


def written(scene: Scene) -> list[dict[str, str]]:
    """Properties of all points in the files."""
    paths = (scene.collector.folder / "anodot").glob("*.json")
    return [sample["properties"] for path in paths for sample in json.loads(path.read_text())]


def size(scene: Scene) -> int:
    return sum(path.stat().st_size for path in scene.collector.folder.rglob("*") if path.is_file())
