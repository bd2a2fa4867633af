"""Positions of streams that cannot be trusted: of an older copy of the file, lost by damage, or of before the journal.

The store gets another name then. Publishers repeat the name that acknowledged them, so they go on after what was
acknowledged instead of at the position that is kept here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence

from zmon_collector.storage.chunk_reader import read_chunk
from zmon_collector.storage.journal_tables import SPANS, STREAMS, StreamRow, forget_window
from zmon_collector.storage.sealed import DamagedRows
from zmon_collector.windows.window import NO_WINDOW


def rename_store(connection: sqlite3.Connection) -> None:
    """Give the store another name: streams that it does not know any more go on after what was acknowledged."""
    connection.execute("UPDATE store SET name = randomblob(8)")


def disown(
    reported: Sequence[tuple[str, str, int, int]], damaged: DamagedRows, connection: sqlite3.Connection
) -> dict[bytes, int]:
    """Drop what an older copy of the file says of streams, and windows reported since; return the streams' last rows.

    Its positions are too old: publishers know better what was acknowledged since.
    """
    SPANS.write(reported, connection)
    for model, version, start, _ in reported:
        which = (model, version, start)
        for (number,) in connection.execute(
            "SELECT number FROM windows WHERE model = ? AND version = ? AND start = ?", which
        ).fetchall():
            forget_window(number, connection)
    rows = {stream.id: stream.row for stream in STREAMS.read(StreamRow, damaged, connection)}
    connection.execute("DELETE FROM streams")
    rename_store(connection)
    return rows


def clear_positions(connection: sqlite3.Connection) -> None:
    """Forget what only a journal keeps up to date, when it is switched off: a later start would take it for the truth.

    Open windows stay until they are reported. The store gets another name, so that publishers go on after what was
    acknowledged to them if the journal is switched on again.
    """
    if connection.execute("SELECT 1 FROM streams UNION SELECT 1 FROM tallies WHERE window = 0").fetchone():
        connection.execute("DELETE FROM streams")
        connection.execute("DELETE FROM agents")
        connection.execute("DELETE FROM tallies WHERE window = ?", (NO_WINDOW,))
        rename_store(connection)


def settled_rows(known: set[bytes], connection: sqlite3.Connection) -> dict[bytes, int]:
    """Return the last journaled row of each stream that is not known."""
    last: dict[bytes, int] = {}
    for number, window in connection.execute("SELECT id, window FROM chunks").fetchall():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # damaged, which the replay counts
            for record in read_chunk(number, window, connection):
                numbers = record.numbers
                newest = numbers + record.rows - 1 if isinstance(numbers, int) else int(numbers.max(initial=0))
                if record.stream and record.stream not in known:
                    last[record.stream] = max(last.get(record.stream, 0), newest)
    return last
