"""The history's thread: everything that touches history.sqlite runs on it, one call after the other."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from zmon.contract import Report
from zmon_collector.clock import system_time
from zmon_collector.dashboard.history import History

log = logging.getLogger("zmon.collector")
T = TypeVar("T")


class HistoryWorker:
    """The history and the one thread that uses it."""

    def __init__(self, path: Path, keep: float, limit: int, wall: Callable[[], float] = system_time) -> None:
        self._history = History(path, keep, limit)
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, "zmon-history-file")
        self._begun, self._busy = 0, False  # calls, and whether one is running
        self._restating_fails = False  # it has been logged

    def start(self) -> None:
        """Open the history in its thread, which may take a while; ConfigurationError if a newer release wrote it."""
        self._history.refuse_newer()
        self._submit(self._history.open)

    def sign(self) -> int | None:
        """Return a number that changes with every call; None while no call is running."""
        return self._begun if self._busy else None

    def _submit(self, call: Callable[..., T], *args: object) -> Future[T]:
        return self._thread.submit(self._run, call, *args)

    def _run(self, call: Callable[..., T], *args: object) -> T:
        self._begun, self._busy = self._begun + 1, True
        try:
            return call(*args)
        finally:
            self._busy = False

    def read(self, query: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run a function of history_queries.py in the history's thread."""
        return self._submit(self._history.read, query)

    def read_bytes(self) -> int:
        """Return how many bytes the history uses."""
        return self._submit(lambda: self._history.nbytes).result()

    @property
    def set_aside(self) -> int:
        """Number of damaged files that were replaced by a new one."""
        return self._history.set_aside

    def append(self, report: Report, wall: float) -> None:
        """Write a report; return when it is in the history."""
        self._submit(self._history.append, report, wall).result()

    def restate(self, make: Callable[[], list[Report]], done: Callable[[bool], None]) -> None:
        """Compute and write restated windows in the history's thread; `done` is told whether they are stored.

        They may not be: the disk is full, a metric raises, or the history is closing. The caller makes them again.
        """
        with contextlib.suppress(RuntimeError):  # the collector ends
            self._submit(self._restate, make, done)

    def _restate(self, make: Callable[[], list[Report]], done: Callable[[bool], None]) -> None:
        stored = False
        try:
            reports = make()
            for report in reports:
                self._history.append(report, self._wall())
            stored = True
        except Exception as error:  # noqa: BLE001 - a metric may raise anything; the files are not affected
            if not self._restating_fails:
                log.error("cannot restate a window, trying again later: %s: %s", type(error).__name__, error)
            self._restating_fails = True
        else:
            self._restating_fails = self._restating_fails and not reports
        finally:
            done(stored)

    def stop(self, timeout: float = 10.0) -> bool:
        """Close the history after the last write; return False when that takes longer."""
        closed = self._submit(self._history.close)
        self._thread.shutdown(wait=False)
        return bool(wait([closed], timeout).done)
