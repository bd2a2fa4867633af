"""The journal: what one turn of the collector decided, written in one transaction, and read back after a start.

Rows are split by window and settled (late, lost, rejected) before they come here, so a replay decides nothing again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from zmon._wire.frames import Topic, decode_schema, schema_hash
from zmon.batch import Schema
from zmon.state import unpack_state
from zmon_collector.storage import chunk_codec, label_join
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import seal, unseal
from zmon_collector.storage.sealed import DamagedRows, SealedTable
from zmon_collector.windows.window import NO_WINDOW, ModelKey, Tally

# Whose rows go when a model is forgotten.
MODEL_TABLES = ("spans", "agents", "memory", "label_owners", "heard", "periods", "tags")

# The columns of `StreamRow` and `WindowRow` are in the order of their fields.
STREAMS = SealedTable("streams", "id, topic, row, issued, tally, gone, heard")
WINDOWS = SealedTable("windows", 'number, model, version, start, "end", schema, closing, through, policy, reference')
CONTRACTS = SealedTable("contracts", "digest, data")
SCHEMAS = SealedTable("schemas", "window, hash, body")
TALLIES = SealedTable("tallies", "window, model, version, agent, counts")
AGENTS = SealedTable("agents", "model, version, agent, newest, heard")
SPANS = SealedTable("spans", 'model, version, start, "end"')
HEARD = SealedTable("heard", "model, version, at")
MEMORY = SealedTable("memory", "model, version, metric, agent, data")
TAGS = SealedTable("tags", "window, model, version, agent, tags")
PERIODS = SealedTable("periods", "model, version, steps")
OWNERS = label_join.OWNERS
OWNERS_BY_AGE = (
    "SELECT owner, model, version, task, classes, (SELECT max(n) FROM predictions p WHERE p.owner = o.owner) AS newest"
    " FROM label_owners o ORDER BY newest"
)
UNUSED_CONTRACTS = (
    "DELETE FROM contracts WHERE digest NOT IN (SELECT policy FROM windows WHERE policy IS NOT NULL"
    " UNION SELECT reference FROM windows WHERE reference IS NOT NULL)"
)
CLOSED_FIRST = "ORDER BY closing = 0, closing, start, number"  # and in the order of closing


class StreamRow(NamedTuple):
    """A stream's position: everything up to `row` is settled."""

    id: bytes
    topic: bytes
    row: int
    issued: int
    tally: bytes
    gone: int  # see `sessions.LIVE` and the other states
    heard: float


class WindowRow(NamedTuple):
    """An open window, or one that has closed (`closing`) and whose report is not written yet."""

    number: int
    model: str
    version: str
    start: int
    end: int
    schema: bytes
    closing: int = 0  # its place in the order of closing, from 1
    through: int = -1
    policy: bytes | None = None  # digests of its contracts; None if not journaled, empty without a reference
    reference: bytes | None = None


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
    contracts: list[tuple[bytes, bytes]] = field(default_factory=list)  # digest, data
    closing: list[int] = field(default_factory=list)  # in this order
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)
    counts: list[tuple[int, str, str, str, bytes | None]] = field(default_factory=list)  # None: delete the counts
    agents: list[tuple[str, str, str, float, float]] = field(default_factory=list)  # newest row, last heard of
    tags: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)  # window 0: of the newest rows
    periods: list[tuple[str, str, bytes]] = field(default_factory=list)
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
    # First, because a model or an agent may be forgotten and come back within the same turn.
    for table in MODEL_TABLES:
        many(f"DELETE FROM {table} WHERE model = ? AND version = ?", turn.forgotten_models)
    for table in ("agents", "memory", "tags"):
        many(f"DELETE FROM {table} WHERE model = ? AND version = ? AND agent = ?", turn.forgotten_agents)
    joined = label_join.join(turn.join_work, connection) if turn.join_work else label_join.Joined()
    for window, records in (*turn.chunks.items(), *joined.records.items()):
        chunk = (window, turn.number, *seal(chunk_codec.encode(records)))
        connection.execute("INSERT INTO chunks (window, turn, crc, data) VALUES (?, ?, ?, ?)", chunk)
    SCHEMAS.write_new(turn.schemas, connection)
    STREAMS.write(turn.streams, connection)
    many("DELETE FROM streams WHERE id = ?", [(stream,) for stream in turn.forgotten_streams])
    WINDOWS.write_new(turn.windows, connection)
    many("UPDATE windows SET schema = ? WHERE number = ?", [(row.schema, row.number) for row in turn.windows])
    many(
        "UPDATE windows SET closing = 1 + (SELECT max(closing) FROM windows) WHERE number = ?",
        [(number,) for number in turn.closing],
    )
    WINDOWS.seal("number", {*(row.number for row in turn.windows), *turn.closing}, connection)
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
    return joined


