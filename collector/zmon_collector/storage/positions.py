"""Positions of streams: read first at a start, because they answer hellos; and those that cannot be trusted.

These are of an older copy of the file, lost by damage, or of before the journal was switched off.
The store gets another name then. Publishers repeat the name that acknowledged them, so they go on after what was
acknowledged instead of at the position that is kept here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from zmon._wire.frames import Topic
from zmon_collector.storage.chunk_reader import ChunkEntry, read_chunk
from zmon_collector.storage.journal_tables import HEARD, SPANS, STREAMS, StreamRow, forget_window
from zmon_collector.storage.sealed import DamagedRows
from zmon_collector.windows.window import NO_WINDOW

NAME_BYTES = 8  # of the store's name
LOOKED_AT = 8 * 2**20  # bytes of chunks that one job of `last_rows` reads


@dataclass(slots=True)
class Positions:
    """The part of what an earlier run left that answers hellos: positions, models, and the name of the store."""

    store_id: bytes  # 8 random bytes, which acknowledgements carry
    streams: list[StreamRow] = field(default_factory=list)
    heard: list[tuple[str, str, float, str | None]] = field(default_factory=list)  # when each model last sent something
    damaged: DamagedRows = field(default_factory=dict)  # of these tables
    settled_rows: dict[bytes, int] = field(default_factory=dict)  # last rows, by stream of an older copy
    restored: bool = False  # from a copy older than the files next to it

    @property
    def lost(self) -> bool:
        """Whether positions of streams are lost, of which the journaled chunks may tell some."""
        return STREAMS.name in self.damaged


def load(
    connection: sqlite3.Connection,
    reported: Sequence[tuple[str, str, int, int]] | None = None,
    incomplete: Iterable[str] = (),
) -> Positions:
    """Read what answers hellos, a small part of the file; drop what is damaged.

    If the file is an older copy, `reported` has the windows that were reported since (model, version, start, end).
    `incomplete` names tables that lack rows, which a damaged file had.
    """
    damaged: DamagedRows = {table: [] for table in incomplete}
    settled = {} if reported is None else disown(reported, damaged, connection)
    streams = STREAMS.read(StreamRow, damaged, connection, unsealed=_check_stream)
    heard = HEARD.read(lambda *row: row, damaged, connection)
    if STREAMS.name in damaged:
        rename_store(connection)
    store_id = store_name(damaged, connection)
    return Positions(store_id, streams, heard, damaged, settled, reported is not None)


def rename_store(connection: sqlite3.Connection) -> None:
    """Give the store another name: streams that it does not know any more go on after what was acknowledged."""
    connection.execute("DELETE FROM store")
    connection.execute("INSERT INTO store (name) VALUES (randomblob(8))")


def store_name(damaged: DamagedRows, connection: sqlite3.Connection) -> bytes:
    """Return the store's name; give it another one if it cannot be read."""
    names = connection.execute("SELECT name FROM store").fetchall()
    if len(names) != 1 or not isinstance(names[0][0], bytes) or len(names[0][0]) != NAME_BYTES:
        damaged["store"] = names or [()]
        rename_store(connection)
        names = connection.execute("SELECT name FROM store").fetchall()
    return bytes(names[0][0])


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


def last_rows(
    after: int, newest: int, known: Container[bytes], connection: sqlite3.Connection
) -> tuple[int, dict[bytes, int]]:
    """Return the last journaled row of each stream that is not known, from some chunks after the id `after`.

    Chunks of later turns than `newest` are of this run and are left out. Also return the id of the last chunk that was
    read, or 0 when none is left.
    """
    last: dict[bytes, int] = {}
    nbytes, chunk = 0, ChunkEntry(0, 0, 0, 0)
    for row in connection.execute(
        "SELECT window, turn, id, coalesce(length(data), 0) FROM chunks WHERE id > ? AND turn <= ?"
        " ORDER BY id LIMIT 64",
        (after, newest),
    ).fetchall():
        chunk = ChunkEntry(*row)
        nbytes += chunk.nbytes
        with contextlib.suppress(ValueError, TypeError, KeyError):  # damaged, which the replay counts
            for record in read_chunk(chunk, connection):
                numbers = record.numbers
                settled = numbers + record.rows - 1 if isinstance(numbers, int) else int(numbers.max(initial=0))
                if record.stream and record.stream not in known:
                    last[record.stream] = max(last.get(record.stream, 0), settled)
        if nbytes >= LOOKED_AT:
            break
    return chunk.id, last


def _check_stream(stream: bytes, topic: bytes, row: int, issued: int, tally: bytes, *_: Any) -> None:
    Topic.decode(topic)
    if not isinstance(msgpack.unpackb(tally), dict) or not isinstance(stream, bytes) or not 0 <= row <= issued:
        raise ValueError("it is not the position of a stream")
