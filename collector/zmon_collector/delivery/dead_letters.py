"""Samples that a target system refused: set aside in the store with the reason, listed, sent again, dropped."""

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
    """What was set aside, of all sinks.

    Parameters
    ----------
    database : Database
    telemetry : Telemetry
    rows : int
        Samples kept; beyond it the oldest go, counted.
    keep : float
        Seconds after which a sample goes.
    """

    def __init__(self, database: Database, telemetry: Telemetry, *, rows: int, keep: float) -> None:
        self._database = database
        self._telemetry = telemetry
        self._rows = rows
        self._keep = keep
        self.counts: dict[str, int] = {}  # by sink, as of the last change

    def ledger(self, reader: str, ends: Callable[[], bool] = lambda: False) -> SinkLedger:
        """Where a sink notes down how far it has come in a report; `ends` says whether it should go no further."""
        return SinkLedger(reader, self, self._database, ends)

    # --- in the store's transactions ---------------------------------------------------------------------------------

    def add(self, connection: sqlite3.Connection, reader: str, sequence: int, refused: Sequence[Refused]) -> None:
        now = time.time()
        connection.executemany(
            "INSERT INTO refused (reader, sequence, at, code, description, sample) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (reader, sequence, now, each.code, each.description, msgpack.packb(dict(each.sample)))
                for each in refused
            ],
        )
        self._telemetry.count("samples_refused", reader, len(refused))
        self.measure(connection)

    def measure(self, connection: sqlite3.Connection) -> None:
        """Let go what is too old or too much; count what is left."""
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

    def listed(self, connection: sqlite3.Connection, sink: str | None, after: int) -> list[Row]:
        """The next rows behind an id, without their samples' values."""
        return self._select(connection, "id > ? AND (? IS NULL OR reader = ?)", (after, sink, sink))

    def shown(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[Row]:
        return self._select(connection, _among(ids), ids)

    def drop(self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None) -> int:
        """Delete rows: those with the ids, or all of a sink, or all."""
        if ids is None:
            gone = connection.execute("DELETE FROM refused WHERE ? IS NULL OR reader = ?", (sink, sink)).rowcount
        else:
            gone = connection.execute(f"DELETE FROM refused WHERE {_among(ids)}", ids).rowcount
        self.measure(connection)
        return int(gone)

    def ids(self, connection: sqlite3.Connection, ids: Sequence[int] | None, sink: str | None) -> dict[str, list[int]]:
        """The ids that are there, by sink."""
        where, values = ("? IS NULL OR reader = ?", [sink, sink]) if ids is None else (_among(ids), list(ids))
        found: dict[str, list[int]] = {}
        for number, reader in connection.execute(f"SELECT id, reader FROM refused WHERE {where} ORDER BY id", values):
            found.setdefault(reader, []).append(number)
        return found

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

    # --- sending again, from the sink's own thread -------------------------------------------------------------------

    def send_again(self, ids: Sequence[int], send: Callable[[list[Any]], Sequence[Refused | None]]) -> None:
        """Hand the samples to `send` and forget those that were taken. When it raises, none is forgotten."""
        rows = self._database.call(lambda connection: self.shown(connection, ids))
        if not rows:
            return
        outcome = send([row["sample"] for row in rows])
        taken = [row["id"] for row, refused in zip(rows, outcome, strict=True) if refused is None]
        again = [
            (time.time(), refused.code, refused.description, row["id"])
            for row, refused in zip(rows, outcome, strict=True)
            if refused is not None
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM refused WHERE {_among(taken)}", taken)
            connection.executemany("UPDATE refused SET at = ?, code = ?, description = ? WHERE id = ?", again)
            self.measure(connection)

        self._database.call(write)


def _among(ids: Sequence[int]) -> str:
    return f"id IN ({', '.join('?' * len(ids))})"


class SinkLedger:
    """One sink's `zmon.Ledger`, kept in the store."""

    def __init__(self, reader: str, dead_letters: DeadLetters, database: Database, ends: Callable[[], bool]) -> None:
        self._reader = reader
        self._ends = ends
        self._dead_letters = dead_letters
        self._database = database

    def settled(self, sequence: int) -> int:
        def read(connection: sqlite3.Connection) -> Any:
            found = connection.execute(
                "SELECT done FROM settled WHERE reader = ? AND sequence = ?", (self._reader, sequence)
            ).fetchone()
            return found[0] if found else 0

        return int(self._database.call(read))

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO settled (reader, sequence, done) VALUES (?, ?, ?)",
                (self._reader, sequence, samples),
            )
            if refused:
                self._dead_letters.add(connection, self._reader, sequence, refused)

        self._database.call(write)
        if self._ends():  # between two pieces: what is noted is not sent again
            raise RetryLater("the collector ends; the rest of the report goes on after a restart")
