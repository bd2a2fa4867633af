"""Labels that come after their predictions: kept ids, and the join, inside the journal's transaction. No clock.

Of a prediction with an id only the id, the predicted class (or value) and the probabilities are kept, with the agent,
the time and the window it was in. The first prediction of an id wins, and the first label.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from zmon._wire.frames import pack
from zmon.batch import Array, Schema
from zmon_collector.storage import restatement_queue
from zmon_collector.storage.chunk_codec import ChunkRecord

# What became of a label, as whole numbers in the column `label_outcomes`; plugins know the names, in this order.
JOINED, UNKNOWN, DUPLICATE, CONFLICT, REPEATED = range(5)
OVERHEAD = 120  # bytes of a kept row besides its id, agent and probabilities, both indices included
SLICE = 2000  # rows deleted at a time
MOST_DELETED = 20_000  # in one transaction

_FIND = 'SELECT n, agent, at, start, "end", predicted, kind, p, label FROM predictions WHERE owner = ? AND id = ?'


class JoinWindow(NamedTuple):
    """An open window: its number and where it begins."""

    number: int
    start: int


class Predicted(NamedTuple):
    """Rows with ids of one agent in one window."""

    owner: int
    window: JoinWindow
    end: int
    agent: str
    kept: float  # the collector's clock, epoch seconds
    ids: list[bytes]
    times: Array  # ns
    predicted: Array
    probabilities: Array | None
    labels: Array | None


class Labelled(NamedTuple):
    """Labels that arrived, and the window that was open then."""

    owner: int
    window: JoinWindow
    agent: str  # who sent them
    received: float
    ids: list[bytes]
    labels: Array
    times: Array  # ns


class Sweep(NamedTuple):
    """What has been kept for too long goes; labels without a prediction count as unknown in the owner's window."""

    kept_before: float
    waiting_before: float
    windows: Mapping[int, JoinWindow]


@dataclass(slots=True)
class JoinWork:
    """What a turn has for the join."""

    limit: int = 2**62  # bytes of all that is kept
    owners: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    sweep: Sweep | None = None

    def __bool__(self) -> bool:
        return bool(self.predicted or self.labelled or self.sweep)


def owner_of(model: tuple[str, str], schema: Schema) -> int:
    """A number for what a label must share with its prediction: model, version, task and classes."""
    named = pack([*model, schema.task, list(schema.classes)])
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big", signed=True)


def texts(ids: Array) -> list[bytes]:
    """Ids as they are kept: 7 and "7" are the same."""
    return ids.tolist() if ids.dtype.kind == "S" else [b"%d" % each for each in ids.tolist()]


class Joined(NamedTuple):
    """What a join gave: completed pairs and counts by window, and how many rows without a label had to go."""

    records: dict[int, list[ChunkRecord]] = {}  # noqa: RUF012 - never changed
    evicted: int = 0
    kept_bytes: int = 0


