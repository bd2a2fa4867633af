"""The engine alone, without a network: windows of many rows of 784 features, from rows to points.

The rows are those that `make bench-peers` gives to others: the same generator, the same blocks of 1,000.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.batcher import QUEUE_BYTES
from zmon_collector.compute.engine import Engine
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.sections import CollectorSection, MetricsSection
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import OpenWindow

from tests.bench.measure import Table
from tests.bench.rows import BLOCK, FEATURES, ROWS, blocks
from zmon.batch import Batch, Schema

CLASSES = 10


def batches(schema: Schema, rows: int) -> Iterator[Batch]:
    random = np.random.default_rng(1)
    p = random.dirichlet(np.ones(CLASSES), BLOCK).astype("f4")
    for inputs in blocks(rows):
        yield Batch(schema, {"probabilities": p, "inputs": inputs, "timestamps": np.zeros(BLOCK, dtype=np.int64)})


def window(rows: int, preset: str, workers: int) -> tuple[float, float]:
    """Seconds from the first row to the window's points, and those of the closing in it."""
    registry = Registry()
    registry.load()
    config = Config(metrics=MetricsSection(preset=preset), collector=CollectorSection(workers=workers))
    engine = Engine(config, registry, PolicyStore(config), lambda: None)
    schema = Schema(
        classes=tuple(f"class_{i}" for i in range(CLASSES)),
        features=tuple(f"feat_{i}" for i in range(FEATURES)),
        kinds=("numeric",) * FEATURES,
    )
    one = OpenWindow(0, 60, schema=schema)
    started = time.perf_counter()
    for number, batch in enumerate(batches(schema, rows)):
        one.tally("a").received += batch.rows
        engine.add_rows(("m", ""), one, AgentRows("a", batch, 1, number * BLOCK))
        engine.advance()
        while engine.backlog > QUEUE_BYTES:  # as the collector does: nothing is taken meanwhile
            time.sleep(0.0002)
            engine.advance()
    closing = time.perf_counter()
    engine.close(("m", ""), one)
    while not engine.advance():
        time.sleep(0.0005)
    ended = time.perf_counter()
    engine.shutdown()
    return ended - started, ended - closing


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    rows = ROWS // 8 if quick else ROWS
    found = []
    for preset, workers in (("default", 1), ("default", 2), ("full", 1)):
        window(BLOCK, preset, workers)  # warms up
        taken = [window(rows, preset, workers) for _ in range(1 if quick else 2)]
        seconds = [each for each, _ in taken]
        median = float(np.median(seconds))
        found.append(
            {
                "preset": preset,
                "workers": workers,
                "rows": rows,
                "values_per_second": rows * FEATURES / median,
                "spread": (max(seconds) - min(seconds)) / 2 / median,
                "close_ms": float(np.median([closing for _, closing in taken])) * 1e3,
            }
        )
    return found


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"Engine alone: a window of {FEATURES} features, {CLASSES} classes, from rows to points",
            ("preset", "workers", "rows", "M values/s", "spread", "of it close, ms"),
            [
                (r["preset"], r["workers"], f"{r['rows']:,}", f"{r['values_per_second'] / 1e6:.1f}",
                 f"±{r['spread']:.0%}", f"{r['close_ms']:.0f}")
                for r in found
            ],
        )
    ]  # fmt: skip
