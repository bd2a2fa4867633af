"""What can still be read of a damaged database is copied into a new one, row by row.

Every row and every large blob has a checksum, so a row that can be read is sound, or is found not to be when it is
used. A table is read from both ends, since reading stops at a damaged page. Which tables are not whole is returned: the
rows that they lack are accounted for like damaged ones.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("zmon.collector")

APART = ("store", "label_bytes")  # a name and a sum, which follow from how the others were read
SHOWN = ("windows", "chunks", "checkpoints", "streams", "reports", "predictions")  # in this order, to operators


@dataclass(slots=True)
class Salvage:
    """How many rows of which tables were copied, and which tables are not whole."""

    rows: dict[str, int] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        if not any(self.rows.values()):
            return "what was in it is unknown, and lost"
        kept = ", ".join(f"{self.rows[table]} of {table}" for table in SHOWN if self.rows.get(table))
        lost = ", ".join(sorted(self.incomplete))
        return (
            f"rows that were read from it and are kept: {kept or 'others'}; tables that are not whole: {lost or 'none'}"
        )


def salvage(damaged: Path, connection: sqlite3.Connection) -> Salvage:
    """Copy what can be read of a damaged file into the new database of a connection."""
    found = Salvage()
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as source:
        source.text_factory = connection.text_factory
        connection.execute("BEGIN IMMEDIATE")
        for table in tables:
            if table not in APART:
                _copy(table, source, connection, found)
        if "streams" not in found.incomplete:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("UPDATE store SET name = ?", source.execute("SELECT name FROM store").fetchone())
        connection.execute(
            "UPDATE label_bytes SET kept = (SELECT coalesce(sum(size), 0) FROM predictions)"
            " + (SELECT coalesce(sum(size), 0) FROM labels_waiting)"
        )
        connection.execute("COMMIT")
    return found


def _copy(table: str, source: sqlite3.Connection, connection: sqlite3.Connection, found: Salvage) -> None:
    try:
        known = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
        described = connection.execute(f"PRAGMA table_info({table})").fetchall()
        columns = [f'"{row[1]}"' for row in described if row[1] in known]
        keys = [f'"{row[1]}"' for row in described if row[5]]
    except sqlite3.Error:
        columns = []
    if not columns:  # or an older release has no such table
        found.incomplete.add(table)
        return
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    for order in ("", f" ORDER BY {', '.join(f'{key} DESC' for key in keys)}"):
        for row in _readable(source, f"SELECT {', '.join(columns)} FROM {table}{order}"):
            if row is None:
                found.incomplete.add(table)
                break
            with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError):  # of types that no sound row has
                found.rows[table] = found.rows.get(table, 0) + connection.execute(insert, row).rowcount
        else:
            return


def _readable(source: sqlite3.Connection, query: str) -> Iterator[Sequence[Any] | None]:
    """Yield the rows of a query; None where reading stops."""
    try:
        yield from source.execute(query)
    except sqlite3.Error as error:
        log.warning("a damaged table cannot be read to its end: %s", error)
        yield None
