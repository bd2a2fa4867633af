"""Collectors that die and come back under load, and the oracle: each row is in a point or counted, once."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from zmon_collector.admin import ask

import zmon
from tests.conftest import by_names, until

FULL = bool(os.environ.get("ZMON_FAULTS"))  # `make faults`: the whole of it; CI runs a shortened set
OLD = 1_000_000_020  # a minute in 2001
FEATURES = 6
CONFIG = """
[collector]
window = "60s"
grace = "0s"
idle = "60s"
max_wait = "120s"
[metrics]
preset = "full"
"""


def free_port() -> int:
    """A port whose neighbour is free, too; of those that no outgoing connection is given while a collector is away."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Mortal:
    """A collector process on one port and one folder, started as often as needed."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder / "data"
        self.config = folder / "zmon.toml"
        self.config.write_text(config)
        self.log = folder / "log"
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.checkpoint_bytes = 150_000
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, point: str = "-", *arguments: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.collector", str(self.checkpoint_bytes), point, "collect",
                 "--config", str(self.config),
                 "--bind", self.endpoint, *arguments, "--data-dir", str(self.folder)],
                stderr=log,
            )  # fmt: skip

    def wait_until_up(self) -> dict[str, Any]:
        health: dict[str, Any] = until(lambda: ask(self.folder, "health", 0.2), 30, "the collector's answer")
        return health

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)

    def end(self) -> None:
        """Stop as an operator does, start again, close every window, and stop."""
        if self.alive:
            self._terminate()
        self.start("-", "--flush-on-exit")
        self.wait_until_up()
        self._terminate()

    def _terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text()

    def points(self) -> dict[int, dict[Any, float]]:
        """Values by window start; a window that was written twice fails here."""
        found: dict[int, list[Any]] = {}
        for path in sorted((self.folder / "anodot").glob("*.json")):
            samples = json.loads(path.read_text())
            assert samples[0]["timestamp"] not in found, f"window {samples[0]['timestamp']} was written twice"
            found[samples[0]["timestamp"]] = samples
        return {start: by_names(samples) for start, samples in found.items()}

    def total(self, what: str, agents: bool = True) -> int:
        """Sum of a series over all windows and agents (or of the rollup)."""
        return int(
            sum(
                value
                for window in self.points().values()
                for names, value in window.items()
                if dict(names)["what"] == what
                and ("agent_id" in dict(names)) == agents
                and "segment_name" not in dict(names)
            )
        )

    def publisher(self, agent: str, model: str = "m", **options: Any) -> zmon.Publisher:
        return zmon.Publisher(model, classes=3, collector=self.endpoint, agent_id=agent, **options)

    @contextmanager
    def running(self, *arguments: str, point: str = "-") -> Iterator[Mortal]:
        self.start(point, *arguments)
        try:
            self.wait_until_up()
            yield self
        finally:
            if self.alive:
                self.kill()


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

    BUDGET = 0.002  # seconds, p99; the bench measures what it really is, on a quiet machine

    def __init__(self, publisher: zmon.Publisher) -> None:
        self.publisher = publisher
        self.seconds: list[float] = []
        self.issued = 0

    def publish(self, rows: int, **arguments: Any) -> None:
        p = np.full((rows, 3), 1 / 3)
        started = time.perf_counter()
        self.publisher.publish(p, **arguments)
        self.seconds.append(time.perf_counter() - started)
        self.issued += rows

    def for_a_while(self, seconds: float, rows: int = 20, pause: float = 0.002) -> None:
        """Publish now and again."""
        until_ = time.monotonic() + seconds
        while time.monotonic() < until_:
            self.publish(rows)
            time.sleep(pause)

    def stays_in_budget(self) -> None:
        assert float(np.quantile(self.seconds, 0.99)) < self.BUDGET, (
            f"p99 of publish {np.quantile(self.seconds, 0.99)} s"
        )


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
    """Publish all sources side by side; how many rows. `after` is called after each round, with the rows so far."""
    issued = 0
    for round_ in zip(*sources, strict=True):
        for publisher, (arguments, rows) in zip(publishers, round_, strict=True):
            publisher.publish(**arguments)
            issued += rows
        time.sleep(pause)
        after(issued)
    return issued
