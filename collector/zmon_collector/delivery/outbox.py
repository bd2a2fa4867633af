"""Reports between the closing of windows and their readers (sinks, observers): numbered, in order, durable, bounded.

A report is written in the transaction that closes its window. Each reader has a cursor; what all have read is deleted.
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

CACHED = 64  # newest reports kept in memory for their readers
AT_ONCE = 500  # samples that were set aside in one go

_MOVE_CURSOR = "INSERT OR REPLACE INTO cursors (reader, sequence) VALUES (?, ?)"


class Redelivery(NamedTuple):
    """Samples that were set aside and are to be sent again, by id."""

    ids: tuple[int, ...]


class Outbox:
    """Reports by sequence.

    Parameters
    ----------
    database : Database
    telemetry : Telemetry
    limit : int
        Bytes of reports that wait; beyond it the oldest go, counted for each reader that had not read them.
    keep : float
        Seconds after which a report goes, whoever has not read it.
    first : int
        Sequence of the first report, should the store know of none later.
    """

    def __init__(self, database: Database, telemetry: Telemetry, *, limit: int, keep: float, first: int) -> None:
        self._database = database
        self._telemetry = telemetry
        self._limit = limit
        self._keep = keep
        self._next = first
        self._waiting: OrderedDict[int, tuple[int, float]] = OrderedDict()  # (bytes, when written) by sequence
        self._cache: OrderedDict[int, Report] = OrderedDict()
        self._nbytes = 0
        self._cursors: dict[str, int] = {}
        self._changed = threading.Condition()
        self._asked: dict[str, deque[Redelivery]] = {}
        self._ended = False

    def load(self, connection: sqlite3.Connection, readers: Sequence[str]) -> None:
        """Go on where the last run ended. Readers that are new begin with the next report."""
        for sequence, written, nbytes in connection.execute(
            "SELECT sequence, written, length(data) FROM reports ORDER BY sequence"
        ):
            self._waiting[sequence] = (nbytes, written)
            self._nbytes += nbytes
        known = dict(connection.execute("SELECT reader, sequence FROM cursors"))
        newest = max([self._next - 1, *self._waiting, *known.values()])
        self._next = newest + 1
        self._cursors = {reader: known.get(reader, newest) for reader in readers}
        for reader in known.keys() - self._cursors.keys():
            log.warning("reader %r is gone from the configuration; what waited for it goes", reader)
            connection.execute("DELETE FROM cursors WHERE reader = ?", (reader,))
        connection.executemany(_MOVE_CURSOR, self._cursors.items())
        self._let_go(connection)

    # --- writing -----------------------------------------------------------------------------------------------------

    def prepare(
        self, closed: ClosedWindow, tags: Mapping[str, Mapping[str, str]]
    ) -> tuple[Callable[[sqlite3.Connection], int], Callable[[int], None]]:
        """Number a closed window's values. What to run in the closing transaction, and what once it is on disk."""
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
                self._nbytes += nbytes
                self._cache[report.sequence] = report
                while len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
                self._changed.notify_all()
            if self._is_over():
                self._database.submit(self._let_go)

        return write, written

    # --- reading, from the readers' threads --------------------------------------------------------------------------

    def wait(self, reader: str, timeout: float | None = None) -> Report | Redelivery | None:
        """The oldest report the reader has not done, as soon as there is one; None at the end, or in time.

        `Redelivery` comes before it, when somebody asked for that.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                sequence = self._next_for(reader)
                while sequence is None and not self._ended and not self._asked.get(reader):
                    left = None if until is None else until - time.monotonic()
                    if left is not None and left <= 0:
                        return None
                    self._changed.wait(left)
                    sequence = self._next_for(reader)
                if self._asked.get(reader) and not self._ended:
                    return self._asked[reader].popleft()
                if sequence is None:
                    return None
                report = self._cache.get(sequence)
            if report is None:
                report = self._database.call(partial(self._read, sequence))
            if report is not None:
                return report
            self.done(reader, sequence)  # it was dropped meanwhile, or is damaged

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
            log.error("report %d is damaged and goes: %s", sequence, error)
            self._telemetry.count("reports_damaged")
            return None

    def done(self, reader: str, sequence: int) -> None:
        """The reader has dealt with the report."""
        with self._changed:
            self._cursors[reader] = sequence

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_MOVE_CURSOR, (reader, sequence))
            connection.execute("DELETE FROM settled WHERE reader = ? AND sequence <= ?", (reader, sequence))
            self._let_go(connection)

        self._database.submit(write)

    def ask_again(self, reader: str, ids: Sequence[int]) -> None:
        """Let the reader send these samples, which were set aside, again. Forgotten when the collector ends before."""
        with self._changed:
            asked = self._asked.setdefault(reader, deque())
            asked.extend(Redelivery(tuple(ids[start : start + AT_ONCE])) for start in range(0, len(ids), AT_ONCE))
            self._changed.notify_all()

    def end(self) -> None:
        """No more reports will come in this run."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def behind(self) -> dict[str, int]:
        """How many reports wait for each reader."""
        with self._changed:
            return {
                reader: sum(sequence > cursor for sequence in self._waiting) for reader, cursor in self._cursors.items()
            }

    # --- bounds ------------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        with self._changed:
            oldest = next(iter(self._waiting.values()), None)
            return oldest is not None and (self._nbytes > self._limit or oldest[1] < time.time() - self._keep)

    def _let_go(self, connection: sqlite3.Connection) -> None:
        """Delete what all have read, and the oldest of what is too much or too old."""
        with self._changed:
            behind = min(self._cursors.values(), default=0)
            gone = []
            for sequence, (nbytes, written) in list(self._waiting.items()):
                dropped = sequence > behind
                if dropped and (self._nbytes <= self._limit and written >= time.time() - self._keep):
                    break
                if dropped and len(self._waiting) == 1:
                    break  # one report always fits
                if dropped:
                    for reader, cursor in self._cursors.items():
                        if cursor < sequence:
                            self._telemetry.count("outbox_dropped", reader)
                gone.append(sequence)
                del self._waiting[sequence]
                self._cache.pop(sequence, None)
                self._nbytes -= nbytes
        if gone:
            connection.execute("DELETE FROM reports WHERE sequence <= ?", (gone[-1],))


def next_sequence(data_dir: Path) -> int:
    """The number after that of the newest file written by an earlier run."""
    numbers = [path.stem.rpartition("-")[2] for path in (data_dir / "anodot").glob("*-*.json")]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
