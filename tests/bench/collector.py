"""What a collector takes: rows and values a second from a publisher process, journal on and off, against NumPy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.measure import Table, said, script
from tests.support.processes import OLD, Running

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


def journal_off(folder: Path) -> Path:
    path = folder / "journal-off.toml"
    path.write_text('[collector]\njournal = "off"\n')
    return path


def rate(folder: Path, features: int, rows: int, total: int, journal: str) -> float:
    """Rows a second until everything is acknowledged."""
    off = () if journal == "on" else ("--config", str(journal_off(folder.parent)))
    running = Running(folder, "--window", "1h", *off)
    try:
        return float(
            said(script(PUBLISH, running.health["data"], running.health["control"], features, rows, total, OLD))
        )
    finally:
        running.end()


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    for features, rows in CASES:
        reference = numpy_rate(features, 0.3 if quick else 1.0)
        total = int((2e6 if features == 20 else 8e4) * (0.5 if quick else 1.0) * (1 if rows == 1000 else 0.4))
        rates: dict[str, list[float]] = {"on": [], "off": []}
        for number in range(1 if quick else 2):
            for journal, each in rates.items():
                each.append(rate(folder / f"{features}-{rows}-{journal}-{number}", features, rows, total, journal))
        for journal, each in rates.items():
            median = float(np.median(each))
            found.append(
                {
                    "features": features,
                    "rows_a_message": rows,
                    "journal": journal,
                    "rows_per_second": median,
                    "values_per_second": median * features,
                    "spread": (max(each) - min(each)) / 2 / median,
                    "of_numpy": median * features / reference,
                }
            )
    return found


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"End to end: one publisher process, one collector, {CLASSES} classes and labels, until acknowledged",
            ("features", "rows a message", "journal", "rows/s", "M values/s", "spread", "× NumPy"),
            [
                (r["features"], r["rows_a_message"], r["journal"], f"{r['rows_per_second']:,.0f}",
                 f"{r['values_per_second'] / 1e6:.1f}", f"±{r['spread']:.0%}", f"{r['of_numpy']:.2f}")
                for r in found
            ],
        )
    ]  # fmt: skip
