"""What sending to Anodot's API costs the collector: processor time and memory at a sustained 2,000 samples a second.

``python -m tests.bench.api URL SECONDS`` is the side that is measured: the outbox and its sinks in a process of their
own, fed a window's points a second, with and without the API sink. The stand-in runs in the other process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import SinkDelivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry
from zmon_plugins.api.target import ApiTarget
from zmon_plugins.sinks.anodot import Anodot

from tests.bench.measure import Table
from tests.support.standin import TOKEN, StandIn
from zmon.contract import Point, RowCounts, Value, Window

RATE = 2000  # samples a second: an account's default quota
STATS = ("mean", "median", "std", "range", "q25", "q50", "q75", "iqr")


def fed(url: str, seconds: int) -> dict[str, float]:
    """Feed a report of `RATE` points a second; what the process used meanwhile."""
    points = [
        Point(None, Value("feature_value", i * 0.1, feat_name=f"feature {i // 8}", stat=STATS[i % 8]))
        for i in range(RATE)
    ]
    with tempfile.TemporaryDirectory() as folder:
        telemetry = Telemetry()
        database = Database(Path(folder) / "state.sqlite", telemetry)
        database.open()
        database.start()
        dead_letters = DeadLetters(database, telemetry, rows=1000, keep=3600.0)
        box = Outbox(database, telemetry, limit=2**28, keep=3600.0, first=1)
        delivery = None
        if url:
            target = ApiTarget(url=url, requests_per_second=RATE / 1000, samples_per_second=RATE)
            delivery = SinkDelivery(Anodot(target, TOKEN, lambda value: "minimal"), box, dead_letters, telemetry)
        database.call(lambda connection: box.load(connection, ["anodot"] if url else []))
        if delivery is not None:
            delivery.start()
        used, started = time.process_time(), time.monotonic()
        for second in range(seconds):
            window = Window(1_000_000_000 + second, 1_000_000_001 + second)
            write, written = box.prepare(
                ClosedWindow(("m", ""), window, second, points, {"a": RowCounts(1)}, {}, {}), {}
            )
            database.submit(write, written)
            time.sleep(max(0.0, started + second + 1 - time.monotonic()))
        box.end()
        if delivery is not None:
            assert delivery.join(30.0)
        took = time.monotonic() - started
        spent = time.process_time() - used
        database.close(10.0)
    return {"seconds": took, "cpu": spent, "resident": psutil.Process().memory_info().rss / 2**20}


def run(folder: Path, quick: bool) -> dict[str, float]:
    seconds = 2 if quick else 10
    measured = {}
    with StandIn() as api:
        for name, url in (("without", ""), ("with", api.url)):
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.api", url, str(seconds)],
                capture_output=True, text=True, check=True, timeout=300, env={**os.environ, "PYTHONPATH": "."},
            )  # fmt: skip
            measured[name] = json.loads(done.stdout)
        assert len(api.accepted) == RATE * seconds, len(api.accepted)
        assert not api.out_of_order
    cpu = measured["with"]["cpu"] / measured["with"]["seconds"]
    alone = measured["without"]["cpu"] / measured["without"]["seconds"]
    return {
        "samples_per_second": RATE * seconds / measured["with"]["seconds"],
        "of_a_core": cpu - alone,
        "microseconds_a_sample": (measured["with"]["cpu"] - measured["without"]["cpu"]) / (RATE * seconds) * 1e6,
        "more_mib": measured["with"]["resident"] - measured["without"]["resident"],
    }


def show(found: dict[str, Any]) -> list[Table]:
    return [Table(
        f"Anodot's API, {RATE:,} samples/s offered, what the sink adds to the collector",
        ("sink", "samples/s", "of a core", "µs a sample", "MiB more"),
        [
            ("anodot", f"{found['samples_per_second']:,.0f}", f"{found['of_a_core']:.1%}",
             f"{found['microseconds_a_sample']:.1f}", f"{found['more_mib']:.0f}"),
        ],
    )]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(fed(sys.argv[1], int(sys.argv[2]))))
