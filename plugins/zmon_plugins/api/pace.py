"""How fast requests may follow each other, and how long to wait after a failure. The clock is passed in. Pure."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """A token bucket: `rate` a second on the long run, `size` at once.

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
        """Seconds until so much may be taken."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, (min(amount, self._size) - self._level) / self._rate)

    def take(self, amount: float) -> float:
        """Take it, or say how many seconds are missing and take nothing."""
        missing = self.wait(amount)
        if not missing:
            self._level -= amount
        return missing


class Backoff:
    """Waits with full jitter: after the n-th failure in a row anything from 0 to ``min(cap, base · 2ⁿ⁻¹)`` seconds."""

    def __init__(self, random: Callable[[], float], base: float = 1.0, cap: float = 60.0) -> None:
        self._random = random
        self._base = base
        self._cap = cap
        self.failures = 0

    def failed(self, least: float = 0.0) -> float:
        """How long to wait now; not less than what the server asked for."""
        self.failures += 1
        return max(least, self._random() * min(self._cap, self._base * 2.0 ** min(self.failures - 1, 30)))

    def succeeded(self) -> None:
        self.failures = 0
