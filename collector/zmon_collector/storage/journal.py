"""The journal: what one turn of the collector decided, written in one transaction, and read back after a start.

Rows are split by window and settled (late, lost, rejected) before they come here, so a replay decides nothing again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from zmon_collector.storage import chunk_codec, label_join
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import seal, unseal
from zmon_collector.windows.window import ModelKey

MODEL_TABLES = ("spans", "agents", "memory", "label_owners", "heard")  # whose rows go when a model is forgotten


# The columns of `StreamRow` and `WindowRow`, in the order of their fields.
STREAM_COLUMNS = "id, topic, row, issued, tally, gone, heard"
LABEL_OWNERS = (
    "SELECT owner, model, version, task, classes, (SELECT max(n) FROM predictions p WHERE p.owner = o.owner) AS newest"
    " FROM label_owners o ORDER BY newest"
)
WINDOW_COLUMNS = 'number, model, version, start, "end", schema, closing, through'


class StreamRow(NamedTuple):
    """A stream's position: everything up to `row` is settled."""

    id: bytes
    topic: bytes
    row: int
    issued: int
    tally: bytes
    gone: bool
    heard: float


class WindowRow(NamedTuple):
    """An open window, or (`closing`) one whose report is not written yet."""

    number: int
    model: str
    version: str
    start: int
    end: int
    schema: bytes
    closing: bool = False
    through: int = -1


class LabelOwner(NamedTuple):
    """What labels and predictions with an id must share to be joined; `newest` is the number of its newest prediction,
    None if it has none."""

    number: int
    model: str
    version: str
    task: str
    classes: bytes
    newest: int | None


@dataclass(slots=True)
class Turn:
    """Everything settled in one turn, as plain data: it is written while the next turn is settled."""

    number: int = 0
    chunks: dict[int, list[ChunkRecord]] = field(default_factory=dict)  # by window
    schemas: list[tuple[int, bytes, bytes]] = field(default_factory=list)  # window, hash, body
    streams: list[StreamRow] = field(default_factory=list)
    forgotten_streams: list[bytes] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    closing: list[int] = field(default_factory=list)
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    counts: list[tuple[int, str, str, str, bytes | None]] = field(default_factory=list)  # None: delete the counts
    agents: list[tuple[str, str, str, float]] = field(default_factory=list)
    forgotten_agents: list[tuple[str, str, str]] = field(default_factory=list)
    heard: list[tuple[str, str, float]] = field(default_factory=list)  # when a model last sent something
    forgotten_models: list[ModelKey] = field(default_factory=list)
    nbytes: int = 0
    join_work: label_join.JoinWork = field(default_factory=label_join.JoinWork)  # ids and labels to be joined

    def __bool__(self) -> bool:
        return any(getattr(self, key.name) for key in fields(self) if key.name not in ("number", "nbytes"))


def write(turn: Turn, connection: sqlite3.Connection) -> label_join.Joined:
    """Write the turn into the open transaction; return the outcome of joining its labels."""
    many = connection.executemany
    for table in MODEL_TABLES:
        many(f"DELETE FROM {table} WHERE model = ? AND version = ?", turn.forgotten_models)
    joined = label_join.join(turn.join_work, connection) if turn.join_work else label_join.Joined()
    for window, records in (*turn.chunks.items(), *joined.records.items()):
        chunk = (window, turn.number, *seal(chunk_codec.encode(records)))
        connection.execute("INSERT INTO chunks (window, turn, crc, data) VALUES (?, ?, ?, ?)", chunk)
    many("INSERT OR IGNORE INTO schemas (window, hash, body) VALUES (?, ?, ?)", turn.schemas)
    many(f"INSERT OR REPLACE INTO streams ({STREAM_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", turn.streams)
    many("DELETE FROM streams WHERE id = ?", [(stream,) for stream in turn.forgotten_streams])
    many(
        f"INSERT INTO windows ({WINDOW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (number) DO UPDATE SET schema = excluded.schema",
        turn.windows,
    )
    many("UPDATE windows SET closing = 1 WHERE number = ?", [(number,) for number in turn.closing])
    for span in turn.spans:
        connection.execute('DELETE FROM spans WHERE model = ? AND version = ? AND start >= ? AND "end" <= ?', span)
        connection.execute('INSERT OR REPLACE INTO spans (model, version, start, "end") VALUES (?, ?, ?, ?)', span)
    many(
        "INSERT OR REPLACE INTO tallies (window, model, version, agent, counts) VALUES (?, ?, ?, ?, ?)",
        [row for row in turn.counts if row[4] is not None],
    )
    many(
        "DELETE FROM tallies WHERE window = ? AND model = ? AND version = ? AND agent = ?",
        [row[:4] for row in turn.counts if row[4] is None],
    )
    many("INSERT OR REPLACE INTO agents (model, version, agent, newest) VALUES (?, ?, ?, ?)", turn.agents)
    many("INSERT OR REPLACE INTO heard (model, version, at) VALUES (?, ?, ?)", turn.heard)
    for table in ("agents", "memory"):
        many(f"DELETE FROM {table} WHERE model = ? AND version = ? AND agent = ?", turn.forgotten_agents)
    return joined


