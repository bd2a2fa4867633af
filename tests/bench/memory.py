"""The collector's resident memory against rows of one window, against features, and against streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil

import zmon
from tests.bench.measure import Table
from tests.support.processes import OLD, Running

BATCH = 4000
MILLIONS = (1, 3, 10, 30, 100)
QUICK_MILLIONS = (1, 3)
FEATURES = (10, 100, 1000, 4000)
STREAMS = (1, 10, 100)
PACE = 10  # batches published before waiting for acknowledgement


class Fed:
    """A collector, what it holds, and publishers of one model."""

    def __init__(self, folder: Path, features: int, batch: int, streams: int = 1) -> None:
        self.running = Running(folder, "--window", "1h")
        self.process = psutil.Process(self.running.process.pid)
        self.empty = self.process.memory_info().rss / 2**20
        random = np.random.default_rng(0)
        self.p = random.random(batch, dtype=np.float32)
        self.x = random.standard_normal((batch, features), dtype=np.float32)
        data, control = self.running.health["data"], self.running.health["control"]
        self.publishers = [
            zmon.Publisher("m", classes=2, collector=data, control=control, agent_id=f"pod-{i}") for i in range(streams)
        ]

    def feed(self, batches: int) -> float:
        """Publish that many batches each; MiB resident when they are acknowledged."""
        for number in range(batches):
            for publisher in self.publishers:
                publisher.publish(self.p, inputs=self.x, timestamps=OLD)
            if number % PACE == PACE - 1 or number == batches - 1:
                for publisher in self.publishers:
                    assert publisher.flush(60)
        return self.process.memory_info().rss / 2**20

    def end(self) -> None:
        for publisher in self.publishers:
            publisher.close()
        self.running.end()


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    fed = Fed(folder / "rows", 4, BATCH)
    done = 0
    for millions in QUICK_MILLIONS if quick else MILLIONS:
        resident = fed.feed((millions - done) * 1_000_000 // BATCH)
        done = millions
        found.append({"against": "rows", "count": millions * 1_000_000, "mib": resident, "empty_mib": fed.empty})
    fed.end()
    for features in FEATURES[2:3] if quick else FEATURES:
        fed = Fed(folder / f"features-{features}", features, 500)
        resident = fed.feed(20)
        found.append({"against": "features", "count": features, "mib": resident, "empty_mib": fed.empty})
        fed.end()
    for streams in STREAMS[1:2] if quick else STREAMS:
        fed = Fed(folder / f"streams-{streams}", 20, 500, streams)
        resident = fed.feed(20)
        found.append({"against": "streams", "count": streams, "mib": resident, "empty_mib": fed.empty})
        fed.end()
    return found


WHAT = {
    "rows": "rows of 4 features in one window",
    "features": "features, 10,000 rows",
    "streams": "agents of one model, 20 features, 10,000 rows each",
}


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "Memory of the collector",
            ("", "how many", "resident MiB", "more than when it started"),
            [
                (WHAT[r["against"]], f"{r['count']:,}", f"{r['mib']:.0f}", f"{r['mib'] - r['empty_mib']:+.0f}")
                for r in found
            ],
        )
    ]
