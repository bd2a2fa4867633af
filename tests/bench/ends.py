"""The other ends of what is measured, each a process of its own on the last core, and the raw send that is the unit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import zmq

from tests.bench.measure import LAST

TOPIC = b"z1/00/model//agent/"
Send = Callable[..., Any]


@contextmanager
def process(module: str) -> Iterator[str]:
    """Run a module of the benchmark that prints one line when it is ready; the line."""
    with subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        os.sched_setaffinity(running.pid, {LAST})
        try:
            yield running.stdout.readline()
        finally:
            running.kill()


@contextmanager
def raw_sends() -> Iterator[Send]:
    """Give a function that sends arrays by pyzmq with a msgpack header; without arrays it sends one small row."""
    p = np.random.default_rng(0).dirichlet(np.ones(2), 1).astype("f4")
    x = np.random.default_rng(1).normal(size=(1, 10)).astype("f4")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with process("tests.bench.drain") as port, context.socket(zmq.PUB) as raw:
        raw.setsockopt(zmq.LINGER, 0)
        raw.connect(f"tcp://127.0.0.1:{int(port)}")
        time.sleep(0.5)  # until the subscription has come; there is nothing to poll for on a PUB socket

        def send(p: np.ndarray = p, x: np.ndarray = x) -> None:
            header = msgpack.packb(
                {"n": 1, "arrays": [["p", p.dtype.str, p.shape], ["x", x.dtype.str, x.shape]], "ts": time.time_ns()}
            )
            raw.send_multipart([TOPIC, header, p.tobytes(), x.tobytes()])

        yield send
    context.term()


@contextmanager
def acknowledging() -> Iterator[dict[str, str]]:
    """Give the publisher's arguments for a peer that reads and acknowledges everything at once."""
    with process("tests.bench.acknowledge") as endpoints:
        data, control = endpoints.split()
        yield {"collector": data, "control": control}
