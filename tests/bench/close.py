"""From a window's end to its file, for samples of 5,000 × 784; and whether receiving goes on undisturbed meanwhile.

A window is full of one or three agents' rows, acknowledged. Then each agent sends the first row of the next window: the
clock starts with the last of those calls and stops when the file is there. Another model publishes single rows all the
time, each as soon as the one before is acknowledged: what they wait tells how receiving fares.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import zmon
from tests.bench.measure import Table
from tests.support.processes import OLD, Running
from tests.support.waiting import until

ROWS, FEATURES, CLASSES, BATCH = 5000, 784, 10, 500
CONFIG = """
[collector]
window = "60s"
grace = "0s"
idle = "5s"
[sinks.anodot_file]
"""


class Probe:
    """Single rows of another model, one after the other; when each was published, and its wait until acknowledged."""

    def __init__(self, publisher: zmon.Publisher) -> None:
        self.publisher = publisher
        self.waits: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        p = np.array([[0.2, 0.8]])
        while not self._stop.is_set():
            started = time.monotonic()
            self.publisher.publish(p, timestamps=OLD)
            assert self.publisher.flush(30)
            self.waits.append((started, time.monotonic() - started))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def within(self, spans: list[tuple[float, float]]) -> np.ndarray:
        """Waits of those that were under way at some time of the spans, in milliseconds."""
        found = [wait * 1e3 for at, wait in self.waits if any(at < end and at + wait > start for start, end in spans)]
        return np.array(found or [0.0])


def closes(folder: Path, agents: int, windows: int) -> dict[str, Any]:
    folder.mkdir()
    config = folder / "zmon.toml"
    config.write_text(CONFIG)
    running = Running(folder / "data", "--config", str(config))
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(CLASSES), BATCH).astype("f4")
    x = random.normal(size=(BATCH, FEATURES)).astype("f4")
    data, control = running.health["data"], running.health["control"]
    seconds, closing, quiet = [], [], []
    with ExitStack() as stack:
        stack.callback(running.end)
        crowd = [
            stack.enter_context(
                zmon.Publisher("m", classes=CLASSES, collector=data, control=control, agent_id=f"pod-{i}")
            )
            for i in range(agents)
        ]
        other = stack.enter_context(
            zmon.Publisher("other", classes=2, collector=data, control=control, agent_id="probe")
        )
        probe = Probe(other)
        stack.callback(probe.stop)
        for number in range(windows + 1):
            for part in range(ROWS // BATCH):
                for each in crowd:
                    each.publish(p, inputs=x, labels=p.argmax(axis=1), timestamps=OLD + 60 * number + part)
                    assert each.flush(30)
            if not number:
                time.sleep(3.0)  # after a start nothing closes for two seconds
            time.sleep(0.3)
            quiet.append((time.monotonic() - 0.3, time.monotonic()))
            for each in crowd:
                each.publish(p[:1], inputs=x[:1], labels=[0], timestamps=OLD + 60 * (number + 1))
            started = time.monotonic()
            _written(running.folder / "anodot", number + 1)
            ended = time.monotonic()
            if number:  # the first warms up
                seconds.append(ended - started)
                closing.append((started, ended))
    during, before = probe.within(closing), probe.within(quiet[1:])
    return {
        "agents": agents,
        "window_ms": float(np.median(seconds)) * 1e3,
        "slowest_ms": max(seconds) * 1e3,
        "sample_ms": float(np.median(seconds)) * 1e3 / (agents + 1),
        "wait_ms": float(np.median(before)),
        "wait_p99_ms": float(np.percentile(before, 99)),
        "wait_closing_ms": float(np.median(during)),
        "wait_closing_p99_ms": float(np.percentile(during, 99)),
    }


def _written(folder: Path, count: int) -> None:
    until(lambda: len(list(folder.glob("*.json"))) >= count, what=f"file {count}")


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    return [closes(folder / f"close-{agents}", agents, 3 if quick else 6) for agents in ((1,) if quick else (1, 3))]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"Window close to file: {ROWS:,}×{FEATURES} rows an agent, {CLASSES} classes, labels; a sample for each "
            "agent and the rollup",
            ("agents", "window ms", "slowest ms", "ms a sample", "others' ack, ms", "p99", "while closing, ms", "p99"),
            [
                (r["agents"], *(f"{r[key]:.0f}" for key in ("window_ms", "slowest_ms", "sample_ms")),
                 *(f"{r[key]:.1f}" for key in ("wait_ms", "wait_p99_ms", "wait_closing_ms", "wait_closing_p99_ms")))
                for r in found
            ],
        )
    ]  # fmt: skip
