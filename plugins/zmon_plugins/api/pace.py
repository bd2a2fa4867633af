"""The pace of requests. The clock is passed in. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Source of time: the module `time`, or a test's own."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class TokenBucket:
    """Limit of `rate` a second in the long run, and `size` at once.

    >>> now = [0.0]
    >>> bucket = TokenBucket(2.0, 2.0, lambda: now[0])
    >>> bucket.take(2.0), bucket.take(1.0)
    (0.0, 0.5)
    >>> now[0] = 0.5
    >>> bucket.take(1.0)
    0.0
    """

    def __init__(self, rate: float, size: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._size = size
        self._clock = clock
        self._level = size
        self._filled = clock()

    def wait(self, amount: float) -> float:
        """Return the seconds until the amount is available."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, (min(amount, self._size) - self._level) / self._rate)

    def take(self, amount: float) -> float:
        """Take the amount, or return the seconds that are missing and take nothing."""
        missing = self.wait(amount)
        if not missing:
            self._level -= amount
        return missing
