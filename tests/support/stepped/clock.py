"""The time of a stepped collector, and how it takes the place of the module `time`."""

from __future__ import annotations

import contextlib
import sys
import time as real_time
from collections.abc import Iterator
from typing import Any

T0 = 1_700_000_040  # a minute begins
NANO = 10**9


class Clock:
    """Stands for the module `time` in all modules of the collector."""

    def __init__(self) -> None:
        self.wall, self.mono = float(T0), 1000.0

    def time(self) -> float:
        return self.wall

    def time_ns(self) -> int:
        return int(self.wall * NANO)

    def monotonic(self) -> float:
        return self.mono

    def sleep(self, seconds: float) -> None:
        self.goes(seconds)

    def goes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


@contextlib.contextmanager
def replaced(*values: tuple[Any, str, Any]) -> Iterator[None]:
    """Replace attributes, which must be there: a name that moved would disarm a test without a word."""
    before = []
    for owner, name, value in values:
        assert hasattr(owner, name), f"{owner.__name__}.{name} is gone; this test needs it or its successor"
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def clocks(clock: Clock) -> list[tuple[Any, str, Any]]:
    """What is to be replaced, so that the whole collector lives by this clock."""
    modules = [module for name, module in sys.modules.items() if name.startswith("zmon_collector")]
    return [(module, "time", clock) for module in modules if getattr(module, "time", None) is real_time]
