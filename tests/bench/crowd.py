"""From one publisher to a thousand: how soon all are known, what they cost the collector, what a call costs among them.

Four processes hold the crowd; each publisher sends five rows every two seconds. Hundreds of publishers in a process are
hundreds of threads of one interpreter, which no service has; the cost of a call there is that of the crowd.
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

SIZES = (1, 10, 100, 1000)
PROCESSES = 4
CONFIG = """
[collector]
window = "1h"
[limits]
agents = 2000
"""

CROWD = """
import json, sys, threading, time, numpy as np, zmon
data, control, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
crowd = [zmon.Publisher("m", classes=3, collector=data, control=control, agent_id=f"pod-{first + i}")
         for i in range(count)]
p = np.full((5, 3), 1 / 3)
sys.setswitchinterval(0.5)  # hundreds of threads wait for one interpreter here: let them wait, not ask all the time
stop, times = threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    for publisher in crowd:
        started = time.perf_counter()
        publisher.publish(p)
        times.append(time.perf_counter() - started)
    stop.wait(2.0)
assert all(publisher.flush(90) for publisher in crowd)
assert not any(publisher.stats.dropped for publisher in crowd)
print(json.dumps(times[count:] or times), flush=True)
threads = [threading.Thread(target=publisher.close) for publisher in crowd]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def gather(folder: Path, size: int, seconds: float) -> dict[str, Any]:
    folder.mkdir()
    config = folder / "zmon.toml"
    config.write_text(CONFIG)
    running = Running(folder / "data", "--config", str(config))
    process = psutil.Process(running.process.pid)
    share = max(1, size // PROCESSES)
    started = time.monotonic()
    crowd = [
        script(CROWD, running.health["data"], running.health["control"], i * share, share)
        for i in range(size // share)
    ]  # fmt: skip

    def connected() -> bool:
        health = ask(running.folder, "health", 2.0)
        return health is not None and health["connected"] == len(crowd) * share

    until(connected, what="all to have said hello")
    known = time.monotonic() - started
    time.sleep(1.0 if size < 1000 else 4.0)  # until the bustle of the start is over
    used, at = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    cpu = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - at)
    resident = process.memory_info().rss / 2**20
    times = [each for one in crowd for each in json.loads(said(one, 120))]  # the end of their input ends them
    running.end()
    times.sort()
    return {
        "publishers": len(crowd) * share,
        "known_s": known,
        "of_a_core": cpu,
        "mib": resident,
        "p50_us": times[len(times) // 2] * 1e6,
    }


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    sizes = (1, 100) if quick else SIZES
    return [gather(folder / f"crowd-{size}", size, 2.0 if quick else 5.0) for size in sizes]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "From one publisher to a thousand, five rows every two seconds each",
            ("publishers", "all known after s", "of a core, collector", "collector MiB", "publish() p50 µs"),
            [
                (f"{r['publishers']:,}", f"{r['known_s']:.1f}", f"{r['of_a_core']:.1%}", f"{r['mib']:.0f}",
                 f"{r['p50_us']:.0f}")
                for r in found
            ],
        )
    ]  # fmt: skip
