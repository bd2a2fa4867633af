"""The collector's wall clock, which never goes back, whatever happens to that of the system.

Windows that have closed stay closed. If the clock followed a system whose clock is set back, what arrives now would
belong to windows of an hour ago, and count as late for an hour; nothing would close, and ages would be negative. So it
goes on by the monotonic clock, a tenth slower until the system has caught up: after an hour back, for ten hours. A
clock that is set ahead is followed at once: that is what a machine does that was suspended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RATE = 0.9  # of the monotonic clock, while it is ahead of the system's
NOTEWORTHY = 1.0  # seconds that it is ahead, from which an operator is told
MOST_AHEAD = 12 * 3600.0  # seconds; a start that would be further ahead follows the system's clock


def system_time() -> float:
    """Return the system's time in epoch seconds."""
    return time.time()


class Clock:
    """A wall clock that never goes back. Any thread may use it.

    Parameters
    ----------
    system, monotonic : callable
        The clocks of the system; tests give others.
    """

    def __init__(
        self, system: Callable[[], float] = system_time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._system, self._monotonic = system, monotonic
        self._lock = threading.Lock()
        self._newest, self._at = float("-inf"), monotonic()
        self._ahead = 0.0

    def wall(self) -> float:
        """Return the time in epoch seconds: no earlier than ever before."""
        with self._lock:
            system, at = self._system(), self._monotonic()
            self._newest, self._at = max(system, self._newest + RATE * max(0.0, at - self._at)), at
            self._ahead = self._newest - system
            return self._newest

    def restore(self, newest: float) -> None:
        """Go on from the newest time of an earlier run, unless that is too far ahead to be waited for."""
        with self._lock:
            if newest - self._system() <= MOST_AHEAD:
                self._newest, self._at = max(self._newest, newest), self._monotonic()

    @property
    def ahead(self) -> float:
        """Seconds that it was ahead of the system's clock when it was last read; 0 unless that was set back."""
        return self._ahead

    @property
    def problem(self) -> str:
        """A sentence for operators while it is ahead of the system's clock; empty otherwise."""
        ahead = self._ahead
        if ahead < NOTEWORTHY:
            return ""
        remedy = "restart the collector to follow it now" if ahead > MOST_AHEAD else "correct it if it is wrong"
        return (
            f"the system's clock was set back: the collector's is {ahead:.0f} s ahead of it, and runs a tenth slower "
            f"until both agree; {remedy}"
        )
