"""What viewers cost: the collector's processor time with nobody looking, with many who read, with many who do not."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.bench.measure import Table
from tests.support.processes import Running

VIEWERS = 100
PERIOD = 5  # seconds
SERVE = """
import sys, time, numpy as np, zmon
random = np.random.default_rng(0)
p = random.dirichlet(np.ones(10), 50).astype("f4")
x = random.normal(size=(50, 64)).astype("f4")
with zmon.Publisher("m", classes=10, collector=sys.argv[1], control=sys.argv[2], agent_id="bench") as publisher:
    while True:
        publisher.publish(p, inputs=x, labels=p.argmax(axis=1))
        time.sleep(0.05)
"""


class Viewers:
    """Many who look at the same view; one thread reads for all of them."""

    def __init__(self, url: str, count: int) -> None:
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        self.received = 0
        self.sockets = []
        for _ in range(count):
            viewer = socket.create_connection((host, int(port)))
            viewer.sendall(b"GET /api/v1/events?view=model&model=m&range=15m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            self.sockets.append(viewer)

    def read(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for viewer in select.select(self.sockets, [], [], left)[0]:
                self.received += len(viewer.recv(1 << 20))

    def close(self) -> None:
        for viewer in self.sockets:
            viewer.close()


def run(folder: Path, quick: bool) -> dict[str, Any]:
    seconds = PERIOD * (0.5 if quick else 2)
    running = Running(folder / "page", "--window", f"{PERIOD}s", "--web", "127.0.0.1:0")
    process = psutil.Process(running.process.pid)
    publisher = subprocess.Popen([sys.executable, "-c", SERVE, running.health["data"], running.health["control"]])
    found: dict[str, Any] = {"viewers": VIEWERS, "window": PERIOD}
    try:
        time.sleep(1.5 * PERIOD)  # the first window has closed
        for name, count in (("nobody", 0), ("one", 1), ("reading", VIEWERS), ("not reading", VIEWERS)):
            viewers = Viewers(running.health["web"], count)
            with contextlib.closing(viewers):
                if count and name != "not reading":
                    viewers.read(2.0)  # the first picture of each
                else:
                    time.sleep(2.0)
                before, memory = sum(process.cpu_times()[:2]), process.memory_info().rss
                if count and name != "not reading":
                    viewers.read(seconds)
                else:
                    time.sleep(seconds)
                found[name] = (sum(process.cpu_times()[:2]) - before) / seconds
                found[f"{name} MiB"] = (process.memory_info().rss - memory) / 2**20
                found[f"{name} received"] = viewers.received / 2**20
    finally:
        publisher.kill()
        publisher.wait()
        running.end()
    return found


def show(found: dict[str, Any]) -> list[Table]:
    names = ("nobody", "one", "reading", "not reading")
    rows = [
        (name, f"{found[name]:.1%}", f"{found[name] - found['one']:+.1%}", f"{found[f'{name} MiB']:+.1f}",
         f"{found[f'{name} received']:.1f}")
        for name in names
    ]  # fmt: skip
    return [
        Table(
            f"Live page: {found['viewers']} viewers of one model, 64 features, 10 classes, windows of "
            f"{found['window']} s",
            ("viewers", "of a core", "beyond one viewer", "memory MiB", "received MiB"),
            rows,
        )
    ]
