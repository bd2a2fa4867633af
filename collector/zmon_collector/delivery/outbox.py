"""The outbox: reports between the closing of windows and their readers (sinks, observers), durable and bounded.

A report is written in the transaction that closes its window, so a crash neither loses nor repeats a window. Each
reader has a cursor, the sequence of the last report that it has handled; what all have handled is deleted.

Sequences only grow and are never used again, not even when state.sqlite is lost: they are part of file names, sinks
recognise a repeated report by them, and a cursor would skip a report with an old number. So the next one follows the
newest report, the newest cursor, the newest written file and the newest window of the page's history.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from zmon.contract import Report
from zmon_collector.clock import system_time
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.packing import MIB, largest_first
from zmon_collector.delivery import report_codec
from zmon_collector.delivery.report_queue import QueuedReport, ReportQueue
from zmon_collector.storage import store_file
from zmon_collector.storage.database import Database
from zmon_collector.storage.integrity import seal, unseal
from zmon_collector.storage.sealed import DamagedRows, SealedTable
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

DIGITS = 15  # of the sequence in a file's name, at most; a longer number is not one of ours
CACHED = 64  # newest reports kept in memory, so that readers that keep up read no disk
ROOM = MIB  # bytes of a row of the database beside the report in it
AT_ONCE = 500  # dead letters in one redelivery

CURSORS = SealedTable("cursors", "reader, sequence")


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
    wall : callable
        Returns the time of the collector's clock.
    """

    def __init__(
        self,
        database: Database,
        telemetry: Telemetry,
        *,
        limit: int,
        keep: float,
        first: int = 1,
        wall: Callable[[], float] = system_time,
    ) -> None:
        self._database = database
        self._telemetry = telemetry
        self._limit = limit
        self._keep = keep
        self._wall = wall
        self._next = first
        self._waiting = ReportQueue()
        self._dropped = -1  # the sequence up to which reports are dropped
        self._cache: OrderedDict[int, Report] = OrderedDict()
        self._cursors: dict[str, int] = {}
        self._changed = threading.Condition()
        self._redeliveries: dict[str, deque[Redelivery]] = {}
        self.ended = False  # no more reports come in this run
        self.restored_from: int | None = None  # the newest report of a database older than the files next to it

    def begin_at(self, sequence: int) -> None:
        """Number reports from here on, before `load`."""
        self._next = max(self._next, sequence)

    def load(self, connection: sqlite3.Connection, readers: Sequence[str]) -> None:
        """Continue where the last run ended. Readers that are new start with the next report."""
        self.load_cursors(connection, readers)
        self.load_reports(connection)

    def load_cursors(self, connection: sqlite3.Connection, readers: Sequence[str]) -> None:
        """Read how far readers are, and whether the database is an older copy: the small part of `load`."""
        oldest, newest_report = connection.execute("SELECT min(sequence), max(sequence) FROM reports").fetchone()
        known = newest_report or 0
        damaged: DamagedRows = {CURSORS.name: []} if CURSORS.name in self._database.incomplete else {}
        cursors = dict(CURSORS.read(lambda reader, sequence: (reader, int(sequence)), damaged, connection))
        as_read = set(cursors.items())
        known = max([known, *cursors.values()])
        newest = max(known, self._next - 1)
        sealed = connection.execute("SELECT 1 FROM cursors WHERE crc IS NOT NULL").fetchone()
        if sealed and known < newest and not damaged:
            # Every report is in the database before any file has it, so this is an older copy of the database. What
            # it still has to deliver was delivered since. A file of an earlier release is taken as it is: releases
            # read their predecessors' open windows whatever lies next to them.
            self.restored_from = known
            cursors = dict.fromkeys(cursors, newest)
        # Without its cursor, a reader gets what is queued again rather than not at all.
        first = (oldest or newest + 1) - 1 if damaged else newest
        for _ in damaged.get(CURSORS.name, ()):
            self._telemetry.count("state_rows_damaged", CURSORS.name)
        self._next = newest + 1
        self._cursors = {reader: cursors.get(reader, first) for reader in readers}
        for reader in cursors.keys() - self._cursors.keys():
            log.warning("sink %r was removed from the configuration; discarding its queued reports", reader)
            connection.execute("DELETE FROM cursors WHERE reader = ?", (reader,))
        # Only what has changed, so that a start on a full disk need not wait for room.
        moved = [cursor for cursor in self._cursors.items() if not sealed or cursor not in as_read]
        CURSORS.write(moved, connection)

    def load_reports(self, connection: sqlite3.Connection) -> None:
        """Read which reports wait, and there may be very many: the rest of `load`."""
        for sequence, written, nbytes in connection.execute(
            "SELECT sequence, written, length(data) FROM reports ORDER BY sequence"
        ):
            self._waiting.append(sequence, nbytes, written)
        self.trim(connection)

    # --- writing -----------------------------------------------------------------------------------------------------

    def prepare(
        self, closed: ClosedWindow, tags: Mapping[str, Mapping[str, str]]
    ) -> tuple[Callable[[sqlite3.Connection], int], Callable[[int], None]]:
        """Number and encode a closed window's report; return what to run in the closing transaction, and after it."""
        model, version = closed.model
        report = Report(self._next, model, version, closed.window, closed.points, closed.rows, tags, closed.details)
        report, encoded = self._encode(report, closed.packed)
        self._next += 1

        def write(connection: sqlite3.Connection) -> int:
            crc, data = seal(encoded, report.sequence)
            row = (report.sequence, self._wall(), crc, data)
            connection.execute("INSERT INTO reports (sequence, written, crc, data) VALUES (?, ?, ?, ?)", row)
            return len(data)

        def written(nbytes: int) -> None:
            with self._changed:
                self._waiting.append(report.sequence, nbytes, self._wall())
                self._cache[report.sequence] = report
                while len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
                self._changed.notify_all()
            if self._is_over():
                self._database.submit(self.trim)

        return write, written

    def _encode(self, report: Report, packed: Sequence[bytes] | None) -> tuple[Report, bytes]:
        """Return a report as bytes; if the database would not take them, without the details of some metrics."""
        encoded = report_codec.encode(report, packed)
        excess = len(encoded) - store_file.MOST_BLOB + ROOM
        if excess <= 0 or not report.details:
            return report, encoded
        sizes: Counter[str] = Counter()
        for (_, metric), data in report.details.items():
            sizes[metric] += len(data)
        left_out = largest_first(sizes, max(0, sizes.total() - excess))
        self._telemetry.count("details_left_out", by=len(left_out))
        log.error("the report of a window of model %r would have %d MiB: it is kept without the details of %s",
                  report.model, len(encoded) // MIB, ", ".join(left_out))  # fmt: skip
        kept = {key: data for key, data in report.details.items() if key[1] not in left_out}
        report = replace(report, details=kept)
        return report, report_codec.encode(report, packed)

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
                    lambda: self.ended or self._redeliveries.get(reader) or self._waiting.after(self._cursors[reader]),
                    left,
                )
                if self._redeliveries.get(reader) and not self.ended:
                    return self._redeliveries[reader].popleft()
                sequence = self._waiting.after(self._cursors[reader])
                if sequence is None:
                    return None
                report = self._cache.get(sequence)
            if report is None:
                report = self._database.call(partial(self._read, sequence))
            if report is not None:
                return report
            self.mark_done(reader, sequence)  # it was dropped meanwhile, or is damaged

    def _read(self, sequence: int, connection: sqlite3.Connection) -> Report | None:
        row = connection.execute("SELECT crc, data FROM reports WHERE sequence = ?", (sequence,)).fetchone()
        if row is None:
            return None
        try:
            return report_codec.decode(unseal(*row, sequence))
        except Exception as error:  # noqa: BLE001 - bytes of another program may raise anything
            log.error("report %d is damaged and is discarded: %s", sequence, error)
            self._telemetry.count("reports_damaged")
            return None

    def mark_done(self, reader: str, sequence: int) -> None:
        """Move the reader's cursor: it has handled the report."""
        with self._changed:
            self._cursors[reader] = sequence

        def write(connection: sqlite3.Connection) -> None:
            CURSORS.write([(reader, sequence)], connection)
            connection.execute("DELETE FROM settled WHERE reader = ? AND sequence <= ?", (reader, sequence))
            self.trim(connection)

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

    @property
    def nbytes(self) -> int:
        """Bytes of queued reports."""
        return self._waiting.nbytes

    def behind(self) -> dict[str, int]:
        """Return how many reports are queued for each reader."""
        with self._changed:
            return {reader: self._waiting.count_after(cursor) for reader, cursor in self._cursors.items()}

    # --- bounds ------------------------------------------------------------------------------------------------------

    def _is_within(self, report: QueuedReport) -> bool:
        """Return whether the oldest report is within the limits of bytes and age; the only one always is."""
        alone = len(self._waiting) == 1
        return alone or (self._waiting.nbytes <= self._limit and report.written >= self._wall() - self._keep)

    def _is_over(self) -> bool:
        with self._changed:
            oldest = self._waiting.oldest
            return oldest is not None and not self._is_within(oldest)

    def trim(self, connection: sqlite3.Connection) -> None:
        """Delete what all readers have handled, and the oldest reports beyond the limits of bytes and age."""
        with self._changed:
            handled = min(self._cursors.values(), default=0)  # by all readers
            while (oldest := self._waiting.oldest) is not None:
                if oldest.sequence > handled:
                    if self._is_within(oldest):
                        break
                    for reader, cursor in self._cursors.items():
                        if cursor < oldest.sequence:
                            self._telemetry.count("outbox_dropped", reader)
                self._waiting.drop_oldest()
                self._cache.pop(oldest.sequence, None)
                self._dropped = oldest.sequence
        # Always: a transaction that a full disk undid runs again, and finds nothing to drop here.
        connection.execute("DELETE FROM reports WHERE sequence <= ?", (self._dropped,))


def next_sequence(data_dir: Path) -> int:
    """Return the sequence after that of the newest file that an earlier run wrote."""
    try:
        # Not with pathlib: there may be a file for each window of a year.
        names = [entry.name for entry in os.scandir(data_dir / "anodot")]
    except OSError:
        return 1
    numbers = [name[:-5].rpartition("-")[2] for name in names if name.endswith(".json") and "-" in name]
    return 1 + max((int(number) for number in numbers if number.isdecimal() and len(number) <= DIGITS), default=0)
