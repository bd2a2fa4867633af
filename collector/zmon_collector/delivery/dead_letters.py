"""Dead letters: samples that a target system refused, kept with the reason, listed, sent again, dropped.

The health report, the command line and the docs call them samples that were set aside.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from zmon.contract import Refused
from zmon.errors import RetryLater
from zmon_collector.clock import system_time
from zmon_collector.storage.database import Database
from zmon_collector.storage.integrity import checksum
from zmon_collector.storage.sealed import SealedTable
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

Row = dict[str, Any]
LISTED = 1000  # rows of one answer
_TABLE = SealedTable("refused", "reader, sequence, at, code, description, sample")
COLUMNS = ("id", "sink", "sequence", "at", "code", "description", "sample")  # of a row


class DeadLetters:
    """The dead letters of all sinks.

    Parameters
    ----------
    database : Database
    telemetry : Telemetry
    rows : int
        Samples kept; beyond it the oldest are dropped and counted.
    keep : float
        Seconds after which a sample is dropped and counted.
    wall : callable
        Returns the time of the collector's clock.
    """

    def __init__(
        self,
        database: Database,
        telemetry: Telemetry,
        *,
        rows: int,
        keep: float,
        wall: Callable[[], float] = system_time,
    ) -> None:
        self._database = database
        self._telemetry = telemetry
        self._rows = rows
        self._keep = keep
        self._wall = wall
        self.counts: dict[str, int] = {}  # by sink, as of the last change

    def ledger(self, reader: str, ends: Callable[[], bool] = lambda: False) -> SinkLedger:
        """Return the ledger of a sink; `ends` says whether the sink should stop in the middle of a report."""
        return SinkLedger(reader, self, self._database, ends)

    # --- inside the database's transactions --------------------------------------------------------------------------

    def record(self, connection: sqlite3.Connection, reader: str, sequence: int, refused: Sequence[Refused]) -> None:
        """Keep samples of a report that the sink's target refused."""
        now = self._wall()
        rows = [(reader, sequence, now, one.code, one.description, msgpack.packb(dict(one.sample))) for one in refused]
        _TABLE.write_new(rows, connection)
        self._telemetry.count("samples_refused", reader, len(refused))
        self.trim(connection)

    def trim(self, connection: sqlite3.Connection) -> None:
        """Drop what is too old or too much; count what is left. Nothing is scanned: there may be many samples."""
        dropped = connection.execute(
            "DELETE FROM refused WHERE at < ? RETURNING reader", (self._wall() - self._keep,)
        ).fetchall()
        excess = self._read_counts(connection) - self._rows
        if excess > 0:
            dropped += connection.execute(
                "DELETE FROM refused WHERE id IN (SELECT id FROM refused ORDER BY id LIMIT ?) RETURNING reader",
                (excess,),
            ).fetchall()
            self._read_counts(connection)
        for (reader,), n in Counter(dropped).items():
            self._telemetry.count("refused_dropped", reader, n)

    def _read_counts(self, connection: sqlite3.Connection) -> int:
        """Read the samples of each sink, which the database counts as rows come and go; return their sum."""
        self.counts = dict(connection.execute("SELECT reader, samples FROM refused_counts WHERE samples > 0"))
        return sum(self.counts.values())

    def page(self, connection: sqlite3.Connection, sink: str | None, after: int) -> list[Row]:
        """Return the next rows after an id, of one sink or of all."""
        where, values = _chosen(None, sink)
        return self._select(connection, f"id > ? AND {where}", (after, *values))

    def read(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[Row]:
        """Return the rows with these ids that exist."""
        return self._select(connection, *_chosen(ids, None))

    def drop(self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None) -> int:
        """Delete the rows with the ids, or all of a sink, or all; return how many."""
        where, values = _chosen(ids, sink)
        dropped = connection.execute(f"DELETE FROM refused WHERE {where}", values).rowcount
        self.trim(connection)
        return dropped

    def ids_by_sink(
        self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None
    ) -> dict[str, list[int]]:
        """Return the ids that exist, by sink."""
        where, values = _chosen(ids, sink)
        by_sink: dict[str, list[int]] = {}
        for number, reader in connection.execute(f"SELECT id, reader FROM refused WHERE {where} ORDER BY id", values):
            by_sink.setdefault(reader, []).append(number)
        return by_sink

    def _select(self, connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Row]:
        rows = connection.execute(
            f"SELECT id, {_TABLE.columns}, crc FROM refused WHERE {where} ORDER BY id LIMIT {LISTED}", values
        ).fetchall()
        return [row for each in rows if (row := self._decode(connection, *each)) is not None]

    def _decode(self, connection: sqlite3.Connection, number: int, *values: Any) -> Row | None:
        """Return a row as it is listed; drop and count a damaged one, which would be in the way of the others."""
        *columns, crc = values
        try:
            if crc is not None and crc != checksum(columns):  # None: an earlier release wrote it
                raise ValueError("its checksum does not match")
            sample = msgpack.unpackb(columns.pop())
        except (ValueError, TypeError) as error:
            log.error("the set-aside sample %d is damaged and is dropped: %s", number, error)
            self._telemetry.count("refused_damaged")
            connection.execute("DELETE FROM refused WHERE id = ?", (number,))
            return None
        return dict(zip(COLUMNS, (number, *columns, sample), strict=True))

    # --- from the sink's own thread ----------------------------------------------------------------------------------

    def resend(self, ids: Sequence[int], send: Callable[[list[Any]], Sequence[Refused | None]]) -> None:
        """Pass the samples to `send` and delete those that were accepted. If it raises, all are kept."""
        rows = self._database.call(lambda connection: self.read(connection, ids))
        if not rows:
            return
        outcome = send([row["sample"] for row in rows])
        pairs, now = list(zip(rows, outcome, strict=True)), self._wall()
        accepted = [row["id"] for row, refused in pairs if refused is None]
        again = [(now, refused.code, refused.description, row["id"]) for row, refused in pairs if refused is not None]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE refused SET at = ?, code = ?, description = ? WHERE id = ?", again)
            _TABLE.seal("id", (number for *_, number in again), connection)
            self.drop(connection, accepted, None)

        self._database.call(write)


def _chosen(ids: Sequence[int] | None, sink: str | None) -> tuple[str, Sequence[Any]]:
    """Return the condition, and its values, of the rows with the ids, or all of a sink, or all."""
    if ids is None:
        return ("TRUE", ()) if sink is None else ("reader = ?", (sink,))
    return f"id IN ({', '.join('?' * len(ids))})", ids


class SinkLedger:
    """The `zmon.Ledger` of one sink, kept in the database."""

    def __init__(self, reader: str, dead_letters: DeadLetters, database: Database, ends: Callable[[], bool]) -> None:
        self._reader = reader
        self._ends = ends
        self._dead_letters = dead_letters
        self._database = database

    def settled(self, sequence: int) -> int:
        def read(connection: sqlite3.Connection) -> Any:
            row = connection.execute(
                "SELECT done FROM settled WHERE reader = ? AND sequence = ?", (self._reader, sequence)
            ).fetchone()
            return row[0] if row else 0

        return int(self._database.call(read))

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO settled (reader, sequence, done) VALUES (?, ?, ?)",
                (self._reader, sequence, samples),
            )
            if refused:
                self._dead_letters.record(connection, self._reader, sequence, refused)

        self._database.call(write)
        if self._ends():  # between two pieces: what is settled is not sent again
            raise RetryLater("the collector stops; the rest of the report is sent after a restart")
