"""What publish() costs in bad company: a busy machine, a collector that is away or stopped, eight threads at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import zmon
from tests.bench.measure import LAST, Table, percentiles, script, spread
from tests.support.ports import free_port
from tests.support.processes import Running

ROWS, CLASSES, FEATURES = 32, 10, 20
CALLS = 500  # a round and state
THREADS = 8
P = np.random.default_rng(0).dirichlet(np.ones(CLASSES), ROWS).astype("f4")
X = np.random.default_rng(1).normal(size=(ROWS, FEATURES)).astype("f4")


def timed(call: Callable[[], Any], calls: int) -> list[int]:
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        started = clock()
        call()
        times.append(clock() - started)
    return times


def together(call: Callable[[], Any]) -> list[int]:
    """The same calls from eight threads at once, times of all."""
    found: list[list[int]] = []
    ready = threading.Barrier(THREADS)

    def work() -> None:
        ready.wait()
        found.append(timed(call, CALLS))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for times in found for each in times]


@contextmanager
def busy() -> Iterator[None]:
    """A process that never rests, on the collector's core."""
    process = script("import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass", LAST)
    try:
        yield
    finally:
        process.kill()
        with process:
            pass


def publisher(stack: ExitStack, collector: str, control: str | None) -> zmon.Publisher:
    found = zmon.Publisher("m", classes=CLASSES, collector=collector, control=control, agent_id="bench")
    stack.callback(found.close, 0)
    return found


def collector(stack: ExitStack, folder: Path) -> Running:
    running = Running(folder, "--window", "1h")
    os.sched_setaffinity(running.process.pid, {LAST})
    stack.callback(running.end)
    return running


def saturate(one: zmon.Publisher) -> None:
    """Publish until rows are dropped: from then on each call pushes an older batch out."""
    while not one.stats.dropped:
        for _ in range(1000):
            one.publish(P, inputs=X)


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    rounds = 4 if quick else 24
    times: dict[str, list[int]] = {}
    with ExitStack() as stack:
        near, stopped = collector(stack, folder / "near"), collector(stack, folder / "stopped")
        here = publisher(stack, near.health["data"], near.health["control"])
        there = publisher(stack, stopped.health["data"], stopped.health["control"])
        alone = publisher(stack, f"tcp://127.0.0.1:{free_port()}", None)
        there.publish(P, inputs=X)
        assert there.flush(30)
        stopped.process.send_signal(signal.SIGSTOP)
        stack.callback(stopped.process.send_signal, signal.SIGCONT)
        saturate(there)
        saturate(alone)

        def publish(one: zmon.Publisher) -> Callable[[], Any]:
            return lambda: one.publish(P, inputs=X)

        def copy() -> None:
            P.tobytes()
            X.tobytes()

        for number in range(rounds + 1):
            turn = {"idle": timed(publish(here), CALLS)}
            assert here.flush(30)
            with busy():
                turn["loaded: a busy process beside the collector"] = timed(publish(here), CALLS)
                assert here.flush(30)
            turn["no collector, ring full"] = timed(publish(alone), CALLS)
            turn["collector stopped, ring and link full"] = timed(publish(there), CALLS)
            turn[f"{THREADS} threads"] = together(publish(here))
            assert here.flush(30)
            turn[f"{THREADS} threads that copy"] = together(copy)
            if number:  # the first round warms up
                for name, each in turn.items():
                    times.setdefault(name, []).extend(each)
        assert not here.stats.dropped
    idle = float(np.median(times["idle"]))
    return [
        {
            "state": name,
            **percentiles(np.array(each)),
            "spread": spread(np.array(each), rounds),
            "of_idle": float(np.median(each)) / idle,
        }
        for name, each in times.items()
    ]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"Capture of {ROWS}×({CLASSES}+{FEATURES}), by the state of the world",
            ("state", "p50 µs", "p99 µs", "p99.9 µs", "spread", "p50 × idle"),
            [
                (r["state"], f"{r['p50_us']:.2f}", f"{r['p99_us']:.2f}", f"{r['p999_us']:.2f}", f"±{r['spread']:.0%}",
                 f"{r['of_idle']:.2f}")
                for r in found
            ],
        )
    ]  # fmt: skip
