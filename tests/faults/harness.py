"""Collectors that die and come back under load, and the oracle: each row is in a point or counted, once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas

import zmon
from tests.support.mortal import Mortal
from tests.support.waiting import until

FULL = bool(os.environ.get("ZMON_FAULTS"))  # `make faults`: the whole of it; CI runs a shortened set
OLD = 1_000_000_020  # a minute in 2001
FEATURES = 6
MOST_WAITING = 1200  # rows of a publisher
LIVE = """
[collector]
window = "1h"
grace = "0s"
"""


def table(random: np.random.Generator, rows: int) -> pandas.DataFrame:
    """Numeric columns and a categorical one."""
    frame = pandas.DataFrame(random.normal(size=(rows, FEATURES)), columns=[f"x{i}" for i in range(FEATURES)])
    frame["colour"] = random.choice(["red", "green", "blue"], rows)
    return frame


def batches(agent: int, windows: int, per_window: int, rows: int) -> Iterator[tuple[dict[str, Any], int]]:
    """What an agent publishes: the same in every run, in order of time, some batches across a window's end."""
    random = np.random.default_rng(agent)
    for number in range(windows * per_window):
        times = OLD + (number + np.sort(random.random(rows)) * 1.4) * 60 / per_window
        labels = random.integers(-1, 3, rows)
        yield (
            {
                "probabilities": random.dirichlet(np.ones(3), rows),
                "inputs": table(random, rows),
                "segments": {"country": random.choice(["de", "fr", "it"], rows)},
                "labels": [None if label < 0 else label for label in labels.tolist()],
                "timestamps": np.minimum(times, OLD + windows * 60 - 0.001),
            },
            rows,
        )


def same(left: dict[int, dict[Any, float]], right: dict[int, dict[Any, float]]) -> None:
    """The same windows, the same series, the same values but for the last digits of floats."""
    assert left.keys() == right.keys()
    for start, window in left.items():
        assert window.keys() == right[start].keys(), start
        for names, value in window.items():
            assert math.isclose(value, right[start][names], rel_tol=1e-9, abs_tol=1e-12), (start, names)


class Timed:
    """A publisher whose calls are timed: whatever happens to the collector, the model must not notice."""

    # Seconds that a call may work, and may take where the machine does other things: one that waited for a collector
    # would take as long as a timeout. The bench measures what a call really takes, on a quiet machine.
    BUDGET, LONGEST = 0.002, 0.1

    def __init__(self, publisher: zmon.Publisher) -> None:
        self.publisher = publisher
        self.seconds: list[float] = []
        self.worked: list[float] = []  # seconds of the processor, in the calling thread
        self.issued = 0

    def publish(self, rows: int, **arguments: Any) -> None:
        p = np.full((rows, 3), 1 / 3)
        started, working = time.perf_counter(), time.thread_time()
        self.publisher.publish(p, **arguments)
        self.worked.append(time.thread_time() - working)
        self.seconds.append(time.perf_counter() - started)
        self.issued += rows

    def for_a_while(self, seconds: float, rows: int = 20, pause: float = 0.002) -> None:
        """Publish now and again."""
        until_ = time.monotonic() + seconds
        while time.monotonic() < until_:
            self.publish(rows)
            time.sleep(pause)  # the load

    def stays_in_budget(self) -> None:
        median, most = np.quantile(self.seconds, (0.5, 0.99))
        assert median < self.BUDGET and most < self.LONGEST, f"median of publish {median} s, p99 {most} s"
        assert (work := np.quantile(self.worked, 0.99)) < self.BUDGET, f"p99 of a call's own work {work} s"


def settled(collector: Mortal, issued: int) -> dict[str, int]:
    """The oracle: rows issued = rows in points + rows counted."""
    kinds = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")
    counts = {kind: collector.total(kind) for kind in kinds}
    assert sum(counts.values()) == issued, (counts, issued)
    assert collector.total("buffer_count", agents=False) == counts["buffer_count"]
    return counts


def feed(
    publishers: list[zmon.Publisher],
    sources: list[Iterator[tuple[dict[str, Any], int]]],
    pause: float,
    after: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish all sources side by side; how many rows. `after` is called after each round, with the rows so far.

    A collector that takes long to start gets no burst of all rows in the end: then windows close as soon as they open.
    """
    issued = 0
    for round_ in zip(*sources, strict=True):
        for publisher, (arguments, rows) in zip(publishers, round_, strict=True):
            publisher.publish(**arguments)
            issued += rows
        time.sleep(pause)  # the load
        after(issued)
        for publisher in publishers:
            until(lambda publisher=publisher: waiting(publisher) <= MOST_WAITING, what="the collector to take rows")
    return issued


def waiting(publisher: zmon.Publisher) -> int:
    """How many rows are not acknowledged."""
    stats = publisher.stats
    return stats.queued + stats.underway
