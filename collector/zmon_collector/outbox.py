"""Reports between the closing of windows and the sinks: numbered, in order, bounded. In this release held in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from zmon.contract import Report
from zmon_collector.engine import Closed

POINT_BYTES = 400  # about what a point with its names takes


class Outbox:
    """Reports by sequence. Sinks read with a cursor each; what all have read is let go.

    Parameters
    ----------
    limit : int
        Bytes; the oldest reports go when newer ones do not fit, and are counted.
    first : int
        Sequence of the first report.
    """

    def __init__(self, limit: int, first: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._next = first
        self._reports: OrderedDict[int, Report] = OrderedDict()
        self._points = 0
        self._cursors: dict[str, int] = {}
        self._changed = threading.Condition()
        self._ended = False

    def append(self, closed: Closed, tags: Mapping[str, Mapping[str, str]]) -> Report:
        """Number a closed window's values and keep them for the sinks."""
        with self._changed:
            model, version = closed.model
            report = Report(self._next, model, version, closed.window, closed.points, closed.rows, tags)
            self._next += 1
            self._reports[report.sequence] = report
            self._points += len(report.points)
            while self._points * POINT_BYTES > self._limit and len(self._reports) > 1:
                self._pop()
                self.dropped += 1
            self._changed.notify_all()
            return report

    def subscribe(self, reader: str) -> None:
        """A reader that must see every report from now on."""
        with self._changed:
            self._cursors[reader] = self._next - 1

    def wait(self, reader: str) -> Report | None:
        """The oldest report the reader has not done, as soon as there is one; None at the end."""
        with self._changed:
            while True:
                for sequence, report in self._reports.items():
                    if sequence > self._cursors[reader]:
                        return report
                if self._ended:
                    return None
                self._changed.wait()

    def done(self, reader: str, sequence: int) -> None:
        """The reader has dealt with the report."""
        with self._changed:
            self._cursors[reader] = sequence
            behind = min(self._cursors.values())
            while self._reports and next(iter(self._reports)) <= behind:
                self._pop()
            self._changed.notify_all()

    def end(self) -> None:
        """No more reports will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._reports)

    def _pop(self) -> None:
        _, report = self._reports.popitem(last=False)
        self._points -= len(report.points)
