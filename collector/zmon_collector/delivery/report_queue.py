"""The reports that wait for a reader, in order: their sequences, bytes and times. No clock.

A sink that is down leaves a hundred thousand of them, and every reader looks for its next one after each report: so
both ends and every place between are found without a scan.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

SPARE = 1024  # sequences of dropped reports that stay in the list before it is cut


class QueuedReport(NamedTuple):
    """A report that waits."""

    sequence: int
    nbytes: int
    written: float  # epoch seconds


class ReportQueue:
    """Reports by sequence; appended in order, dropped from the oldest on."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._reports: list[QueuedReport] = []
        self._sequences: list[int] = []
        self._first = 0  # index of the oldest; those before it are dropped

    def __len__(self) -> int:
        return len(self._reports) - self._first

    @property
    def oldest(self) -> QueuedReport | None:
        return self._reports[self._first] if len(self) else None

    def append(self, sequence: int, nbytes: int, written: float) -> None:
        """Append a report that is newer than all others."""
        self._reports.append(QueuedReport(sequence, nbytes, written))
        self._sequences.append(sequence)
        self.nbytes += nbytes

    def drop_oldest(self) -> QueuedReport:
        dropped = self._reports[self._first]
        self._first += 1
        self.nbytes -= dropped.nbytes
        if self._first > max(SPARE, len(self)):  # the list is cut once for as many as are left
            del self._reports[: self._first], self._sequences[: self._first]
            self._first = 0
        return dropped

    def after(self, sequence: int) -> int | None:
        """Return the oldest sequence after this one."""
        i = bisect_right(self._sequences, sequence, self._first)
        return self._sequences[i] if i < len(self._sequences) else None

    def count_after(self, sequence: int) -> int:
        """Return how many reports come after this sequence."""
        return len(self._sequences) - bisect_right(self._sequences, sequence, self._first)
