"""What answers may cost: a share of a core for rendering, and places for those at work and those that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BusyError(Exception):
    """There is no place for one more; come again a little later."""


class Budget:
    """A share of a core in the long run. What was not used for a while may be used at once, up to a bound.

    Parameters
    ----------
    share : float
        Of a core.
    saved : float
        Seconds of a core that may be saved up.
    """

    def __init__(self, share: float, saved: float) -> None:
        self._share, self._saved = share, saved
        self._paid_until = time.monotonic() - saved / share

    def spend(self, seconds: float) -> None:
        """Note that so many seconds of a core were used."""
        earliest = time.monotonic() - self._saved / self._share
        self._paid_until = max(self._paid_until, earliest) + seconds / self._share

    def wait(self) -> float:
        """Return the seconds until there is something to spend."""
        return max(0.0, self._paid_until - time.monotonic())


class Places:
    """Places for those at work, and for those that wait. Used in one loop.

    Parameters
    ----------
    at_work, waiting : int
    """

    def __init__(self, at_work: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(at_work)
        self._waiting, self._most = 0, waiting

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Have a place at work for the time of a block.

        Raises
        ------
        BusyError
            As many wait as may.
        """
        if self._free.locked() and self._waiting >= self._most:
            raise BusyError
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
