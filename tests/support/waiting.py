"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmon

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


def counts(publisher: Any) -> tuple[int, dict[str, int]]:
    """Return a publisher's published rows, and its rejected rows by reason, once it has looked at every batch."""
    mark = "probabilities_missing"  # batches are converted in order, so this one is rejected last
    before = publisher.stats.rejected.get(mark, 0)
    type(publisher).publish(publisher)

    def is_rejected() -> bool:
        publisher.flush(0)  # starts the engine if a time limit interrupted its start
        return bool(publisher.stats.rejected.get(mark, 0) > before)

    until(is_rejected, "the rejection of a batch without outputs")
    stats = publisher.stats
    return stats.published, {reason: rows for reason, rows in stats.rejected.items() if reason != mark}


def settled(publisher: zmon.Publisher) -> zmon.Stats:
    """Wait until everything that was published is converted, or found to be bad; return the counters."""
    until(lambda: not publisher._stream.waiting, what="the queue to be empty")
    return publisher.stats
