"""Waits between tries: doubled after each failure, up to a limit, shortened at random where many try at once. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """The wait before the next try: `first` seconds, doubled with each failure in a row, at most `longest`.

    Parameters
    ----------
    first, longest : float
        Seconds.
    jitter : float
        The share of a wait that is left to chance, from 0 (none) to 1 (anything between nothing and the whole wait).
    chance : callable
        Returns numbers in [0, 1).

    Examples
    --------
    >>> backoff = Backoff(1.0, 5.0)
    >>> [backoff.next() for _ in range(4)]
    [1.0, 2.0, 4.0, 5.0]
    >>> backoff.reset()
    >>> backoff.next()
    1.0
    >>> Backoff(8.0, 8.0, jitter=0.5, chance=lambda: 0.5).next()
    6.0
    """

    def __init__(
        self, first: float, longest: float, jitter: float = 0.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = self._wait = first
        self._longest = longest
        self._jitter = jitter
        self._chance = chance

    def wait(self) -> float:
        """Return the wait that is due now, in seconds."""
        return self._wait * (1.0 - self._jitter + self._jitter * self._chance())

    def grow(self) -> None:
        """Double the wait, up to the longest."""
        self._wait = min(2 * self._wait, self._longest)

    def next(self) -> float:
        """Return the wait that is due now, and double the one after it."""
        wait = self.wait()
        self.grow()
        return wait

    def reset(self) -> None:
        """Start with the first wait again: a try succeeded."""
        self._wait = self._first
