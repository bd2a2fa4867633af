"""Single-row publishes a second through one collector, from several publisher processes, until acknowledged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.measure import Table, said, script
from tests.support.processes import Running

PROCESSES = (1, 2, 4)
PUBLISH = """
import sys, time, numpy as np, zmon
data, control, number, total = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
random = np.random.default_rng(0)
p = random.dirichlet(np.ones(2), 1).astype("f4")
x = random.normal(size=(1, 10)).astype("f4")
with zmon.Publisher("m", classes=2, collector=data, control=control, agent_id=f"bench-{number}") as publisher:
    publisher.publish(p, inputs=x)
    assert publisher.flush(30)
    print("ready", flush=True)
    sys.stdin.readline()
    for call in range(total):
        if call % 256 == 0:
            while publisher.stats.queued_bytes > 16 * 2**20:
                time.sleep(0.001)
        publisher.publish(p, inputs=x)
    assert publisher.flush(120)
    assert not publisher.stats.dropped
"""


def rate(folder: Path, processes: int, total: int) -> float:
    running = Running(folder, "--window", "1h")
    try:
        publishers = [
            script(PUBLISH, running.health["data"], running.health["control"], number, total // processes)
            for number in range(processes)
        ]
        for each in publishers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        started = time.monotonic()
        for each in publishers:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        for each in publishers:
            said(each)
        return total / (time.monotonic() - started)
    finally:
        running.end()


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    total = 100_000 if quick else 400_000
    found = []
    for processes in PROCESSES[1:] if quick else PROCESSES:
        rates = [rate(folder / f"singles-{processes}-{i}", processes, total) for i in range(1 if quick else 2)]
        median = float(np.median(rates))
        found.append(
            {
                "processes": processes,
                "publishes_per_second": median,
                "spread": (max(rates) - min(rates)) / 2 / median,
            }
        )
    return found


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "Single rows, 1×(2+10) a publish, journal on, until all are acknowledged",
            ("publisher processes", "publishes/s", "spread"),
            [(r["processes"], f"{r['publishes_per_second']:,.0f}", f"±{r['spread']:.0%}") for r in found],
        )
    ]
