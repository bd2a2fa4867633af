"""Processor time of a whole process that publishes single rows at a steady rate: what a row costs it in all.

Turns of a second, 2,000 calls each: a call that does nothing, a raw pyzmq send of one small row, and `publish()` of one
dict of thirteen mixed values. What doing nothing takes, the pace itself, is subtracted from the others.

``python -m tests.bench.rate FOLDER`` measures another checkout of zmon in the same turns: `BEFORE` comes from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.ends import acknowledging, process
from tests.bench.measure import Table, script

ROOT = Path(__file__).parents[2]
PER_SECOND = 2000
COMMIT = "dbf30ad"  # the last release line whose publish() converted rows in the calling thread
BEFORE = 3.0  # raw sends that a row cost there: 2.6, 3.0 and 3.1 in three runs of 15 turns
CALLS = ("nothing", "raw send", "publish")
SERVE = """
import sys, time, msgpack, numpy as np, zmq, zmon
data, control = sys.argv[1:3]
port, rate, rows = map(int, sys.argv[3:])
p = np.array([[0.25, 0.75]], dtype="f4")
x = np.random.default_rng(0).normal(size=(1, 10)).astype("f4")
row = {f"amount_{i}": 1.5 * i for i in range(6)} | {f"count_{i}": i for i in range(3)}
row |= {f"city_{i}": city for i, city in enumerate(("Rome", "Oslo", "Bonn"))} | {"known": True}
raw = zmq.Context().socket(zmq.PUB)
raw.connect(f"tcp://127.0.0.1:{port}")

def send():
    header = msgpack.packb({"n": 1, "arrays": [["p", "<f4", p.shape], ["x", "<f4", x.shape]], "ts": time.time_ns()})
    raw.send_multipart([b"z1/00/model//agent/", header, p.tobytes(), x.tobytes()])

with zmon.Publisher("m", classes=["no", "yes"], collector=data, control=control, agent_id="bench") as publisher:
    calls = {"nothing": lambda: None, "raw send": send, "publish": lambda: publisher.publish(p, [row])}
    publisher.publish(p, [row])
    assert publisher.flush(30)
    print(zmon.__file__, flush=True)
    for line in sys.stdin:
        call, due, used = calls[line.strip()], time.perf_counter(), time.process_time()
        for _ in range(rows):
            due = max(due + 1 / rate, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            call()
        assert publisher.flush(30)
        print(time.process_time() - used, flush=True)
    stats = publisher.stats
    assert not stats.dropped and not stats.rejected, stats
raw.context.destroy(0)
"""


def run(folder: Path, quick: bool, checkouts: dict[str, Path] | None = None) -> list[dict[str, Any]]:
    """The checkouts by name, this one by default: microseconds a row, and in raw sends of the same turns."""
    checkouts = checkouts or {"this": ROOT}
    used: dict[tuple[str, str], list[float]] = {(name, call): [] for name in checkouts for call in CALLS}
    rows = 200 if quick else PER_SECOND
    with ExitStack() as stack:
        there = stack.enter_context(acknowledging())
        port = stack.enter_context(process("tests.bench.drain")).strip()
        serving = {
            name: stack.enter_context(
                script(
                    SERVE, there["collector"], there["control"], port, PER_SECOND, rows,
                    cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
                )
            )
            for name, checkout in checkouts.items()
        }  # fmt: skip
        for name, each in serving.items():
            assert Path(_line(each)).is_relative_to(checkouts[name].resolve())
        for number in range(3 if quick else 16):
            for name, call in used:
                seconds = turn(serving[name], call)
                if number:  # the first round warms up
                    used[name, call].append(seconds)
        for each in serving.values():
            each.communicate(timeout=60)
            assert each.returncode == 0
    return [row(name, {call: float(np.median(used[name, call])) / rows for call in CALLS}) for name in checkouts]


def turn(serving: subprocess.Popen[str], call: str) -> float:
    """Seconds of processor time that a turn takes."""
    assert serving.stdin is not None
    serving.stdin.write(f"{call}\n")
    serving.stdin.flush()
    return float(_line(serving))


def row(name: str, seconds: dict[str, float]) -> dict[str, Any]:
    """The figures of a checkout, from the median seconds of each call."""
    nothing, raw, publish = (1e6 * seconds[call] for call in CALLS)
    return {
        "zmon": name,
        "pace_us": nothing,
        "raw_us": raw - nothing,
        "publish_us": publish - nothing,
        "of_raw": (publish - nothing) / (raw - nothing),
    }


def _line(serving: subprocess.Popen[str]) -> str:
    assert serving.stdout is not None
    return serving.stdout.readline().strip()


def show(found: list[dict[str, Any]]) -> list[Table]:
    rows = [
        (f"publish of a dict of 13 mixed values ({r['zmon']})", f"{r['publish_us']:.1f}", f"{r['of_raw']:.2f}")
        for r in found
    ]
    return [
        Table(
            f"Single rows at {PER_SECOND:,} a second: processor time of the whole process",
            ("", "µs a row", "× raw send"),
            [
                ("the pace alone, subtracted from the others", f"{found[0]['pace_us']:.1f}", ""),
                ("raw send of a small row", f"{found[0]['raw_us']:.1f}", "1.00"),
                *rows,
                (f"the same at commit {COMMIT}, in a run of its own", "", f"{BEFORE:.2f}"),
            ],
        )
    ]


if __name__ == "__main__":
    for table in show(run(Path(), "--quick" in sys.argv, {"this": ROOT, "the other": Path(sys.argv[1]).resolve()})):
        sys.stdout.write(f"{table.text()}\n")
