"""The watchdog: a thread that looks at the signs of life of all others, and says which of them keep the collector from
its work.

It measures by a clock of its own, which stands still while the process does: the time in which a machine was
suspended, or a debugger stopped the process, does not count. It changes nothing; /healthz and health show its verdict,
and answer when the collector's own thread does not.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from zmon_collector.supervision import SupervisedThread

log = logging.getLogger("zmon.collector")

EVERY = 1.0  # seconds between two looks
STALL = 2.0  # seconds that count at most between two looks


@dataclass(slots=True)
class Vital:
    """A thread that is watched.

    Attributes
    ----------
    name : str
    is_alive : callable
        Whether the thread runs.
    beat : callable
        Returns a value that changes with every sign of life; None while the thread waits for work.
    limit : float
        Seconds without a sign of life that are usual.
    essential : bool
        Whether the collector cannot do its job without it.
    ident : callable
        Returns the thread's identifier, to log where it hangs.
    error : callable
        Returns the error after which the thread was started again.
    """

    name: str
    is_alive: Callable[[], bool]
    beat: Callable[[], object]
    limit: float
    essential: bool = False
    ident: Callable[[], int | None] = lambda: None
    error: Callable[[], str] = str
    last: object = None
    since: float = 0.0  # when `last` was seen first, by the watchdog's clock
    fault: str = ""


class Watchdog:
    """Watches threads from `start` to `stop`.

    Parameters
    ----------
    stalled : callable
        Returns why the collector makes no progress although all threads live, a sentence each.
    """

    def __init__(self, stalled: Callable[[], Sequence[str]] = tuple) -> None:
        self._stalled = stalled
        self.vitals: list[Vital] = []
        self._clock = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zmon-watch", daemon=True)

    def watch(self, vital: Vital) -> None:
        """Watch one more thread."""
        self.vitals.append(vital)

    def watch_supervised(self, thread: SupervisedThread, limit: float, *, essential: bool = False) -> None:
        """Watch one more thread, which starts again after an error."""
        self.watch(Vital(thread.name, thread.is_alive, thread.sign, limit, essential, error=lambda: thread.error))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread: threads that end from now on are no fault."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for vital in self.vitals:
            vital.fault = ""

    def failures(self) -> list[str]:
        """Return why the collector cannot do its job, a sentence each; empty while it can. Any thread may call it."""
        faults = [vital.fault for vital in self.vitals if vital.essential and vital.fault]
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stop.is_set():
            faults.append("the watchdog's thread has ended")
        return [*faults, *self._stalled()]

    def problems(self) -> list[str]:
        """Return what is wrong with any thread, a sentence each."""
        faults = [vital.fault for vital in self.vitals if vital.fault]
        restarted = [(vital.name, error) for vital in self.vitals if (error := vital.error())]
        return [*faults, *(f"the thread {name} failed and was started again: {error}" for name, error in restarted)]

    def states(self) -> dict[str, str]:
        """Return ``ok``, or what is wrong, by thread."""
        vitals = sorted(self.vitals, key=lambda vital: bool(vital.fault))  # a sink's thread may share another's name
        return {vital.name: vital.fault or "ok" for vital in vitals}

    def _run(self) -> None:
        last = monotonic()
        while not self._stop.wait(EVERY):
            now = monotonic()
            self.look(now - last)
            last = now

    def look(self, seconds: float) -> None:
        """Look at all threads, so many seconds after the last look."""
        self._clock += min(seconds, STALL)
        for vital in self.vitals:
            fault = self._fault_of(vital)
            if fault and not vital.fault:
                log.error("%s%s", fault, _where(vital.ident()))
            elif vital.fault and not fault:
                log.warning("the thread %s goes on", vital.name)
            vital.fault = fault

    def _fault_of(self, vital: Vital) -> str:
        if not vital.is_alive():
            return f"the thread {vital.name} has ended; restart the collector"
        beat = vital.beat()
        if beat is None or beat != vital.last:
            vital.last, vital.since = beat, self._clock
            return ""
        silent = self._clock - vital.since
        return f"the thread {vital.name} has given no sign of life for {silent:.0f} s" if silent > vital.limit else ""


def _where(ident: int | None) -> str:
    """Return where a thread stands, for the log."""
    frame = sys._current_frames().get(ident) if ident is not None else None
    return f"; it is in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
