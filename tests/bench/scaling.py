"""Nothing may be quadratic: processor time of a unit when there are four and sixteen times as many of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import Now, OpenWindow, Spans, WindowRules

from tests.bench.measure import Table
from zmon._transport.ring import Ring, RingLayout, RingPiece
from zmon.batch import Batch, Schema

GROWTH = 3.0  # what a unit may cost more at sixteen times as many; noise and caches included


def ring(n: int) -> None:
    """Single rows into a ring that overflows."""
    one, layout = Ring(2**20), RingLayout(b"s", (("probabilities", "<f8", 2),))
    for _ in range(n):
        one.append(layout, RingPiece(1, 0, [b"x" * 16]), 16)


def manager(n: int) -> None:
    """Windows of a replay, opened and closed one after the other."""
    one, schema = WindowManager(WindowRules(period=60, grace=0.0)), Schema(classes=("a", "b"))
    for i in range(n):
        now = Now(2e9, float(i))
        one.advance_clock("a", b"a", i * 60.0, now)
        one.place_rows("a", schema, i * 60, 1, now)
        one.close_due(now)


def spans(n: int) -> None:
    """Closed windows that do not touch."""
    one = Spans()
    for i in range(n):
        one.add(i * 120, i * 120 + 60)


def features(n: int) -> None:
    """A window of 500 rows with n features, from rows to points."""
    _window(agents=1, width=n)


def agents(n: int) -> None:
    """A window of 50 rows from each of n agents, rolled up."""
    _window(agents=n, width=5)


def _window(agents: int, width: int) -> None:
    registry = Registry()
    registry.load()
    engine = Engine(Config(), registry, PolicyStore(Config()), lambda: None)
    names = tuple(f"f{i}" for i in range(width))
    schema = Schema(classes=("a", "b"), features=names, kinds=("numeric",) * width)
    rows = 500 if agents == 1 else 50
    window = OpenWindow(0, 60, schema=schema)
    x = np.random.default_rng(0).normal(size=(rows, width))
    for i in range(agents):
        columns = {"probabilities": np.full((rows, 2), 0.5), "inputs": x, "timestamps": np.zeros(rows, dtype=np.int64)}
        window.tally(f"a{i}").received += rows
        engine.add_rows(("m", ""), window, AgentRows(f"a{i}", Batch(schema, columns), i, 1))
    engine.close(("m", ""), window)
    while not engine.advance():
        time.sleep(0.0005)
    engine.shutdown()


CASES: dict[str, tuple[Callable[[int], None], int]] = {
    "rows published": (ring, 5000),
    "windows replayed": (manager, 1000),
    "closed spans": (spans, 600),
    "features": (features, 60),
    "agents": (agents, 6),
}


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    for name, (work, least) in CASES.items():
        costs = []
        for n in (least, 4 * least, 16 * least):
            best = float("inf")
            for _ in range(3 if quick else 5):
                started = time.process_time()  # of all threads; what others do on the machine does not count
                work(n)
                best = min(best, time.process_time() - started)
            costs.append(best / n)
        growth = costs[-1] / costs[0]
        found.append({"units": name, "least": least, "us": [cost * 1e6 for cost in costs], "growth": growth})
        assert growth < GROWTH, f"{name}: a unit costs {growth:.1f} times as much at sixteen times as many"
    return found


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"Growth: cost of a unit at 1, 4 and 16 times as many; above {GROWTH:g} the run fails",
            ("units", "from", "µs at 1", "µs at 4", "µs at 16", "growth"),
            [(r["units"], r["least"], *(f"{us:.2f}" for us in r["us"]), f"{r['growth']:.2f}") for r in found],
        )
    ]
