"""Dead letters: samples that a target system refused, kept with the reason, listed, sent again, dropped.

The health report, the command line and the docs call them samples that were set aside.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from zmon.contract import Refused
from zmon.errors import RetryLater
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry

Row = dict[str, Any]
LISTED = 1000  # rows of one answer


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
    """

    def __init__(self, database: Database, telemetry: Telemetry, *, rows: int, keep: float) -> None:
        self._database = database
        self._telemetry = telemetry
        self._rows = rows
        self._keep = keep
        self.counts: dict[str, int] = {}  # by sink, as of the last change

    def ledger(self, reader: str, ends: Callable[[], bool] = lambda: False) -> SinkLedger:
        """Return the ledger of a sink; `ends` says whether the sink should stop in the middle of a report."""
        return SinkLedger(reader, self, self._database, ends)

    # --- inside the database's transactions --------------------------------------------------------------------------

    def record(self, connection: sqlite3.Connection, reader: str, sequence: int, refused: Sequence[Refused]) -> None:
        """Keep samples of a report that the sink's target refused."""
        now = time.time()
        connection.executemany(
            "INSERT INTO refused (reader, sequence, at, code, description, sample) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (reader, sequence, now, letter.code, letter.description, msgpack.packb(dict(letter.sample)))
                for letter in refused
            ],
        )
        self._telemetry.count("samples_refused", reader, len(refused))
        self.trim(connection)

    def trim(self, connection: sqlite3.Connection) -> None:
        """Drop what is too old or too much; count what is left."""
        for reader, n in connection.execute(
            "SELECT reader, count(*) FROM refused WHERE at < ?1 OR id <= "
            "(SELECT id FROM refused ORDER BY id DESC LIMIT 1 OFFSET ?2) GROUP BY reader",
            (time.time() - self._keep, self._rows),
        ).fetchall():
            self._telemetry.count("refused_dropped", reader, n)
        connection.execute(
            "DELETE FROM refused WHERE at < ?1 OR id <= (SELECT id FROM refused ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (time.time() - self._keep, self._rows),
        )
        self.counts = dict(connection.execute("SELECT reader, count(*) FROM refused GROUP BY reader"))

    def page(self, connection: sqlite3.Connection, sink: str | None, after: int) -> list[Row]:
        """Return the next rows after an id, of one sink or of all."""
        return self._select(connection, "id > ? AND (? IS NULL OR reader = ?)", (after, sink, sink))

    def read(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[Row]:
        """Return the rows with these ids that exist."""
        return self._select(connection, _among(ids), ids)

    def drop(self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None) -> int:
        """Delete the rows with the ids, or all of a sink, or all; return how many."""
        if ids is None:
            dropped = connection.execute("DELETE FROM refused WHERE ? IS NULL OR reader = ?", (sink, sink)).rowcount
        else:
            dropped = connection.execute(f"DELETE FROM refused WHERE {_among(ids)}", ids).rowcount
        self.trim(connection)
        return int(dropped)

    def ids_by_sink(
        self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None
    ) -> dict[str, list[int]]:
        """Return the ids that exist, by sink."""
        where, values = ("? IS NULL OR reader = ?", [sink, sink]) if ids is None else (_among(ids), list(ids))
        by_sink: dict[str, list[int]] = {}
        for number, reader in connection.execute(f"SELECT id, reader FROM refused WHERE {where} ORDER BY id", values):
            by_sink.setdefault(reader, []).append(number)
        return by_sink

    def _select(self, connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Row]:
        return [
            {
                "id": number,
                "sink": reader,
                "sequence": sequence,
                "at": at,
                "code": code,
                "description": description,
                "sample": msgpack.unpackb(sample),
            }
            for number, reader, sequence, at, code, description, sample in connection.execute(
                "SELECT id, reader, sequence, at, code, description, sample FROM refused "
                f"WHERE {where} ORDER BY id LIMIT {LISTED}",
                values,
            )
        ]

    # --- from the sink's own thread ----------------------------------------------------------------------------------

    def resend(self, ids: Sequence[int], send: Callable[[list[Any]], Sequence[Refused | None]]) -> None:
        """Pass the samples to `send` and delete those that were accepted. If it raises, all are kept."""
        rows = self._database.call(lambda connection: self.read(connection, ids))
        if not rows:
            return
        outcome = send([row["sample"] for row in rows])
        accepted = [row["id"] for row, refused in zip(rows, outcome, strict=True) if refused is None]
        again = [
            (time.time(), refused.code, refused.description, row["id"])
            for row, refused in zip(rows, outcome, strict=True)
            if refused is not None
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM refused WHERE {_among(accepted)}", accepted)
            connection.executemany("UPDATE refused SET at = ?, code = ?, description = ? WHERE id = ?", again)
            self.trim(connection)

        self._database.call(write)


def _among(ids: Sequence[int]) -> str:
    return f"id IN ({', '.join('?' * len(ids))})"


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
