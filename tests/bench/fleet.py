"""Many models with many agents, of which each sends a row a second: how soon rows are acknowledged.

One process plays all agents over one connection, because tens of thousands of publishers need more processes than a
machine has. An agent's rows travel ten at a time. What is measured is the collector's own thread and its database: the
wait for the acknowledgement of each message.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
from zmon_collector.admin import ask

from tests.bench.measure import Table, said, script
from tests.support.processes import Running
from tests.support.waiting import until

ROWS = 10  # in a message
CONFIG = """
[collector]
window = "24h"
[limits]
streams = 200000
models = 2000
"""

FLEET = """
import json, sys, threading, time, numpy as np, zmq
from zmon._wire import control, frames
from zmon.batch import Schema
data, ctl, models, agents, rows, seconds = *sys.argv[1:3], *map(int, sys.argv[3:6]), float(sys.argv[6])
context = zmq.Context()
context.setsockopt(zmq.MAX_SOCKETS, 100)
out, back = context.socket(zmq.PUB), context.socket(zmq.DEALER)
out.setsockopt(zmq.SNDHWM, 0)
back.setsockopt(zmq.SNDHWM, 0)
back.setsockopt(zmq.RCVHWM, 0)
out.connect(data); back.connect(ctl)
body = frames.encode_schema(Schema(classes=("a", "b")))
name = frames.schema_hash(body)
column = np.full((rows, 2), 0.5)
topics = [frames.Topic(f"m{m}", "", f"a{a}").encode() for a in range(agents) for m in range(models)]
streams = [i.to_bytes(16, "big") for i in range(len(topics))]
number = {stream: i for i, stream in enumerate(streams)}
sent, waits = [{} for _ in topics], []
acked, heard = [-1] * len(topics), [0]

def take():
    ack = control.decode_ack(back.recv())
    now, i = time.monotonic(), number[ack.stream]
    heard[0] += acked[i] < 0
    acked[i] = max(acked[i], ack.row)
    for row in [row for row in sent[i] if row <= ack.row]:
        waits.append((now, now - sent[i].pop(row)))

def hello(i):
    back.send(control.encode_greeting("hello", topic=topics[i], stream=streams[i], base=1, acked=0, issued=0, clock=0,
                                      tally={}))

for i in range(len(topics)):
    hello(i)
    if i % 500 == 499:  # answers beyond what the connection holds are dropped
        while heard[0] < i - 2000: take()
while heard[0] < len(topics): take()

def take_all():  # from here on only this thread uses the socket
    while True: take()

threading.Thread(target=take_all, daemon=True).start()
out.send_multipart([bytes(frame) for frame in frames.encode_schema_message(topics[0], streams[0], body)])
time.sleep(0.5)
arrays = [("probabilities", column.dtype.str, list(column.shape))]

def send(i, round):
    first = 1 + round * rows
    frame = frames.encode_batch(topics[i], stream=streams[i], schema=name, buffers=[column.tobytes()], first=first,
                                rows=rows, base=first, arrays=arrays, ts=time.time_ns())
    sent[i][first + rows - 1] = time.monotonic()
    out.send_multipart([bytes(each) for each in frame])

print("ready", flush=True)
begun, done, late = time.monotonic(), 0, 0.0
while (at := time.monotonic() - begun) < seconds:
    due = int(at / rows * len(topics))
    for k in range(done, due):
        send(k % len(topics), k // len(topics))
    late = max(late, time.monotonic() - begun - at)
    done = due
    time.sleep(0.005)
until = time.monotonic() + 60
while any(sent) and time.monotonic() < until: time.sleep(0.05)
settled = begun + seconds / 4  # the first rows of every stream and model cost more
took = sorted(wait for now, wait in waits if now > settled)
took = took[:: max(1, len(took) // 10000)]
print(json.dumps({"sent": done, "unanswered": sum(map(len, sent)), "waits": took}), flush=True)
"""


def serve(folder: Path, models: int, agents: int, seconds: float) -> dict[str, Any]:
    folder.mkdir()
    config = folder / "zmon.toml"
    config.write_text(CONFIG)
    running = Running(folder / "data", "--config", str(config), flush=False)
    process = psutil.Process(running.process.pid)
    try:
        health = running.health
        fleet = script(FLEET, health["data"], health["control"], models, agents, ROWS, seconds)
        assert fleet.stdout is not None
        assert fleet.stdout.readline().strip() == "ready"
        used, at = sum(process.cpu_times()[:2]), time.monotonic()
        found = json.loads(said(fleet, seconds + 120))
        cpu = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - at)
        counters = until(lambda: ask(running.folder, "health", 2.0), what="the collector's answer")["counters"]
    finally:
        running.end()
    waits = found["waits"]
    return {
        "models": models,
        "agents": agents,
        "rows_per_second": found["sent"] * ROWS / seconds,
        "unanswered": found["unanswered"],
        "paused": sum(count for key, count in counters.items() if key.startswith("paused")),
        "cpu": cpu,
        "mib": process.memory_info().rss / 2**20 if process.is_running() else None,
        "ack_ms": {name: waits[int(share * (len(waits) - 1))] * 1e3 for name, share in
                   (("p50", 0.5), ("p99", 0.99), ("max", 1.0))} if waits else {},
    }  # fmt: skip


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    sizes = [(20, 50)] if quick else [(200, 100), (1000, 25)]
    return [serve(folder / f"fleet-{models}", models, agents, 6.0 if quick else 30.0) for models, agents in sizes]


def show(figures: list[dict[str, Any]]) -> list[Table]:
    rows = [
        [
            f"{one['models']} × {one['agents']}", f"{one['rows_per_second']:,.0f}", f"{one['cpu']:.2f}",
            *(f"{one['ack_ms'][name]:.0f}" for name in ("p50", "p99", "max")), one["unanswered"],
        ]
        for one in figures
    ]  # fmt: skip
    head = ["models × agents", "rows/s", "cores", "ack p50 ms", "p99", "max", "unanswered"]
    return [Table("A fleet, a row a second from each agent, ten in a message", head, rows)]
