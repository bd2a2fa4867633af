"""What an earlier run left in the journal: read and checked at the start, except the rows (`chunk_reader.py`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgpack

from zmon._wire.frames import Topic, decode_schema, schema_hash
from zmon.batch import Schema
from zmon.state import unpack_state
from zmon_collector.storage.journal_tables import (
    AGENTS,
    CONTRACTS,
    HEARD,
    MEMORY,
    PERIODS,
    SCHEMAS,
    SPANS,
    STREAMS,
    TAGS,
    TALLIES,
    WINDOWS,
    LabelOwner,
    StreamRow,
    WindowRow,
)
from zmon_collector.storage.label_join import OWNERS, POLICIES
from zmon_collector.storage.positions import disown, rename_store, settled_rows
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

    store_id: bytes  # 8 random bytes, which acknowledgements carry
    streams: list[StreamRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    contracts: dict[bytes, bytes] = field(default_factory=dict)
    schemas: dict[tuple[int, bytes], Schema] = field(default_factory=dict)  # by (window, hash)
    counts: list[tuple[int, str, str, str, Tally]] = field(default_factory=list)  # window, model, version, agent
    agents: list[tuple[str, str, str, float, float | None]] = field(default_factory=list)
    tags: list[tuple[int, str, str, str, dict[str, str]]] = field(default_factory=list)
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    periods: list[tuple[ModelKey, list[tuple[int, int]]]] = field(default_factory=list)  # (since, length) of each
    heard: list[tuple[str, str, float]] = field(default_factory=list)
    memory: list[tuple[str, str, str, str, bytes]] = field(default_factory=list)
    checkpoints: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # (crc, data) by window
    turn: int = 0  # the newest
    label_owners: list[LabelOwner] = field(default_factory=list)
    leftovers: list[int] = field(default_factory=list)  # closed windows whose rows are not deleted yet
    damaged: DamagedRows = field(default_factory=dict)
    settled_rows: dict[bytes, int] = field(default_factory=dict)  # by stream whose position is lost: its last row here
    restored: bool = False  # from a copy older than the files next to it

    @property
    def newest(self) -> float:
        """The newest time of the collector's clock that was written; -inf for none."""
        # A window without a schema has counts only, and began at the clock's time, long after the last message perhaps.
        counted = (row.start for row in self.windows if not row.schema)
        return max([float("-inf"), *(row.heard for row in self.streams), *(at for _, _, at in self.heard), *counted])


def load(
    connection: sqlite3.Connection,
    reported: Sequence[tuple[str, str, int, int]] | None = None,
    incomplete: Iterable[str] = (),
) -> JournalState:
    """Read everything but the rows; drop what is damaged.

    If the file is an older copy, `reported` has the windows that were reported since (model, version, start, end).
    `incomplete` names tables that lack rows, which a damaged file had.
    """
    rows = connection.execute
    damaged: DamagedRows = {table: [] for table in incomplete}
    restored = {} if reported is None else disown(reported, damaged, connection)
    OWNERS.read(_owner, damaged, connection)
    POLICIES.read(_as_tuple, damaged, connection)
    state = JournalState(
        store_id=rows("SELECT name FROM store").fetchone()[0],
        windows=WINDOWS.read(_window, damaged, connection, CLOSED_FIRST),
        contracts=dict(CONTRACTS.read(_as_tuple, damaged, connection)),
        streams=STREAMS.read(StreamRow, damaged, connection, unsealed=_check_stream),
        schemas=dict(SCHEMAS.read(_schema, damaged, connection)),
        counts=TALLIES.read(_tally, damaged, connection),
        agents=AGENTS.read(_as_tuple, damaged, connection),
        tags=TAGS.read(_tags, damaged, connection),
        spans=SPANS.read(_as_tuple, damaged, connection),
        periods=PERIODS.read(_periods, damaged, connection),
        heard=HEARD.read(_as_tuple, damaged, connection),
        memory=MEMORY.read(_memory, damaged, connection),
        label_owners=[LabelOwner(*row) for row in rows(OWNERS_BY_AGE)],
        checkpoints={window: (crc, data) for window, crc, data in rows("SELECT window, crc, data FROM checkpoints")},
        damaged=damaged,
        settled_rows=restored,
        restored=reported is not None,
    )
    (turn,) = rows("SELECT max(turn) FROM chunks").fetchone()
    state.turn = max([turn or 0, *(window.through for window in state.windows)])
    open_windows = {window.number for window in state.windows}
    if "windows" in damaged:
        for table in ("schemas", "checkpoints"):
            rows(f"DELETE FROM {table} WHERE window NOT IN (SELECT number FROM windows)")
    if "streams" in damaged:
        state.settled_rows |= settled_rows({row.id for row in state.streams}, connection)
        rename_store(connection)
        (state.store_id,) = rows("SELECT name FROM store").fetchone()
    state.leftovers = [w for (w,) in rows("SELECT DISTINCT window FROM chunks") if w not in open_windows]
    return state


def _check_stream(stream: bytes, topic: bytes, row: int, issued: int, tally: bytes, *_: Any) -> None:
    Topic.decode(topic)
    if not isinstance(msgpack.unpackb(tally), dict) or not isinstance(stream, bytes) or not 0 <= row <= issued:
        raise ValueError("it is not the position of a stream")


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


def _memory(model: str, version: str, metric: str, agent: str, data: bytes) -> tuple[str, str, str, str, bytes]:
    kept = unpack_state(data)
    if not isinstance(kept, dict):
        raise TypeError(f"the memory of a metric is a {type(kept).__name__}")
    return model, version, metric, agent, data


def _owner(*row: Any) -> None:
    msgpack.unpackb(row[-1])


def _as_tuple(*row: Any) -> tuple[Any, ...]:
    return row


@lru_cache
def decoded_schema(body: bytes) -> Schema:
    """Return the schema of a body; an empty one is that of a window which has no rows yet."""
    return decode_schema(body, schema_hash(body)) if body else Schema()