class Pairs:
    """What a join has found, by window and agent."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[int, str], Counter[int]] = defaultdict(Counter)
        self._rows: dict[tuple[int, str, str, int], list[tuple[Any, Any, int, bool, bytes]]] = defaultdict(list)
        self.touched: set[tuple[int, int, int]] = set()  # (owner, start, end) of predictions that got a label

    def count(self, window: int, agent: str, outcome: int, by: int = 1) -> None:
        self._outcomes[window, agent][outcome] += by

    def settle(self, row: Sequence[Any], label: Any, at: int, block: Predicted | Labelled) -> bool:
        """A label for a kept prediction; whether it is the first."""
        _, agent, predicted_at, start, end, predicted, kind, p, known = row
        if known is not None:
            self.count(block.window.number, agent, DUPLICATE if known == label else CONFLICT)
            return False
        key = (block.window.number, agent, kind, len(p))
        own = start == block.window.start
        self._rows[key].append((predicted, label, max(0, at - predicted_at), own, p))
        self.touched.add((block.owner, start, end))
        return True

    def records(self) -> Iterator[tuple[int, ChunkRecord]]:
        """Windows and what is journaled in them."""
        for (window, agent), outcomes in self._outcomes.items():
            codes = np.repeat(np.array(list(outcomes), dtype=np.int8), list(outcomes.values()))
            yield window, ChunkRecord(agent, b"", b"", 0, len(codes), {"label_outcomes": codes})
        for (window, agent, kind, width), rows in self._rows.items():
            predicted, label, delay, own, p = zip(*rows, strict=True)
            columns: dict[str, Array] = {
                "label_outcomes": np.full(len(rows), JOINED, dtype=np.int8),
                "predictions": np.array(predicted),
                "labels": np.array(label),
                "label_delays": np.array(delay, dtype=np.int64),
                "label_own": np.array(own, dtype=bool),
            }
            if width:
                columns["probabilities"] = np.frombuffer(b"".join(p), kind).reshape(len(rows), -1)
            yield window, ChunkRecord(agent, b"", b"", 0, len(rows), columns)


def join(work: JoinWork, connection: sqlite3.Connection) -> Joined:
    """Keep, match and sweep. Called again when the transaction was rolled back."""
    found = Pairs()
    connection.executemany(
        "INSERT OR IGNORE INTO label_owners (owner, model, version, task, classes) VALUES (?, ?, ?, ?, ?)", work.owners
    )
    grown = sum(_keep(block, found, connection) for block in work.predicted)
    grown += sum(_match(block, found, connection) for block in work.labelled)
    if work.sweep is not None:
        grown -= _expire(work.sweep, found, connection)
    restatement_queue.mark(found.touched, connection)
    connection.execute("UPDATE label_bytes SET kept = kept + ?", (grown,))
    evicted = _trim(work, connection)
    records: dict[int, list[ChunkRecord]] = defaultdict(list)
    for window, record in found.records():
        records[window].append(record)
    (kept,) = connection.execute("SELECT kept FROM label_bytes").fetchone()
    return Joined(dict(records), evicted, kept)


def _keep(block: Predicted, found: Pairs, connection: sqlite3.Connection) -> int:
    kind, pieces = "", [b""] * len(block.ids)
    if block.probabilities is not None and len(block.ids):
        p = np.ascontiguousarray(block.probabilities)
        raw, width = p.tobytes(), p.shape[1] * p.itemsize
        kind, pieces = p.dtype.str, [raw[i : i + width] for i in range(0, len(raw), width)]
    labels = [None] * len(block.ids) if block.labels is None else _known(block.labels)
    fixed = (block.agent, block.window.start, block.end, kind, block.kept)
    rows = [
        (block.owner, *row, *fixed, len(row[0]) + len(row[3]) + len(block.agent) + OVERHEAD)
        for row in zip(block.ids, block.times.tolist(), block.predicted.tolist(), pieces, labels, strict=True)
    ]
    (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM predictions").fetchone()
    cursor = connection.executemany(
        "INSERT OR IGNORE INTO predictions"
        ' (owner, id, at, predicted, p, label, agent, start, "end", kind, kept, size)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )  # fmt: skip
    inserted = cursor.rowcount
    if inserted < len(rows):
        found.count(block.window.number, block.agent, REPEATED, len(rows) - inserted)
        query = "SELECT coalesce(sum(size), 0) FROM predictions WHERE n > ?"
        grown = int(connection.execute(query, (last,)).fetchone()[0])
    else:
        grown = sum(row[-1] for row in rows)
    if connection.execute("SELECT 1 FROM labels_waiting WHERE owner = ? LIMIT 1", (block.owner,)).fetchone():
        for each in block.ids:
            waited = connection.execute(
                "DELETE FROM labels_waiting WHERE owner = ? AND id = ? RETURNING label, at, size", (block.owner, each)
            ).fetchall()
            for label, at, size in waited:
                grown -= size
                _give(block.owner, each, label, at, block, found, connection)
    return grown


def _match(block: Labelled, found: Pairs, connection: sqlite3.Connection) -> int:
    grown = 0
    for each, label, at in zip(block.ids, block.labels.tolist(), block.times.tolist(), strict=True):
        if _give(block.owner, each, label, at, block, found, connection):
            continue
        known = connection.execute(
            "SELECT label FROM labels_waiting WHERE owner = ? AND id = ?", (block.owner, each)
        ).fetchone()
        if known is not None:
            found.count(block.window.number, block.agent, DUPLICATE if known[0] == label else CONFLICT)
            continue
        size = len(each) + len(block.agent) + OVERHEAD
        connection.execute(
            "INSERT INTO labels_waiting (owner, id, label, at, agent, received, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (block.owner, each, label, at, block.agent, block.received, size),
        )
        grown += size
    return grown


def _give(
    owner: int, name: bytes, label: Any, at: int, block: Predicted | Labelled, found: Pairs, connection: Any
) -> bool:
    """Give a label to its prediction; False when there is none."""
    row = connection.execute(_FIND, (owner, name)).fetchone()
    if row is None:
        return False
    if found.settle(row, label, at, block):
        connection.execute("UPDATE predictions SET label = ? WHERE n = ?", (label, row[0]))
    return True


def _known(labels: Array) -> list[Any]:
    """None for rows without a label."""
    if labels.dtype.kind == "f":
        return [value if value == value else None for value in labels.tolist()]
    return [value if value >= 0 else None for value in labels.tolist()]


# --- bounds -------------------------------------------------------------------------------------------------------


def _expire(sweep: Sweep, found: Pairs, connection: sqlite3.Connection) -> int:
    gone = 0
    for owner, window in sweep.windows.items():
        rows = connection.execute(
            "DELETE FROM labels_waiting WHERE n IN (SELECT n FROM labels_waiting WHERE owner = ? AND received < ?"
            " ORDER BY n LIMIT ?) RETURNING agent, size",
            (owner, sweep.waiting_before, MOST_DELETED),
        ).fetchall()
        for agent, many in Counter(agent for agent, _ in rows).items():
            found.count(window.number, agent, UNKNOWN, many)
        gone += sum(size for _, size in rows)
    return gone


def _trim(work: JoinWork, connection: sqlite3.Connection) -> int:
    """Let go of the oldest, while they are too many bytes or too old; how many without a label the bytes cost."""
    (kept,) = connection.execute("SELECT kept FROM label_bytes").fetchone()
    evicted = freed = seen = 0
    before = work.sweep.kept_before if work.sweep is not None else 0.0
    for table, age, unlabelled in (("predictions", "kept", "label IS NULL"), ("labels_waiting", "received", "1")):
        while seen < MOST_DELETED:
            oldest = connection.execute(
                f"SELECT n, size, {age}, {unlabelled} FROM {table} ORDER BY n LIMIT ?", (SLICE,)
            ).fetchall()
            going = []
            for row in oldest:
                over = kept - freed > work.limit
                if not over and not row[2] < before:
                    break
                freed += row[1]
                evicted += bool(row[3]) if over else 0
                going.append(row[0])
            if not going:
                break
            connection.execute(f"DELETE FROM {table} WHERE n <= ?", (going[-1],))
            seen += len(going)
    if seen:
        connection.execute("UPDATE label_bytes SET kept = kept - ?", (freed,))
    return evicted
