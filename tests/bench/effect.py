"""What publishing takes from a model's own throughput: a model that can do about 1,000 batches a second, and does.

The model is a NumPy network on one thread, as large as makes a batch of 32 rows take a millisecond. It runs without
pause, in blocks of a quarter of a second, with and without `publish()` in turn; each pair of blocks gives one figure, of
batches a second and of processor time a batch (of the whole process: the publisher's thread is in it).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.measure import LAST, Table, said, script
from tests.e2e.test_processes import Running

SERVE = """
import json, sys, time, numpy as np, zmon
data, control, pairs = sys.argv[1], sys.argv[2], int(sys.argv[3])
random = np.random.default_rng(0)
x = random.normal(size=(32, 20)).astype("f4")
first, last = random.normal(size=(20, 256)).astype("f4"), random.normal(size=(256, 10)).astype("f4")
hidden = random.normal(size=(256, 256)).astype("f4") / 16

def predict(depth):
    h = np.maximum(x @ first, 0)
    for _ in range(depth):
        h = np.maximum(h @ hidden, 0)
    z = h @ last
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def seconds(depth):
    found = []
    for _ in range(100):
        started = time.perf_counter()
        predict(depth)
        found.append(time.perf_counter() - started)
    return float(np.median(found))

def block(publisher, batches):
    wall, used = time.perf_counter(), time.process_time()
    for _ in range(batches):
        p = predict(depth)
        if publisher is not None:
            publisher.publish(p, inputs=x)
    return (time.perf_counter() - wall) / batches, (time.process_time() - used) / batches

depth = 1
while seconds(depth) < 0.001:
    depth += 1
with zmon.Publisher("m", classes=10, collector=data, control=control, agent_id="bench") as publisher:
    block(publisher, 500)
    assert publisher.flush(30)
    found = []
    for number in range(pairs):
        pair = {}
        for each in (publisher, None) if number % 2 else (None, publisher):
            pair[each is not None] = block(each, 250)
            publisher.flush(30)
        found.append([*pair[False], *pair[True]])
print(json.dumps(found))
"""


def run(folder: Path, quick: bool) -> dict[str, float]:
    running = Running(folder / "effect", "--window", "1h")
    os.sched_setaffinity(running.process.pid, {LAST})
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        serving = script(
            SERVE, running.health["data"], running.health["control"], 20 if quick else 80, env={**os.environ, **single}
        )
        pairs = np.array(json.loads(said(serving)))
    finally:
        running.end()
    lost, more = pairs[:, 2] / pairs[:, 0] - 1, pairs[:, 3] / pairs[:, 1] - 1
    low, high = np.percentile(lost, (25, 75))
    return {
        "batches_per_second": float(1 / np.median(pairs[:, 0])),
        "with_publish": float(1 / np.median(pairs[:, 2])),
        "lost": float(np.median(lost)),
        "lost_low": float(low),
        "lost_high": float(high),
        "more_cpu": float(np.median(more)),
    }


def show(found: dict[str, float]) -> list[Table]:
    return [
        Table(
            "A model's own throughput, at 1,000 batches of 32×(10+20) a second",
            ("", "batches/s", "with publish()", "throughput lost", "half of the pairs within", "more processor time"),
            [
                ("NumPy network, one thread", f"{found['batches_per_second']:,.0f}", f"{found['with_publish']:,.0f}",
                 f"{found['lost']:.2%}", f"{found['lost_low']:.1%} … {found['lost_high']:.1%}",
                 f"{found['more_cpu']:.2%}"),
            ],
        )
    ]  # fmt: skip
