"""Very many publishers at once, and all of them coming back at the same moment after a restart of the collector."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from zmon_collector.admin import ask

from tests.faults.harness import FULL, settled
from tests.support.mortal import Mortal
from tests.support.waiting import until

PUBLISHERS = 1000 if FULL else 120
PROCESSES = 4
CONFIG = """
[collector]
window = "1h"
grace = "0s"
[limits]
agents = 2000
"""

CROWD = """
import json, sys, threading, time
import numpy as np
import zmon

endpoint, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
crowd = [zmon.Publisher("m", classes=3, collector=endpoint, agent_id=f"pod-{first + i}") for i in range(count)]
p = np.full((5, 3), 1 / 3)
sys.setswitchinterval(0.5)  # hundreds of threads wait for one interpreter here: let them wait, not ask all the time
slowest = 0.0
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    for publisher in crowd:
        started = time.perf_counter()
        publisher.publish(p)
        slowest = max(slowest, time.perf_counter() - started)
    stop.wait(2.0)
done = [publisher.flush(90) for publisher in crowd]
stats = [publisher.stats for publisher in crowd]
print(json.dumps({"issued": sum(s.published for s in stats), "dropped": sum(sum(s.dropped.values()) for s in stats),
                  "done": sum(done), "slowest": slowest}), flush=True)
threads = [threading.Thread(target=publisher.close) for publisher in crowd]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@contextmanager
def crowd(endpoint: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of many publishers each, which publish until their standard input is closed."""
    share = PUBLISHERS // PROCESSES
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, endpoint, str(i * share), str(share)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(PROCESSES)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for each in processes:
            each.kill()
            with each:  # closes its pipes, and waits
                pass


@pytest.mark.timeout(600)
def test_a_thousand_publishers_and_a_restart(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, CONFIG)
    started = time.monotonic()
    with collector.running(), crowd(collector.endpoint) as processes:
        until(lambda: connected(collector) == PUBLISHERS, what="all to have said hello")
        served = time.monotonic() - started
        collector.kill()
        restarted = time.monotonic()
        collector.start()
        collector.wait_until_up()
        assert collector.process is not None
        process = psutil.Process(collector.process.pid)
        until(lambda: connected(collector) == PUBLISHERS, what="all to have come back, while they publish")
        back = time.monotonic() - restarted
        for each in processes:
            assert each.stdin is not None
            each.stdin.close()
        most = 0
        while any(each.poll() is None for each in processes):
            most = max(most, process.memory_info().rss)
            time.sleep(0.1)
        cpu = sum(process.cpu_times()[:2])
        took = time.monotonic() - restarted
        results = [json.loads(each.stdout.read()) for each in processes if each.stdout is not None]
        collector.end()
    issued = sum(each["issued"] for each in results)
    slowest = max(each["slowest"] for each in results) * 1e3
    print(
        f"{PUBLISHERS} publishers: all known after {served:.1f} s; all back {back:.1f} s after the kill, "
        f"everything acknowledged after {took:.1f} s; {cpu:.1f} CPU seconds, {most >> 20} MB at most; "
        f"slowest publish {slowest:.1f} ms"
    )
    assert sum(each["done"] for each in results) == PUBLISHERS
    assert sum(each["dropped"] for each in results) == 0
    assert settled(collector, issued)["buffer_count"] == issued
    assert most < 600 * 2**20


def connected(collector: Mortal) -> int:
    health = ask(collector.folder, "health", 2.0)
    return int(health["connected"]) if health else -1


def test_an_agent_id_for_each_request_is_limited_with_an_error(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, '[collector]\nwindow = "1h"\n[limits]\nagents = 10\nstreams = 60\n')
    with collector.running():
        issued = 0
        for number in range(50):
            with collector.publisher(f"request-{number}") as publisher:
                publisher.publish([[0.2, 0.3, 0.5]] * 4)
                issued += 4
                assert publisher.flush(60)
        health = ask(collector.folder, "health")
        assert health is not None
        assert any("limits.agents" in problem for problem in health["problems"])
        collector.end()
    assert settled(collector, issued)["buffer_count"] == issued
    (window,) = collector.points().values()
    agents = {dict(names).get("agent_id") for names in window}
    assert len(agents) == 12, "ten of their own, the others together, and the rollup"
    others = {dict(names)["what"] for names in window if dict(names).get("agent_id") == "__other__"}
    assert "buffer_count" in others
    assert not any(what.startswith(("max_", "class_", "accuracy")) for what in others), others
    assert collector.said().count("more than limits.agents") == 1
