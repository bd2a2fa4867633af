"""What the scripts of `tests.support.children` use, inside the child: a publisher, its sum, shortages, the report."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import zmon

faulthandler.enable()  # where each thread stands, when the test gives up and sends SIGABRT

FULL = bool(os.environ.get("ZMON_FAULTS"))  # `make faults`: everything at full length
ONE = np.full(1, 0.9)
TEN = np.full(10, 0.9)


def publisher(**options: Any) -> zmon.Publisher:
    return zmon.Publisher(**{"model": "m", "classes": 2, "collector": sys.argv[1], "agent_id": "host", **options})


def accounted(stats: zmon.Stats) -> int:
    """Return the sum over all states that a row can be in."""
    return (
        stats.queued
        + stats.underway
        + stats.acknowledged
        + sum(stats.dropped.values())
        + sum(stats.rejected.values())
        + stats.sampled_out
    )


def states(stats: zmon.Stats) -> dict[str, Any]:
    """Return the snapshot as plain values."""
    names = ("published", "acknowledged", "queued", "underway", "sampled_out", "labels", "failed", "queued_bytes")
    plain = {name: getattr(stats, name) for name in names}
    return plain | {"dropped": dict(stats.dropped), "rejected": dict(stats.rejected), "sum": accounted(stats)}


def report(**values: Any) -> None:
    """Print the results; `stats` is spelt out."""
    if isinstance(values.get("stats"), zmon.Stats):
        values["stats"] = states(values["stats"])
    print(json.dumps(values), flush=True)


def wait_for(condition: Callable[[], Any], seconds: float = 100.0) -> bool:
    """Wait for a condition; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Lines(logging.Handler):
    """The log lines of zmon, as the operator of the model's process sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("zmon").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def with_(self, *words: str) -> list[str]:
        """Return the lines that hold one of the words."""
        return [line for line in self.lines if any(word in line for word in words)]


def isolated(work: Callable[..., dict[str, Any]], *arguments: Any, seconds: float = 120.0) -> dict[str, Any]:
    """Run `work` in a forked child; its result, or ``{"died": signal or exit code}``."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            os.write(writing, json.dumps(work(*arguments)).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    if not select.select([reading], [], [], seconds)[0]:
        os.kill(pid, signal.SIGABRT)  # faulthandler says where it hangs
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return json.loads(answer) if not died else {"died": died}  # type: ignore[no-any-return]


# --- shortages ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Leave so many descriptors to this process, as a leak elsewhere in it does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], descriptors() + 80), before[1]))
    held: list[int] = []
    with contextlib.suppress(OSError):
        while len(held) < 200:
            held.append(os.open(os.devnull, os.O_RDONLY))
    assert len(held) < 200, "the limit does not bind"
    for _ in range(spare):
        os.close(held.pop())
    try:
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


STACK = 2**28  # bytes of address space that a thread reserves
SLACK = 190 * 2**20  # for everything else


def with_large_stacks() -> None:
    """Start this script again with so large a stack for each thread that address space limits their number."""
    if resource.getrlimit(resource.RLIMIT_STACK)[0] != STACK:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        os.execv(sys.executable, [sys.executable, *sys.argv])


@contextlib.contextmanager
def few_threads(spare: int) -> Iterator[None]:
    """Leave so many threads to this process; call `with_large_stacks` first."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare * STACK + SLACK, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def threads_to_be_had(most: int = 8) -> int:
    """Return how many threads can be started at the same time, at most `most`."""
    import _thread

    gate, started = _thread.allocate_lock(), 0
    gate.acquire()

    def wait() -> None:
        with gate:
            pass

    with contextlib.suppress(RuntimeError):
        while started < most:
            _thread.start_new_thread(wait, ())
            started += 1
    gate.release()
    return started


def tasks() -> int:
    """Return the number of threads of the operating system."""
    return len(list(Path("/proc/self/task").iterdir()))


def descriptors() -> int:
    """Return the number of open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))
