"""What a collector takes: rows and values a second from a publisher process, against NumPy on the same rows."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.bench.measure import table
from tests.e2e.test_processes import OLD, Running

CASES = [(20, 32), (20, 1000), (784, 32), (784, 1000)]
CLASSES = 10
PUBLISH = """
import sys, time, numpy as np, zmon
data, control, features, rows, total, old = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
random = np.random.default_rng(0)
p = random.dirichlet(np.ones(10), rows).astype("f4")
x = random.normal(size=(rows, features)).astype("f4")
labels = p.argmax(axis=1)
with zmon.Publisher("m", classes=10, collector=data, control=control, agent_id="bench") as publisher:
    publisher.publish(p, inputs=x, labels=labels, timestamps=old)
    assert publisher.flush(30)
    started, sent, limit = time.monotonic(), 0, 16 * 2**20
    while sent < total:
        if publisher.stats.queued_bytes > limit:
            time.sleep(0.0005)
            continue
        publisher.publish(p, inputs=x, labels=labels, timestamps=old)
        sent += rows
    assert publisher.flush(120)
    print(sent / (time.monotonic() - started))
    assert not publisher.stats.dropped
"""


def numpy_rate(features: int, seconds: float) -> float:
    """Values a second of mean, std, min, max and three quantiles over windows of 5,000 rows."""
    x = np.random.default_rng(0).normal(size=(5000, features)).astype("f4")
    done, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        for one in (np.mean, np.std, np.min, np.max):
            one(x, axis=0)
        np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        done += x.size
    return done / (time.monotonic() - started)


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    for features, rows in CASES:
        total = int((2e6 if features == 20 else 6e4) * (0.15 if quick else 1.0) * (1 if rows == 1000 else 0.4))
        rates = []
        for number in range(1 if quick else 3):
            running = Running(folder / f"collector-{features}-{rows}-{number}", "--window", "1h")
            process = psutil.Process(running.process.pid)
            done = subprocess.run(
                [sys.executable, "-c", PUBLISH, running.health["data"], running.health["control"],
                 *map(str, (features, rows, total, OLD))],
                capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            rates.append(float(done.stdout))
            resident = process.memory_info().rss
            started = time.monotonic()
            running.end()
            ended = time.monotonic() - started
        rate = float(np.median(rates))
        reference = numpy_rate(features, 0.3 if quick else 1.0)
        found.append(
            {
                "features": features,
                "rows_a_message": rows,
                "rows_per_second": rate,
                "values_per_second": rate * features,
                "spread": (max(rates) - min(rates)) / 2 / rate,
                "of_numpy": rate * features / reference,
                "resident_mib": resident / 2**20,
                "end_seconds": ended,
            }
        )
    return found


def show(found: list[dict[str, Any]]) -> str:
    return table(
        f"collector, one publisher process, {CLASSES} classes, labels, float32, until acknowledged",
        ("features", "rows a message", "rows/s", "M values/s", "spread", "× NumPy", "resident MiB", "close and exit s"),
        [
            (r["features"], r["rows_a_message"], f"{r['rows_per_second']:,.0f}", f"{r['values_per_second'] / 1e6:.1f}",
             f"±{r['spread']:.0%}", f"{r['of_numpy']:.2f}", f"{r['resident_mib']:.0f}", f"{r['end_seconds']:.2f}")
            for r in found
        ],
    )  # fmt: skip
