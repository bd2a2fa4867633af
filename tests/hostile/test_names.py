"""Names that an attacker makes up: what they cost is bounded, and none of them steers what people read."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from zmon_collector.ingest.reason_names import OF_MODEL

from tests.hostile.scene import Scene
from zmon._transport.settings import control_of
from zmon._wire import control
from zmon._wire.frames import Topic, encode_batch, encode_schema, encode_schema_message, schema_hash
from zmon.batch import Schema
from zmon.categories import encode

PINGS, REASONS = 1_000, 60
BATCHES = 30
FEATURES = ("city", "street")
NAMED = 50  # categories of a column, max_categories; of a segment there are fewer
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
        assert arrived(REASONS, scene.health), "the attack has arrived"
        assert len(scene.health["counters"]) < 600
    assert scene.grown < MEMORY, scene.grown
    assert size(scene) < DISK, size(scene)
    series = {
        (said.get("agent_id"), said["reason"])
        for said in written(scene)
        if said["model"] == "evil" and said["what"] == "rows_rejected"
    }
    agents = AGENTS + 1 if peer == "an agent each" else 1
    assert 0 < len(series) <= agents * (OF_MODEL + 1), len(series)


def arrived(rows: int, health: dict[str, Any]) -> bool:
    """Return whether so many rows were counted under reasons of the attacker."""
    return sum(count for name, count in health["counters"].items() if name.startswith("rejected{")) >= rows


def batch(number: int, agent: str, rows: int = 200) -> list[list[bytes]]:
    """A schema and rows whose tags, segments, features, categories and reasons are all their own."""

    def names(what: str, count: int, length: int) -> tuple[str, ...]:
        return tuple(f"{what}{number}_{i}_".ljust(length, "x") for i in range(count))

    schema = Schema(
        classes=("a", "b"),
        features=(*FEATURES, *names("feature", 8, 1000)),
        kinds=("categorical",) * (len(FEATURES) + 8),
        segments=("shop", *names("segment", 7, 150)),
        tags=dict(zip(names("tag", 64, 150), names("value", 64, 150), strict=True)),
    )
    codes, segments = np.zeros((rows, len(schema.features)), "<i2"), np.zeros((rows, 8), "<i2")
    codes[:] = segments[:] = np.arange(rows)[:, None]
    values = names("category", rows, 256)
    arrays = [("probabilities", "<f4", [rows, 2]), ("codes", "<i2", [rows, codes.shape[1]]), ("categories", "|u1", [1]),
              ("segments", "<i2", [rows, 8]), ("segment_values", "|u1", [1])]  # fmt: skip
    buffers = [np.full((rows, 2), 0.5, "<f4").tobytes(), codes.tobytes(), encode(rows, (values,) * codes.shape[1]),
               segments.tobytes(), encode(rows, (values,) * 8)]  # fmt: skip
    topic, stream, body = Topic("evil", "", agent).encode(), number.to_bytes(16, "big"), encode_schema(schema)
    reasons = {"rejected": {f"r{number}_{i}": 1 for i in range(REASONS)}}
    header: dict[str, Any] = {"first": 1, "rows": rows, "base": 1, "ts": time.time_ns(), "tally": reasons}
    sent = encode_batch(topic, stream=stream, schema=schema_hash(body), arrays=arrays, buffers=buffers, **header)
    return [encode_schema_message(topic, stream, body), [bytes(frame) for frame in sent]]


def test_names_of_columns_and_values_without_end(tmp_path: Path) -> None:
    """Every batch has names that no other has, each as long as it may be; a window keeps a bounded number of each."""
    config = '[metrics]\npreset = "full"\nsegment_metrics = ["rows"]\n'
    with Scene(tmp_path, config) as scene, zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 60_000)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.connect(scene.collector.endpoint)
        assert socket.poll(60_000), "the subscription"
        for number in range(1, BATCHES + 1):
            for frames in batch(number, f"pod-{number % 10}"):
                socket.send_multipart(frames)
            if number % 10 == 0:  # what has no room is discarded, and nobody sends it again here
                scene.wait_for(partial(arrived, (number - 1) * REASONS), f"batch {number}")

    assert scene.grown < 2 * MEMORY, scene.grown
    evil = [said for said in written(scene) if said["model"] == "evil"]
    assert sum(said["what"] == "buffer_count" for said in evil), "its rows have arrived"
    columns: Counter[tuple[str, ...]] = Counter()
    for said in evil:
        if said["what"] in ("feature_count", "buffer_count"):
            column = (said["start"], said["what"], said.get("agent_id", ""), said.get("feat_name", ""))
            columns[*column, said.get("segment_name", "")] += 1
    assert max(columns.values()) <= NAMED + 1, columns.most_common(3)


def written(scene: Scene) -> list[dict[str, str]]:
    """Properties of all points in the files, and the start of their windows."""
    paths = (scene.collector.folder / "anodot").glob("*.json")
    samples = [sample for path in paths for sample in json.loads(path.read_text())]
    return [{**sample["properties"], "start": str(sample["timestamp"])} for sample in samples]


def size(scene: Scene) -> int:
    return sum(path.stat().st_size for path in scene.collector.folder.rglob("*") if path.is_file())
