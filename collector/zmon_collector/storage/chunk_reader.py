"""Journaled rows and checkpoints, listed and read one by one for a replay."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from zmon_collector.storage import chunk_codec
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import unseal
from zmon_collector.storage.journal_tables import WindowRow

CHECKPOINT = 0  # in place of the id of a chunk, which is at least 1
LAST_TURN = 2**53  # no collector comes that far


class ChunkEntry(NamedTuple):
    """A chunk to be replayed, or the checkpoint of a window."""

    window: int
    turn: int
    id: int  # of the chunk; `CHECKPOINT` for that
    nbytes: int


def list_chunks(
    windows: Sequence[WindowRow],
    newest: int,
    connection: sqlite3.Connection,
    checkpoints: Mapping[int, int] = MappingProxyType({}),
) -> list[ChunkEntry]:
    """Return what is to be replayed in the order of the windows: the checkpoint of each, then the oldest chunk first.

    Only chunks of turns up to `newest`, because this run already writes more.
    """
    places = {window.number: place for place, window in enumerate(windows)}
    rows = connection.execute(
        "SELECT window, turn, id, coalesce(length(data), 0) FROM chunks WHERE turn <= ? ORDER BY window, turn",
        (newest,),
    )
    listed = [ChunkEntry(*row) for row in rows]
    found = [ChunkEntry(window, 0, CHECKPOINT, nbytes) for window, nbytes in checkpoints.items() if window in places]
    found += [
        chunk for chunk in listed if chunk.window in places and chunk.turn > windows[places[chunk.window]].through
    ]
    return sorted(found, key=lambda chunk: places[chunk.window])


def read_checkpoint(window: int, connection: sqlite3.Connection) -> bytes:
    """Return the checkpoint of a window; ValueError when it is damaged, or the index that names its window."""
    row = connection.execute("SELECT crc, data FROM checkpoints WHERE window = ?", (window,)).fetchone()
    if row is None:
        raise ValueError("it is gone")
    return unseal(*row, window)


def read_chunk(chunk: ChunkEntry, connection: sqlite3.Connection) -> list[ChunkRecord]:
    """Return the records of a chunk; ValueError when it is damaged, or the index by which it was found."""
    place = (chunk.window, chunk.turn)
    row = connection.execute(
        "SELECT crc, data FROM chunks WHERE id = ? AND +window = ? AND +turn = ?", (chunk.id, *place)
    ).fetchone()
    if row is None:
        raise ValueError("it is gone")
    return list(chunk_codec.decode(unseal(*row, *place)))


def drop_misplaced(connection: sqlite3.Connection) -> list[tuple[int]]:
    """Delete chunks whose window or turn cannot be one; return their numbers. Their rows count as lost."""
    misplaced: list[tuple[int]] = connection.execute(
        "SELECT id FROM chunks WHERE typeof(window) <> 'integer' OR typeof(turn) <> 'integer' OR turn > ?",
        (LAST_TURN,),
    ).fetchall()
    connection.executemany("DELETE FROM chunks WHERE id = ?", misplaced)
    return misplaced
