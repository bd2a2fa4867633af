"""A window's memory does not grow with its rows: ten million of them, twenty features, one window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.processes import OLD, Running

MILLION = 1_000_000
ALLOWED = 64 * 2**20  # bytes between the first and the tenth million


@pytest.mark.timeout(600)
def test_ten_million_rows_in_one_window(tmp_path: Path) -> None:
    running = Running(tmp_path / "data", "--window", "1h")
    process = psutil.Process(running.process.pid)
    random = np.random.default_rng(0)
    p = random.random(4000, dtype=np.float32)
    x = random.normal(size=(4000, 20)).astype(np.float32)
    labels = (p > 0.4).astype(np.int64)
    sizes = []
    with running.publisher(agent_id="a") as publisher:
        for _ in range(10):
            for _ in range(MILLION // len(p) // 10):
                for _ in range(10):
                    publisher.publish(p, inputs=x, labels=labels, timestamps=OLD)
                assert publisher.flush(60)
            sizes.append(process.memory_info().rss)
    grown = max(sizes[1:]) - sizes[0]
    print(f"resident after each million, MiB: {[size >> 20 for size in sizes]}; grown by {grown / 2**20:.1f} MiB")
    said = running.end()
    assert f"rows {10 * MILLION}" in said
    assert grown < ALLOWED, sizes
