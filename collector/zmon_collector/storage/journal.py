"""The journal: what one turn of the collector decided, written in one transaction.

Rows are split by window and settled (late, lost, rejected) before they come here, so a replay decides nothing again.
`journal_state.py` reads it back after a start.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, fields

from zmon_collector.storage import chunk_codec, label_join, label_work
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import seal
from zmon_collector.storage.journal_tables import (
    AGENTS,
    CONTRACTS,
    HEARD,
    MAINS,
    MEMORY,
    PERIODS,
    SCHEMAS,
    SPANS,
    STREAMS,
    TAGS,
    TALLIES,
    WINDOWS,
    StreamRow,
    WindowRow,
    forget_window,
)
from zmon_collector.windows.window import ModelKey

# Whose rows go when a model is forgotten.
MODEL_TABLES = ("spans", "agents", "memory", "label_owners", "heard", "periods", "mains", "tags")
UNUSED_CONTRACTS = (
    "DELETE FROM contracts WHERE digest NOT IN (SELECT policy FROM windows WHERE policy IS NOT NULL"
    " UNION SELECT reference FROM windows WHERE reference IS NOT NULL"
    " UNION SELECT policy FROM label_policies WHERE policy IS NOT NULL)"
)


@dataclass(slots=True)
class Turn:
    """Everything settled in one turn, as plain data: it is written while the next turn is settled."""

    number: int = 0
    chunks: dict[int, list[ChunkRecord]] = field(default_factory=dict)  # by window
    schemas: list[tuple[int, bytes, bytes]] = field(default_factory=list)  # window, hash, body
    streams: list[StreamRow] = field(default_factory=list)
    forgotten_streams: list[bytes] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    contracts: list[tuple[bytes, bytes]] = field(default_factory=list)  # digest, data
    closing: list[int] = field(default_factory=list)  # in this order
    unreported: list[int] = field(default_factory=list)  # windows whose reports cannot be written
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    counts: list[tuple[int, str, str, str, bytes | None]] = field(default_factory=list)  # None: delete the counts
    agents: list[tuple[str, str, str, float, float, str]] = field(
        default_factory=list
    )  # newest row, last heard of, who
    tags: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)  # window 0: of the newest rows
    periods: list[tuple[str, str, bytes]] = field(default_factory=list)
    mains: list[tuple[str, str, bytes, str | None]] = field(default_factory=list)  # schema, and whose variant it is
    forgotten_agents: list[tuple[str, str, str]] = field(default_factory=list)
    heard: list[tuple[str, str, float, str]] = field(default_factory=list)  # when a model last sent something; who
    forgotten_models: list[ModelKey] = field(default_factory=list)
    nbytes: int = 0
    join_work: label_work.JoinWork = field(default_factory=label_work.JoinWork)  # ids and labels to be joined

    def __bool__(self) -> bool:
        return any(getattr(self, key.name) for key in fields(self) if key.name not in ("number", "nbytes"))


def write(turn: Turn, connection: sqlite3.Connection) -> label_join.Joined:
    """Write the turn into the open transaction; return the outcome of joining its labels."""
    many = connection.executemany
    # First, because a model or an agent may be forgotten and come back within the same turn.
    for table in MODEL_TABLES:
        many(f"DELETE FROM {table} WHERE model = ? AND version = ?", turn.forgotten_models)
    for table in ("agents", "memory", "tags"):
        many(f"DELETE FROM {table} WHERE model = ? AND version = ? AND agent = ?", turn.forgotten_agents)
    WINDOWS.write_new(turn.windows, connection)  # before the join, which reads their policies
    joined = label_join.join(turn.join_work, connection) if turn.join_work else label_join.Joined()
    chunks = (
        (window, turn.number, *seal(chunk_codec.encode(records), window, turn.number))
        for window, records in (*turn.chunks.items(), *joined.records.items())
    )
    many("INSERT INTO chunks (window, turn, crc, data) VALUES (?, ?, ?, ?)", chunks)
    SCHEMAS.write_new(turn.schemas, connection)
    STREAMS.write(turn.streams, connection)
    many("DELETE FROM streams WHERE id = ?", [(stream,) for stream in turn.forgotten_streams])
    many("UPDATE windows SET schema = ? WHERE number = ?", [(row.schema, row.number) for row in turn.windows])
    if turn.closing:
        (last,) = connection.execute("SELECT max(closing) FROM windows").fetchone()
        places = enumerate(turn.closing, 1 + (last or 0))
        many("UPDATE windows SET closing = ? WHERE number = ?", places)
    WINDOWS.seal("number", {*(row.number for row in turn.windows), *turn.closing}, connection)
    for number in turn.unreported:
        forget_window(number, connection)
    if turn.contracts:  # rarely: what no window refers to any more goes then
        CONTRACTS.write(turn.contracts, connection)
        connection.execute(UNUSED_CONTRACTS)
    for span in turn.spans:
        connection.execute('DELETE FROM spans WHERE model = ? AND version = ? AND start >= ? AND "end" <= ?', span)
        SPANS.write([span], connection)
    TALLIES.write((row for row in turn.counts if row[4] is not None), connection)
    many(
        "DELETE FROM tallies WHERE window = ? AND model = ? AND version = ? AND agent = ?",
        [row[:4] for row in turn.counts if row[4] is None],
    )
    AGENTS.write(turn.agents, connection)
    HEARD.write(turn.heard, connection)
    TAGS.write(turn.tags, connection)
    PERIODS.write(turn.periods, connection)
    MAINS.write(turn.mains, connection)
    return joined


def write_checkpoint(window: int, through: int, data: bytes, connection: sqlite3.Connection) -> None:
    """Write what a window has come to; the chunks of turns up to `through` are not needed any more."""
    sealed = (window, *seal(data, window))
    connection.execute("INSERT OR REPLACE INTO checkpoints (window, crc, data) VALUES (?, ?, ?)", sealed)
    connection.execute("UPDATE windows SET through = ? WHERE number = ?", (through, window))
    WINDOWS.seal("number", [window], connection)


def write_closed(
    window: int, model: ModelKey, memory: dict[tuple[str, str | None], bytes], connection: sqlite3.Connection
) -> None:
    """Forget a window whose report is written in the same transaction; keep what plugins remember."""
    forget_window(window, connection)
    MEMORY.write(((*model, metric, agent or "", kept) for (metric, agent), kept in memory.items()), connection)
