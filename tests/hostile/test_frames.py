"""What is no message at all: bytes, lengths and numbers of frames at random."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import zmq

from tests.hostile.scene import Scene
from zmon._transport.settings import control_of

MESSAGES = 20_000
MEMORY = 128 * 2**20  # bytes of rows that wait, as docs/operations.md has it


def rejected(health: dict[str, Any]) -> int:
    """Messages that the collector rejected."""
    return sum(count for name, count in health["counters"].items() if name.startswith("rejected_messages"))


def test_noise_on_both_ports_costs_a_good_publisher_nothing(tmp_path: Path) -> None:
    chance = random.Random(1)
    with Scene(tmp_path) as scene, zmq.Context() as context:
        data, control = context.socket(zmq.PUB), context.socket(zmq.DEALER)
        data.connect(scene.collector.endpoint)
        control.connect(control_of(scene.collector.endpoint))
        for _ in range(MESSAGES):
            frames = [chance.randbytes(chance.choice([0, 1, 30, 1000])) for _ in range(chance.choice([1, 2, 3, 9]))]
            chance.choice([data, control]).send_multipart([chance.choice([b"", b"z1/steady/"]), *frames])
        scene.wait_for(lambda health: rejected(health) > MESSAGES // 4, "rejections")
        data.close(0)
        control.close(0)
    assert scene.grown < MEMORY, scene.grown