def write_checkpoint(window: int, through: int, data: bytes, connection: sqlite3.Connection) -> None:
    """Write what a window has come to; the chunks of turns up to `through` are not needed any more."""
    connection.execute("INSERT OR REPLACE INTO checkpoints (window, crc, data) VALUES (?, ?, ?)", (window, *seal(data)))
    connection.execute("UPDATE windows SET through = ? WHERE number = ?", (through, window))
    WINDOWS.seal("number", [window], connection)


def write_closed(
    window: int, model: ModelKey, memory: dict[tuple[str, str | None], bytes], connection: sqlite3.Connection
) -> None:
    """Forget a window whose report is written in the same transaction; keep what plugins remember."""
    _forget_window(window, connection)
    MEMORY.write(((*model, metric, agent or "", kept) for (metric, agent), kept in memory.items()), connection)


def _forget_window(window: int, connection: sqlite3.Connection) -> None:
    for table in ("schemas", "tallies", "tags", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE window = ?", (window,))
    connection.execute("DELETE FROM windows WHERE number = ?", (window,))


# --- after a start ------------------------------------------------------------------------------------------------


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
    restored = {} if reported is None else _disown(reported, damaged, connection)
    OWNERS.read(_owner, damaged, connection)
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
        state.settled_rows |= _settled_rows({row.id for row in state.streams}, connection)
        _rename(connection)
        (state.store_id,) = rows("SELECT name FROM store").fetchone()
    state.leftovers = [w for (w,) in rows("SELECT DISTINCT window FROM chunks") if w not in open_windows]
    return state


def _rename(connection: sqlite3.Connection) -> None:
    """Give the store another name: streams that it does not know any more go on after what was acknowledged."""
    connection.execute("UPDATE store SET name = randomblob(8)")


def _disown(
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
            _forget_window(number, connection)
    rows = {stream.id: stream.row for stream in STREAMS.read(StreamRow, damaged, connection)}
    connection.execute("DELETE FROM streams")
    _rename(connection)
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
        _rename(connection)


def _settled_rows(known: set[bytes], connection: sqlite3.Connection) -> dict[bytes, int]:
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


class ChunkEntry(NamedTuple):
    """A chunk to be replayed."""

    window: int
    id: int
    nbytes: int


def list_chunks(windows: Sequence[WindowRow], newest: int, connection: sqlite3.Connection) -> list[ChunkEntry]:
    """Return the chunks to replay, in the order of the windows, and the oldest of each first.

    Only those of turns up to `newest`, because this run already writes more.
    """
    places = {window.number: place for place, window in enumerate(windows)}
    rows = connection.execute(
        "SELECT window, id, length(data), turn FROM chunks WHERE turn <= ? ORDER BY window, turn", (newest,)
    )
    found = [
        ChunkEntry(window, number, nbytes)
        for window, number, nbytes, turn in rows
        if window in places and turn > windows[places[window]].through
    ]
    return sorted(found, key=lambda chunk: places[chunk.window])


def read_chunk(number: int, window: int, connection: sqlite3.Connection) -> list[ChunkRecord]:
    """Return the records of a window's chunk; ValueError when it is damaged, or the index that names its window."""
    row = connection.execute("SELECT crc, data FROM chunks WHERE id = ? AND +window = ?", (number, window)).fetchone()
    if row is None:
        raise ValueError("it is gone")
    return list(chunk_codec.decode(unseal(*row)))