def write_checkpoint(window: int, through: int, data: bytes, connection: sqlite3.Connection) -> None:
    """Write what a window has come to; the chunks of turns up to `through` are not needed any more."""
    connection.execute("INSERT OR REPLACE INTO checkpoints (window, crc, data) VALUES (?, ?, ?)", (window, *seal(data)))
    connection.execute("UPDATE windows SET through = ? WHERE number = ?", (through, window))


def write_closed(
    window: int, model: ModelKey, memory: dict[tuple[str, str | None], bytes], connection: sqlite3.Connection
) -> None:
    """Forget a window whose report is written in the same transaction; keep what plugins remember."""
    for table in ("schemas", "tallies", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE window = ?", (window,))
    connection.execute("DELETE FROM windows WHERE number = ?", (window,))
    connection.executemany(
        "INSERT OR REPLACE INTO memory (model, version, metric, agent, data) VALUES (?, ?, ?, ?, ?)",
        [(*model, metric, agent or "", kept) for (metric, agent), kept in memory.items()],
    )


# --- after a start ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class JournalState:
    """State that an earlier run left, except the rows, which are read chunk by chunk."""

    store_id: bytes  # 8 random bytes, which acknowledgements carry
    streams: list[StreamRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    schemas: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    counts: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)
    agents: list[tuple[str, str, str, float]] = field(default_factory=list)
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    heard: list[tuple[str, str, float]] = field(default_factory=list)
    memory: list[tuple[str, str, str, str, bytes]] = field(default_factory=list)
    checkpoints: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # (crc, data) by window
    turn: int = 0  # the newest
    label_owners: list[LabelOwner] = field(default_factory=list)
    leftovers: list[int] = field(default_factory=list)  # closed windows whose rows are not deleted yet


def load(connection: sqlite3.Connection) -> JournalState:
    """Read everything but the rows."""
    rows = connection.execute
    state = JournalState(
        store_id=rows("SELECT name FROM store").fetchone()[0],
        streams=[StreamRow(*row) for row in rows(f"SELECT {STREAM_COLUMNS} FROM streams")],
        windows=[WindowRow(*row) for row in rows(f"SELECT {WINDOW_COLUMNS} FROM windows ORDER BY number")],
        schemas=rows("SELECT window, hash, body FROM schemas").fetchall(),
        counts=rows("SELECT window, model, version, agent, counts FROM tallies").fetchall(),
        agents=rows("SELECT model, version, agent, newest FROM agents").fetchall(),
        spans=rows('SELECT model, version, start, "end" FROM spans').fetchall(),
        heard=rows("SELECT model, version, at FROM heard").fetchall(),
        memory=rows("SELECT model, version, metric, agent, data FROM memory").fetchall(),
        label_owners=[LabelOwner(*row) for row in rows(LABEL_OWNERS)],
        checkpoints={window: (crc, data) for window, crc, data in rows("SELECT window, crc, data FROM checkpoints")},
    )
    (turn,) = rows("SELECT max(turn) FROM chunks").fetchone()
    state.turn = max([turn or 0, *(window.through for window in state.windows)])
    open_windows = {window.number for window in state.windows}
    state.leftovers = [w for (w,) in rows("SELECT DISTINCT window FROM chunks") if w not in open_windows]
    return state


def chunk_ids(window: WindowRow, newest: int, connection: sqlite3.Connection) -> list[int]:
    """Return the chunks to replay, oldest first: of turns up to `newest`, because this run already writes more."""
    rows = connection.execute(
        "SELECT id FROM chunks WHERE window = ? AND turn > ? AND turn <= ? ORDER BY turn",
        (window.number, window.through, newest),
    )
    return [number for (number,) in rows]


def read_chunk(number: int, connection: sqlite3.Connection) -> list[ChunkRecord]:
    """Return the records of a chunk; ValueError when it is damaged."""
    row = connection.execute("SELECT crc, data FROM chunks WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise ValueError("it is gone")
    return list(chunk_codec.decode(unseal(*row)))
