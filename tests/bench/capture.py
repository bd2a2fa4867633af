"""What publish() costs the model: against a raw pyzmq send of the same bytes, and against copying them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

import zmon
from tests.bench.measure import LAST, Table, interleaved, percentiles, spread
from tests.support.processes import Running

TOPIC = b"z1/00/model//agent/"
SHAPES = [(1, 2, 10), (32, 10, 20), (128, 10, 784)]


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A real collector and the raw send's other end take everything, on the last core."""
    running = Running(folder / "capture", "--window", "1h")
    drain = subprocess.Popen([sys.executable, "-m", "tests.bench.drain"], stdout=subprocess.PIPE, text=True)
    assert drain.stdout is not None
    for process in (running.process, drain):
        os.sched_setaffinity(process.pid, {LAST})
    context = zmq.Context()
    raw = context.socket(zmq.PUB)
    raw.setsockopt(zmq.LINGER, 0)
    raw.connect(f"tcp://127.0.0.1:{int(drain.stdout.readline())}")
    time.sleep(0.5)  # until the subscription has come; there is nothing to poll for on a PUB socket
    found = []
    for rows, classes, features in SHAPES:
        p = np.random.default_rng(0).dirichlet(np.ones(classes), rows).astype("f4")
        x = np.random.default_rng(1).normal(size=(rows, features)).astype("f4")

        def send(p: np.ndarray = p, x: np.ndarray = x) -> None:
            header = msgpack.packb(
                {"n": 1, "arrays": [["p", p.dtype.str, p.shape], ["x", x.dtype.str, x.shape]], "ts": time.time_ns()}
            )
            raw.send_multipart([TOPIC, header, p.tobytes(), x.tobytes()])

        def copy(p: np.ndarray = p, x: np.ndarray = x) -> None:
            p.tobytes()
            x.tobytes()

        publisher = zmon.Publisher(
            f"m{features}", classes=classes, collector=running.health["data"], control=running.health["control"]
        )

        def publish(p: np.ndarray = p, x: np.ndarray = x, publisher: Any = publisher) -> None:
            publisher.publish(p, inputs=x)

        calls = min(300, 24 * 2**20 // (4 * rows * (classes + features)))  # no more than the ring holds
        rounds = 6 if quick else 40
        times = interleaved(
            {"publish": publish, "raw send": send, "memcpy": copy}, rounds, calls, lambda one=publisher: one.flush(30)
        )
        assert publisher.stats.published == (rounds + 1) * calls * rows
        assert not publisher.stats.dropped, "the ring overflowed: the figures would be of something else"
        publisher.close()
        median = {name: np.median(each) for name, each in times.items()}
        for name, each in times.items():
            found.append(
                {
                    "shape": f"{rows}×({classes}+{features})",
                    "what": name,
                    **percentiles(each),
                    "spread": spread(each, rounds),
                    "of_raw": median[name] / median["raw send"],
                    "of_memcpy": median[name] / median["memcpy"],
                }
            )
    drain.kill()
    drain.wait()
    raw.close()
    context.term()
    running.end()
    return found


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
