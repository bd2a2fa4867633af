"""What publish() costs the model: against a raw pyzmq send of the same bytes, and against copying them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import zmon
from tests.bench.ends import Send, raw_sends
from tests.bench.measure import LAST, Table, interleaved, percentiles, spread
from tests.support.processes import Running

SHAPES = [(1, 2, 10), (32, 10, 20), (128, 10, 784)]


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A real collector and the raw send's other end take everything, on the last core."""
    running = Running(folder / "capture", "--window", "1h")
    os.sched_setaffinity(running.process.pid, {LAST})
    with raw_sends() as raw:
        found = [row for shape in SHAPES for row in measured(shape, running, raw, 6 if quick else 40)]
    running.end()
    return found


def measured(shape: tuple[int, int, int], running: Running, raw: Send, rounds: int) -> list[dict[str, Any]]:
    """One shape: publish(), the raw send and the copy in turn."""
    rows, classes, features = shape
    p = np.random.default_rng(0).dirichlet(np.ones(classes), rows).astype("f4")
    x = np.random.default_rng(1).normal(size=(rows, features)).astype("f4")
    publisher = zmon.Publisher(
        f"m{features}", classes=classes, collector=running.health["data"], control=running.health["control"]
    )

    def publish() -> None:
        publisher.publish(p, inputs=x)

    def send() -> None:
        raw(p, x)

    def copy() -> None:
        p.tobytes()
        x.tobytes()

    calls = min(300, 24 * 2**20 // (4 * rows * (classes + features)))  # no more than the ring holds
    times = interleaved(
        {"publish": publish, "raw send": send, "memcpy": copy}, rounds, calls, lambda: publisher.flush(30)
    )
    assert publisher.stats.published == (rounds + 1) * calls * rows
    assert not publisher.stats.dropped, "the ring overflowed: the figures would be of something else"
    publisher.close()
    median = {name: np.median(each) for name, each in times.items()}
    return [
        {
            "shape": f"{rows}×({classes}+{features})",
            "what": name,
            **percentiles(each),
            "spread": spread(each, rounds),
            "of_raw": median[name] / median["raw send"],
            "of_memcpy": median[name] / median["memcpy"],
        }
        for name, each in times.items()
    ]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "Capture: one call in the model's thread",
            ("batch", "", "p50 µs", "p99 µs", "p99.9 µs", "spread", "× raw send", "× memcpy"),
            [
                (r["shape"], r["what"], f"{r['p50_us']:.2f}", f"{r['p99_us']:.2f}", f"{r['p999_us']:.2f}",
                 f"±{r['spread']:.0%}", f"{r['of_raw']:.2f}", f"{r['of_memcpy']:.2f}")
                for r in found
            ],
        )
    ]  # fmt: skip
