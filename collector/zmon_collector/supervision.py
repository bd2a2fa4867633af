"""Threads that go on after an error that nobody foresaw, and their signs of life."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zmon.backoff import Backoff
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

FIRST_WAIT, LONGEST_WAIT = 0.1, 30.0  # seconds before the function of a thread is called again
FAILING = 600.0  # seconds in which an error is a problem in health


class SupervisedThread:
    """A daemon thread whose function is called again after an exception, with pauses that grow, until it returns.

    Parameters
    ----------
    name : str
    run : callable
        Returns once the thread is to end. State that it needs again after an exception is its caller's.
    telemetry : Telemetry
        Counts restarts.
    stop : threading.Event
        Set once the thread is to end: it is not started again then.

    Attributes
    ----------
    beats : int
        Signs of life, counted by the thread itself.
    idle : bool
        Whether the thread waits for work, and gives no sign of life meanwhile.
    """

    def __init__(self, name: str, run: Callable[[], None], telemetry: Telemetry, stop: threading.Event) -> None:
        self.name = name
        self.beats = 0
        self.idle = False
        self._run = run
        self._telemetry = telemetry
        self._stop = stop
        self._error, self._failed_at = "", float("-inf")
        self._logged: set[str] = set()  # kinds of errors, each logged once
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)

    @property
    def error(self) -> str:
        """Return the error after which the thread was started again, while that is recent."""
        return self._error if time.monotonic() - self._failed_at < FAILING else ""

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end; return False when it takes longer."""
        if self._thread.ident is not None:  # else it was never started
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def sign(self) -> int | None:
        """Return the number of signs of life; None while the thread waits for work."""
        return None if self.idle else self.beats

    def beat(self) -> None:
        """Give a sign of life. Called by the thread itself."""
        self.beats += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait for work, however long it takes. Called by the thread itself."""
        self.idle = True
        try:
            yield
        finally:
            self.idle = False
            self.beats += 1

    def _supervise(self) -> None:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            try:
                self._run()
                return
            except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin, too: it would end the thread only
                if self._stop.is_set():
                    return
                self._note(error)
            self.idle = False
            if self._stop.wait(backoff.next()):
                return
            self.beats += 1

    def _note(self, error: BaseException) -> None:
        kind = type(error).__name__
        self._error, self._failed_at = f"{kind}: {error}", time.monotonic()
        self._telemetry.count("threads_restarted", self.name)
        if kind not in self._logged:
            self._logged.add(kind)
            what = "the thread %s failed and is started again; further errors of this kind are only counted"
            log.error(what, self.name, exc_info=error)
