"""From publish() to whoever looks: the time until a server-sent event of the live page contains the rows.

A viewer follows the model's view; batches come at random instants, one at a time, into open windows. The clock stops
at the first event whose chart of rows has them.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

import zmon
from tests.bench.measure import Table
from tests.support.processes import Running

PERIOD = 60
ROWS = 60  # a batch


def follow(url: str, seen: queue.SimpleQueue[tuple[float, int]]) -> None:
    """Put the time of every event and the rows that it shows."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/events?view=model&model=m&range=15m") as stream:
        for line in stream:
            if line.startswith(b"data:"):
                at = time.monotonic()
                panels = {panel["id"]: panel["figure"] for panel in json.loads(line[5:])["panels"]}
                chart = panels.get("rows")
                seen.put((at, round(sum(chart["data"][0]["y"]) * PERIOD) if chart else 0))


def run(folder: Path, quick: bool) -> dict[str, float]:
    running = Running(folder / "look", "--window", f"{PERIOD}s", "--web", "127.0.0.1:0")
    seen: queue.SimpleQueue[tuple[float, int]] = queue.SimpleQueue()
    p = np.full((ROWS, 2), 0.5)
    x = np.random.default_rng(0).normal(size=(ROWS, 20))
    chance = np.random.default_rng(1)
    waits = []
    with zmon.Publisher(
        "m", classes=2, collector=running.health["data"], control=running.health["control"], agent_id="bench"
    ) as publisher:
        publisher.publish(p, inputs=x)
        assert publisher.flush(30)
        threading.Thread(target=follow, args=(running.health["web"], seen), daemon=True).start()
        total, started = ROWS, time.monotonic()
        for number in range(5 if quick else 21):
            if number:
                time.sleep(chance.uniform(0.1, 1.1))
                started = time.monotonic()
                publisher.publish(p, inputs=x)
                total += ROWS
            while True:
                at, rows = seen.get(timeout=30)
                if rows >= total:
                    break
            if number:  # the first is the opening of the page
                waits.append((at - started) * 1e3)
    running.end()
    return {"p50_ms": float(np.median(waits)), "most_ms": max(waits), "times": len(waits)}


def show(found: dict[str, float]) -> list[Table]:
    return [
        Table(
            "Publish to page: until a viewer's event contains the rows",
            ("", "p50 ms", "longest ms"),
            [(f"{found['times']:.0f} batches, 20 features", f"{found['p50_ms']:.0f}", f"{found['most_ms']:.0f}")],
        )
    ]
