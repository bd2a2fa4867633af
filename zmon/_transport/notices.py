"""Log lines for the operator of the model's service: rate-limited, and never a reason to stop."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("zmon")

EVERY = 300.0  # seconds between two lines of one kind
MOST = 256  # kinds of lines, and so lines, in that time


def say(line: str, *values: object, level: int = logging.WARNING, trace: bool = False) -> None:
    """Log a line; a handler that raises costs only the line."""
    try:
        log.log(level, line, *values, exc_info=trace)
    except BaseException as error:
        # Handlers are the service's code. In the main thread, Ctrl-C and the like interrupt them, and must pass.
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise


class RateLimit:
    """At most one line of each kind in `EVERY` seconds."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def allows(self, kind: str, now: float | None = None) -> bool:
        """Return whether a line of this kind may be logged now, and note that it is."""
        if now is None:
            now = time.monotonic()
        if now - self._said.get(kind, -EVERY) < EVERY:
            return False
        if len(self._said) >= MOST:
            self._said = {other: then for other, then in self._said.items() if now - then < EVERY}
            if len(self._said) >= MOST:
                return False
        self._said[kind] = now
        return True
