"""What an earlier run left in the journal: read and checked at the start, except the rows (`chunk_reader.py`)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgpack

from zmon._wire.frames import decode_schema, schema_hash
from zmon.batch import Schema
from zmon.state import unpack_state
from zmon_collector.storage import positions
from zmon_collector.storage.chunk_reader import drop_misplaced
from zmon_collector.storage.journal_tables import (
    AGENTS,
    CONTRACTS,
    MAINS,
    MEMORY,
    PERIODS,
    SCHEMAS,
    SPANS,
    TAGS,
    TALLIES,
    WINDOWS,
    LabelOwner,
    StreamRow,
    WindowRow,
)
from zmon_collector.storage.label_join import OWNERS
from zmon_collector.storage.label_policies import POLICIES
from zmon_collector.storage.positions import Positions
from zmon_collector.storage.sealed import DamagedRows
from zmon_collector.windows.window import ModelKey, Tally

OWNERS_BY_AGE = (
    "SELECT owner, model, version, task, classes, (SELECT max(n) FROM predictions p WHERE p.owner = o.owner) AS newest"
    " FROM label_owners o ORDER BY newest"
)
CLOSED_FIRST = "ORDER BY closing = 0, closing, start, number"  # and in the order of closing


@dataclass(slots=True)
class JournalState:
    """State that an earlier run left, except the rows, which are read chunk by chunk."""

    positions: Positions
    windows: list[WindowRow] = field(default_factory=list)
    contracts: dict[bytes, bytes] = field(default_factory=dict)
    schemas: dict[tuple[int, bytes], Schema] = field(default_factory=dict)  # by (window, hash)
    counts: list[tuple[int, str, str, str, Tally]] = field(default_factory=list)  # window, model, version, agent
    agents: list[tuple[str, str, str, float, float | None, str | None]] = field(default_factory=list)
    tags: list[tuple[int, str, str, str, dict[str, str]]] = field(default_factory=list)
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    periods: list[tuple[ModelKey, list[tuple[int, int]]]] = field(default_factory=list)  # (since, length) of each
    mains: list[tuple[ModelKey, Schema, str | None]] = field(default_factory=list)  # and whose variant it is
    memory: list[tuple[str, str, str, str, bytes]] = field(default_factory=list)
    checkpoints: dict[int, int] = field(default_factory=dict)  # bytes, by window; they are read with the rows
    turn: int = 0  # the newest
    label_owners: list[LabelOwner] = field(default_factory=list)
    leftovers: list[int] = field(default_factory=list)  # closed windows whose rows are not deleted yet
    damaged: DamagedRows = field(default_factory=dict)  # of all tables

    @property
    def store_id(self) -> bytes:
        """The name of the store, 8 random bytes."""
        return self.positions.store_id

    @property
    def streams(self) -> list[StreamRow]:
        """The positions of streams."""
        return self.positions.streams

    @property
    def heard(self) -> list[tuple[str, str, float, str | None]]:
        """When each model last sent something, and who holds its place."""
        return self.positions.heard

    @property
    def newest(self) -> float:
        """The newest time of the collector's clock that was written; -inf for none."""
        # A window without a schema has counts only, and began at the clock's time, long after the last message perhaps.
        counted = (row.start for row in self.windows if not row.schema)
        return max([float("-inf"), *(row.heard for row in self.streams), *(at for _, _, at, _ in self.heard), *counted])


def load(connection: sqlite3.Connection, known: Positions | None = None) -> JournalState:
    """Read everything else but the rows and checkpoints, by default with the positions; drop what is damaged."""
    rows, known = connection.execute, known or positions.load(connection)
    damaged: DamagedRows = {table: list(lost) for table, lost in known.damaged.items()}
    misplaced = drop_misplaced(connection)
    if misplaced:
        damaged["chunks"] = [*damaged.get("chunks", ()), *misplaced]
    OWNERS.read(_owner, damaged, connection)
    POLICIES.read(_as_tuple, damaged, connection)
    if "label_policies" in damaged:  # without one of them, the one before would hold for its predictions
        connection.execute("DELETE FROM label_policies")
    state = JournalState(
        known,
        windows=WINDOWS.read(_window, damaged, connection, CLOSED_FIRST),
        contracts=dict(CONTRACTS.read(_as_tuple, damaged, connection)),
        schemas=dict(SCHEMAS.read(_schema, damaged, connection)),
        counts=TALLIES.read(_tally, damaged, connection),
        agents=AGENTS.read(_as_tuple, damaged, connection),
        tags=TAGS.read(_tags, damaged, connection),
        spans=SPANS.read(_as_tuple, damaged, connection),
        periods=PERIODS.read(_periods, damaged, connection),
        mains=MAINS.read(_main, damaged, connection),
        memory=MEMORY.read(_as_tuple, damaged, connection, unsealed=_check_memory),
        label_owners=[LabelOwner(*row) for row in rows(OWNERS_BY_AGE)],
        checkpoints=dict(rows("SELECT window, coalesce(length(data), 0) FROM checkpoints")),
        damaged=damaged,
    )
    (turn,) = rows("SELECT max(turn) FROM chunks").fetchone()
    state.turn = max([turn or 0, *(window.through for window in state.windows)])
    open_windows = {window.number for window in state.windows}
    if "windows" in damaged:
        for table in ("schemas", "checkpoints"):
            rows(f"DELETE FROM {table} WHERE window NOT IN (SELECT number FROM windows)")
    state.leftovers = [w for (w,) in rows("SELECT DISTINCT window FROM chunks") if w not in open_windows]
    return state


def _window(*row: Any) -> WindowRow:
    window = WindowRow(*row)
    decoded_schema(window.schema)
    return window


def _schema(window: int, name: bytes, body: bytes) -> tuple[tuple[int, bytes], Schema]:
    return (window, name), decoded_schema(body)


def _tally(window: int, model: str, version: str, agent: str, counts: bytes) -> tuple[int, str, str, str, Tally]:
    return window, model, version, agent, Tally(*msgpack.unpackb(counts))


def _tags(window: int, model: str, version: str, agent: str, tags: bytes) -> tuple[int, str, str, str, dict[str, str]]:
    return window, model, version, agent, msgpack.unpackb(tags)


def _periods(model: str, version: str, steps: bytes) -> tuple[ModelKey, list[tuple[int, int]]]:
    return (model, version), [(since, length) for since, length in msgpack.unpackb(steps)]


def _main(model: str, version: str, schema: bytes, main: str | None) -> tuple[ModelKey, Schema, str | None]:
    return (model, version), decoded_schema(schema), main


def _check_memory(model: str, version: str, metric: str, agent: str, data: bytes) -> None:
    kept = unpack_state(data)
    if not isinstance(kept, dict):
        raise TypeError(f"the memory of a metric is a {type(kept).__name__}")


def _owner(*row: Any) -> None:
    msgpack.unpackb(row[-1])


def _as_tuple(*row: Any) -> tuple[Any, ...]:
    return row


@lru_cache
def decoded_schema(body: bytes) -> Schema:
    """Return the schema of a body; an empty one is that of a window which has no rows yet."""
    return decode_schema(body, schema_hash(body)) if body else Schema()
