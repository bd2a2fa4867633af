"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import zmon
from zmon._transport.engine import ENGINE
from zmon._transport.stream import Stream

PATIENCE = 120.0  # seconds; how long a machine takes says nothing about the code


def until(condition: Callable[[], Any], what: str = "condition") -> Any:
    """Wait until `condition` returns something true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {PATIENCE} s")


def stream_of(publisher: Any) -> Stream:
    """Return the engine's side of a publisher."""
    stream: Stream = publisher._stream
    return stream


def settled(publisher: Any) -> zmon.Stats:
    """Wait until everything that was published is converted, or found to be bad; return the counters."""

    def is_converted() -> bool:
        ENGINE.notify()  # starts it if a time limit interrupted its start
        return not stream_of(publisher).waiting

    until(is_converted, "the conversion of what was published")
    stats: zmon.Stats = publisher.stats
    return stats


def busy() -> float:
    """Return how much longer things take because the machine does other things, too: 1 with two to do a processor."""
    return max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))
