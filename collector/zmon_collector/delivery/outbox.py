"""The outbox: reports between the closing of windows and their readers (sinks, observers), durable and bounded.

A report is written in the transaction that closes its window, so a crash neither loses nor repeats a window. Each
reader has a cursor, the sequence of the last report that it has handled; what all have handled is deleted.

Sequences only grow and are never used again, not even when state.sqlite is lost: they are part of file names, sinks
recognise a repeated report by them, and a cursor would skip a report with an old number. So the next one follows the
newest report, the newest cursor, the newest written file and the newest window of the page's history.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from zmon.contract import Report
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.delivery import report_codec
from zmon_collector.storage.database import Database
from zmon_collector.storage.integrity import seal, unseal
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

CACHED = 64  # newest reports kept in memory, so that readers that keep up read no disk
AT_ONCE = 500  # dead letters in one redelivery

_MOVE_CURSOR = "INSERT OR REPLACE INTO cursors (reader, sequence) VALUES (?, ?)"


class Redelivery(NamedTuple):
    """Dead letters to be sent again, by id."""

    ids: tuple[int, ...]


class Outbox:
    """Reports by sequence. Written by the collector's thread, read by one thread for each reader.

    Parameters
    ----------
    database : Database
    telemetry : Telemetry
    limit : int
        Bytes of queued reports; beyond it the oldest are dropped, counted for each reader that had not read them.
    keep : float
        Seconds after which a report is dropped, whoever has not read it.
    first : int
        Sequence of the first report by files and history, unless the database knows a later one.
    """

    def __init__(self, database: Database, telemetry: Telemetry, *, limit: int, keep: float, first: int) -> None:
        self._database = database
        self._telemetry = telemetry
        self._limit = limit
        self._keep = keep
        self._next = first
        self._waiting: OrderedDict[int, tuple[int, float]] = OrderedDict()  # (bytes, when written) by sequence
        self._cache: OrderedDict[int, Report] = OrderedDict()
        self.nbytes = 0  # of queued reports
        self._cursors: dict[str, int] = {}
        self._changed = threading.Condition()
        self._redeliveries: dict[str, deque[Redelivery]] = {}
        self.ended = False  # no more reports come in this run

    def load(self, connection: sqlite3.Connection, readers: Sequence[str]) -> None:
        """Continue where the last run ended. Readers that are new start with the next report."""
        for sequence, written, nbytes in connection.execute(
            "SELECT sequence, written, length(data) FROM reports ORDER BY sequence"
        ):
            self._waiting[sequence] = (nbytes, written)
            self.nbytes += nbytes
        cursors = dict(connection.execute("SELECT reader, sequence FROM cursors"))
        newest = max([self._next - 1, *self._waiting, *cursors.values()])
        self._next = newest + 1
        self._cursors = {reader: cursors.get(reader, newest) for reader in readers}
        for reader in cursors.keys() - self._cursors.keys():
            log.warning("sink %r was removed from the configuration; discarding its queued reports", reader)
            connection.execute("DELETE FROM cursors WHERE reader = ?", (reader,))
        connection.executemany(_MOVE_CURSOR, self._cursors.items())
        self._trim(connection)

    # --- writing -----------------------------------------------------------------------------------------------------

    def prepare(
        self, closed: ClosedWindow, tags: Mapping[str, Mapping[str, str]]
    ) -> tuple[Callable[[sqlite3.Connection], int], Callable[[int], None]]:
        """Number the report of a closed window; return what to run in the closing transaction, and after it."""
        model, version = closed.model
        report = Report(self._next, model, version, closed.window, closed.points, closed.rows, tags, closed.details)
        self._next += 1

        def write(connection: sqlite3.Connection) -> int:
            crc, data = seal(report_codec.encode(report))
            row = (report.sequence, time.time(), crc, data)
            connection.execute("INSERT INTO reports (sequence, written, crc, data) VALUES (?, ?, ?, ?)", row)
            return len(data)

        def written(nbytes: int) -> None:
            with self._changed:
                self._waiting[report.sequence] = (nbytes, time.time())
                self.nbytes += nbytes
                self._cache[report.sequence] = report
                while len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
                self._changed.notify_all()
            if self._is_over():
                self._database.submit(self._trim)

        return write, written

    # --- reading, from the readers' threads --------------------------------------------------------------------------

    def wait_for_next(self, reader: str, timeout: float | None = None) -> Report | Redelivery | None:
        """Return the oldest report that the reader has not handled, once there is one; None at the end or timeout.

        A `Redelivery` that was requested comes first.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                left = None if until is None else until - time.monotonic()
                self._changed.wait_for(
                    lambda: self.ended or self._redeliveries.get(reader) or self._next_for(reader), left
                )
                if self._redeliveries.get(reader) and not self.ended:
                    return self._redeliveries[reader].popleft()
                sequence = self._next_for(reader)
                if sequence is None:
                    return None
                report = self._cache.get(sequence)
            if report is None:
                report = self._database.call(partial(self._read, sequence))
            if report is not None:
                return report
            self.mark_done(reader, sequence)  # it was dropped meanwhile, or is damaged

    def _next_for(self, reader: str) -> int | None:
        cursor = self._cursors[reader]
        return next((sequence for sequence in self._waiting if sequence > cursor), None)

    def _read(self, sequence: int, connection: sqlite3.Connection) -> Report | None:
        row = connection.execute("SELECT crc, data FROM reports WHERE sequence = ?", (sequence,)).fetchone()
        if row is None:
            return None
        try:
            return report_codec.decode(unseal(*row))
        except (ValueError, TypeError, KeyError) as error:
            log.error("report %d is damaged and is discarded: %s", sequence, error)
            self._telemetry.count("reports_damaged")
            return None

    def mark_done(self, reader: str, sequence: int) -> None:
        """Move the reader's cursor: it has handled the report."""
        with self._changed:
            self._cursors[reader] = sequence

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_MOVE_CURSOR, (reader, sequence))
            connection.execute("DELETE FROM settled WHERE reader = ? AND sequence <= ?", (reader, sequence))
            self._trim(connection)

        self._database.submit(write)

    def redeliver(self, reader: str, ids: Sequence[int]) -> None:
        """Let the reader send these dead letters again. The request is lost when the collector ends before."""
        with self._changed:
            queue = self._redeliveries.setdefault(reader, deque())
            queue.extend(Redelivery(tuple(ids[start : start + AT_ONCE])) for start in range(0, len(ids), AT_ONCE))
            self._changed.notify_all()

    def end(self) -> None:
        """Announce that no more reports come in this run."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)

    def behind(self) -> dict[str, int]:
        """Return how many reports are queued for each reader."""
        with self._changed:
            return {
                reader: sum(sequence > cursor for sequence in self._waiting) for reader, cursor in self._cursors.items()
            }

    # --- bounds ------------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        with self._changed:
            oldest = next(iter(self._waiting.values()), None)
            return oldest is not None and (self.nbytes > self._limit or oldest[1] < time.time() - self._keep)

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Delete what all readers have handled, and the oldest reports beyond the limits of bytes and age."""
        with self._changed:
            behind = min(self._cursors.values(), default=0)
            deleted = []
            for sequence, (nbytes, written) in list(self._waiting.items()):
                if sequence > behind:  # some reader has not handled it
                    is_within = self.nbytes <= self._limit and written >= time.time() - self._keep
                    if is_within or len(self._waiting) == 1:  # one report always fits
                        break
                    for reader, cursor in self._cursors.items():
                        if cursor < sequence:
                            self._telemetry.count("outbox_dropped", reader)
                deleted.append(sequence)
                del self._waiting[sequence]
                self._cache.pop(sequence, None)
                self.nbytes -= nbytes
        if deleted:
            connection.execute("DELETE FROM reports WHERE sequence <= ?", (deleted[-1],))


def next_sequence(data_dir: Path) -> int:
    """Return the sequence after that of the newest file that an earlier run wrote."""
    numbers = [path.stem.rpartition("-")[2] for path in (data_dir / "anodot").glob("*-*.json")]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
