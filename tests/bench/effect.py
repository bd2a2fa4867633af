"""What publishing takes from a model's own throughput: a model that can do about 1,000 batches a second, and does.

The model is a NumPy network on one thread, as large as makes a batch of 32 rows take a millisecond. It runs without
pause, in blocks of half a second after a start that is not timed, so that a block holds as much of the background
thread's work, which comes five times a second, as it makes: without `publish()`, with it and a collector on
the last core, with it and no collector, in turn. Each turn gives one figure, of time and of processor time a batch (of
the whole process: the background thread is in it).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.measure import LAST, Table, interval, said, script
from tests.support.processes import Running

COLLECTED = "a collector on the last core"
TURNS = 60  # each with all three; fewer than 40 say too little
SERVE = """
import json, sys, time, numpy as np, zmon
data, control, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
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

def serve(publisher, batches):
    for _ in range(batches):
        p = predict(depth)
        if publisher is not None:
            publisher.publish(p, inputs=x)

def block(publisher, batches):
    serve(publisher, 250)  # what the background still owes for these is done during the others, as theirs is later
    wall, used = time.perf_counter(), time.process_time()
    serve(publisher, batches)
    return (time.perf_counter() - wall) / batches, (time.process_time() - used) / batches

depth = 1
while seconds(depth) < 0.001:
    depth += 1
with (zmon.Publisher("m", classes=10, collector=data, control=control, agent_id="bench") as publisher,
      zmon.Publisher("m", classes=10, collector="ipc:///nonexistent/zmon", agent_id="bench") as alone):
    serve(publisher, 500)
    assert publisher.flush(30)
    found = []
    for number in range(turns):
        turn = {}
        for each in [(None, publisher, alone), (publisher, alone, None), (alone, None, publisher)][number % 3]:
            turn[each] = block(each, 500)
            publisher.flush(30)
        found.append([turn[None], turn[publisher], turn[alone]])
    alone.close(0)
print(json.dumps(found))
"""


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    running = Running(folder / "effect", "--window", "1h")
    os.sched_setaffinity(running.process.pid, {LAST})
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    number = 8 if quick else TURNS
    try:
        serving = script(SERVE, running.health["data"], running.health["control"], number, env=environment)
        turns = np.array(json.loads(said(serving)))
    finally:
        running.end()
    rows = []
    for place, name in enumerate((COLLECTED, "no collector: what the call itself takes"), 1):
        lost, more = (turns[:, place] / turns[:, 0] - 1).T
        low, high = np.percentile(lost, (25, 75))
        surely = interval(lost)
        rows.append(
            {
                "what": name,
                "batches_per_second": float(1 / np.median(turns[:, 0, 0])),
                "with_publish": float(1 / np.median(turns[:, place, 0])),
                "lost": float(np.median(lost)),
                "lost_low": float(low),
                "lost_high": float(high),
                "median_low": surely[0],
                "median_high": surely[1],
                "turns": len(lost),
                "more_cpu": float(np.median(more)),
            }
        )
    return rows


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"A model's own throughput, at 1,000 batches of 32×(10+20) a second, in {found[0]['turns']} paired turns",
            ("", "batches/s", "with publish()", "time a batch", "95% interval of this median",
             "half of the turns within", "processor time a batch"),
            [
                (r["what"], f"{r['batches_per_second']:,.0f}", f"{r['with_publish']:,.0f}", f"{r['lost']:+.2%}",
                 f"{r['median_low']:+.2%} … {r['median_high']:+.2%}", f"{r['lost_low']:+.1%} … {r['lost_high']:+.1%}",
                 f"{r['more_cpu']:+.2%}")
                for r in found
            ],
        )
    ]  # fmt: skip
