"""Fills the overview from the history after a start, a slice at a time, while the collector works.

A thousand models with a hundred replicas each are minutes of reading. So the start waits for none of it, and between
two slices the history's thread has time for new windows and for viewers.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future

from zmon_collector.dashboard import history_queries
from zmon_collector.dashboard.history_queries import KnownModel, PointQuery
from zmon_collector.dashboard.history_worker import HistoryWorker
from zmon_collector.dashboard.overview import KEPT, MEASURES, Overview

log = logging.getLogger("zmon.collector")

SLICE = 0.05  # seconds after which no further model is begun
AGAIN = 10.0  # seconds before the history is read again, after the disk failed
PAUSE = 1.0  # times as long as a slice took, before the next


class OverviewRestore:
    """Restores the models of the history, those with the newest windows first, until the overview is full.

    Parameters
    ----------
    history : HistoryWorker
    overview : Overview
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, history: HistoryWorker, overview: Overview, clock: Callable[[], float] = time.monotonic) -> None:
        self._history, self._overview, self._clock = history, overview, clock
        self._left: list[KnownModel] | None = None  # the next one last; None: not listed yet
        self._slice: Future[None] | None = None  # under way
        self._requested = self._next = 0.0

    @property
    def finished(self) -> bool:
        """Whether every model has been restored."""
        return self._left == [] and self._slice is None

    def turn(self, mono: float) -> None:
        """Request the next slice when it is time. Called in every turn of the collector's thread."""
        if self._slice is not None:
            if not self._slice.done():
                return
            self._end_slice(self._slice)
        if self._left != [] and mono >= self._next:
            self._requested = self._clock()
            self._slice = self._history.read(self._restore_some)

    def _end_slice(self, ended: Future[None]) -> None:
        self._slice = None
        now = self._clock()
        self._next = now + PAUSE * (now - self._requested)
        error = ended.exception()
        if isinstance(error, sqlite3.OperationalError):  # the disk: what is left is read later
            self._next = now + AGAIN
        elif error is not None:
            self._left = []
            log.error("the overview starts without the windows of the history: %s: %s", type(error).__name__, error)

    def _restore_some(self, db: sqlite3.Connection) -> None:
        if self._left is None:
            self._left = history_queries.list_models(db)[::-1]
        until = self._clock() + SLICE
        while self._left:
            if self._overview.full:
                self._left.clear()
                break
            self._restore(db, self._left[-1])
            self._left.pop()
            if self._clock() >= until:
                break

    def _restore(self, db: sqlite3.Connection, model: KnownModel) -> None:
        query = PointQuery(
            model.model,
            model.version,
            agents=None,
            what=sorted({what for what, _ in MEASURES}),
            stat=sorted({stat for _, stat in MEASURES}),
            start=model.newest - KEPT * model.period,
        )
        try:
            series = history_queries.read_series(db, query)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - damaged rows, or too many: the others are restored
            log.error("cannot restore the overview of model %r: %s: %s", model.model, type(error).__name__, error)
            return
        reports = history_queries.list_reports(db, model.model, model.version, query.start)
        self._overview.restore(model.model, model.version, series, model.period, reports)
