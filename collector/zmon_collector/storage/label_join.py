"""Labels that arrive after their predictions: kept ids, and the join, inside the journal's transaction. No clock.

Of a prediction with an id only the id, the predicted class (or value) and the probabilities are kept, with the agent,
the time and the window it was in. The labels of a multilabel model are kept as bytes, one for each class. The first
prediction of an id wins, and so does the first label.

Completed pairs are journaled as rows of the window that is open when the second half arrives, in the transaction that
also marks the prediction as labelled. So a crash neither loses a pair nor counts it twice, and a replay joins nothing.
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
from zmon.batch import Array, Names, Schema
from zmon_collector.storage import restatement_queue
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import packed_checksum
from zmon_collector.storage.sealed import SealedTable
from zmon_collector.windows.fit import reorder

# The outcome of a label, as whole numbers in the column `label_outcomes`; plugins know the names, in this order.
JOINED, UNKNOWN, DUPLICATE, CONFLICT, REPEATED = range(5)
OWNERS = SealedTable("label_owners", "owner, model, version, task, classes")
POLICIES = SealedTable("label_policies", "owner, n, policy")
OVERHEAD = 120  # bytes of a kept row besides its id, agent and probabilities, both indices included
SIZE = "coalesce(CAST(size AS INTEGER), 0)"  # which no checksum covers, and which a flipped bit may make a string
SLICE = 2000  # rows deleted at a time
MOST_DELETED = 20_000  # rows deleted in one transaction, so that a shorter horizon does not stop acknowledgements


class JoinWindow(NamedTuple):
    """An open window: its number and its start."""

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
    predicted: Array | None  # None for a multilabel model, which has probabilities
    probabilities: Array | None
    labels: Array | None


class Labelled(NamedTuple):
    """Labels that arrived, and the window that was open then."""

    owner: int
    window: JoinWindow
    agent: str  # the sender
    received: float
    ids: list[bytes]
    labels: Array
    times: Array  # ns

    def of(self, rows: Array) -> Labelled:
        """Return the rows that a mask selects."""
        ids = [name for name, selected in zip(self.ids, rows.tolist(), strict=True) if selected]
        return self._replace(ids=ids, labels=self.labels[rows], times=self.times[rows])


class Moved(NamedTuple):
    """Labels that wait under another list of classes than the rows have: `places` is a class's index among the rows'
    classes, negative for those that the rows do not have."""

    owner: int
    to: int
    places: Array


class Sweep(NamedTuple):
    """The ages from which rows are deleted; labels without a prediction count as unknown in the owner's window."""

    kept_before: float
    waiting_before: float
    windows: Mapping[int, JoinWindow]


@dataclass(slots=True)
class JoinWork:
    """The ids and labels that a turn brings to the join."""

    limit: int = 2**62  # bytes of all kept rows
    owners: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    classes: dict[int, tuple[Names, Names]] = field(default_factory=dict)  # by window: as kept, and of the window
    sweep: Sweep | None = None

    def __bool__(self) -> bool:
        return bool(self.predicted or self.labelled or self.moved or self.sweep)

    def move(self, moved: Moved) -> None:
        """Let labels wait under the rows' classes: those that are kept, and those of this turn."""
        self.moved.append(moved)
        blocks, self.labelled = self.labelled, []
        for block in blocks:
            if block.owner != moved.owner:
                self.labelled.append(block)
                continue
            places = moved.places[block.labels]
            self.labelled.append(block.of(places >= 0)._replace(owner=moved.to, labels=places[places >= 0]))
            self.labelled.append(block.of(places < 0))


def owner_of(model: tuple[str, str], schema: Schema) -> int:
    """Return a number for what a label must share with its prediction: model, version, task and classes."""
    named = pack([*model, schema.task, list(schema.classes)])
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big", signed=True)


def id_bytes(ids: Array) -> list[bytes]:
    """Return ids as they are kept: 7 and "7" are the same."""
    return ids.tolist() if ids.dtype.kind == "S" else [b"%d" % number for number in ids.tolist()]


class Joined(NamedTuple):
    """The outcome of a join: completed pairs and counts by window, and how many rows without a label were evicted."""

    records: dict[int, list[ChunkRecord]] = {}  # noqa: RUF012 - never mutated
    evicted: int = 0
    kept_bytes: int = 0
    damaged: Mapping[str, int] = {}


def join(work: JoinWork, connection: sqlite3.Connection) -> Joined:
    """Keep, match and expire. Called again when the transaction was rolled back."""
    pairing = _Pairing(connection, work.classes)
    OWNERS.write_new(work.owners, connection)
    for moved in work.moved:
        _move(moved, connection)
    grown = sum(pairing.keep(block) for block in work.predicted)
    grown += sum(pairing.match(block) for block in work.labelled)
    if work.sweep is not None:
        grown -= pairing.expire(work.sweep)
    restatement_queue.mark(pairing.labelled_windows, connection)
    connection.execute("UPDATE label_bytes SET kept = kept + ?", (grown - pairing.freed,))
    evicted = _trim(work, connection)
    records: dict[int, list[ChunkRecord]] = defaultdict(list)
    for window, record in pairing.records():
        records[window].append(record)
    return Joined(dict(records), evicted, kept_bytes(connection), pairing.damaged)


def kept_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of all rows and labels that wait for each other."""
    (kept,) = connection.execute("SELECT kept FROM label_bytes").fetchone()
    return int(kept)


def restore_kept_bytes(most: int, connection: sqlite3.Connection) -> int:
    """Return the same after a start: added up again if what is noted cannot be, as more than a file of `most` bytes."""
    noted = connection.execute("SELECT kept FROM label_bytes").fetchall()
    if len(noted) != 1 or not isinstance(noted[0][0], int) or not 0 <= noted[0][0] <= most:
        rows = f"SELECT {SIZE} AS size FROM predictions UNION ALL SELECT {SIZE} FROM labels_waiting"
        connection.execute("DELETE FROM label_bytes")
        connection.execute(f"INSERT INTO label_bytes (kept) SELECT coalesce(sum(size), 0) FROM ({rows})")
    return kept_bytes(connection)


class _Pairing:
    """One join: pairs and outcomes by window and agent. `keep` and `match` return by how many bytes the tables grew."""

    def __init__(self, connection: sqlite3.Connection, classes: Mapping[int, tuple[Names, Names]]) -> None:
        self._connection = connection
        self._classes = classes
        self._outcomes: dict[tuple[int, str], Counter[int]] = defaultdict(Counter)
        self._pairs: dict[tuple[int, str, str, int], list[tuple[Any, Any, int, bool, bytes]]] = defaultdict(list)
        self.damaged: Counter[str] = Counter()  # rows that were dropped, by table
        self.freed = 0  # bytes of those
        self.labelled_windows: set[tuple[int, int, int]] = set()  # (owner, start, end) of predictions that got a label

    def keep(self, block: Predicted) -> int:
        """Keep predictions, and pair them with labels that wait for them."""
        connection = self._connection
        kind, pieces, predicted, room = "", [b""] * len(block.ids), [None] * len(block.ids), OVERHEAD
        if block.predicted is not None:
            predicted = [value if value == value else None for value in block.predicted.tolist()]  # SQLite has no NaN
        elif block.probabilities is not None:
            room += block.probabilities.shape[1]  # for the label
        if block.probabilities is not None and len(block.ids):
            p = np.ascontiguousarray(block.probabilities)
            raw, width = p.tobytes(), p.shape[1] * p.itemsize
            kind, pieces = p.dtype.str, [raw[i : i + width] for i in range(0, len(raw), width)]
        labels = [None] * len(block.ids) if block.labels is None else _given(block.labels)
        fixed = (block.agent, block.window.start, block.end, kind, block.kept)
        place = (block.agent, block.window.start, block.end, kind)
        rows = [
            (
                block.owner,
                *row,
                *fixed,
                packed_checksum(*row, *place),
                len(row[0]) + len(row[3]) + len(block.agent) + room,
            )
            for row in zip(block.ids, block.times.tolist(), predicted, pieces, labels, strict=True)
        ]
        (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM predictions").fetchone()
        self._note_policy(block, last + 1)
        inserted = connection.executemany(
            "INSERT OR IGNORE INTO predictions"
            ' (owner, id, at, predicted, p, label, agent, start, "end", kind, kept, crc, size)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        ).rowcount
        if inserted < len(rows):
            self._count(block, block.agent, REPEATED, len(rows) - inserted)
            query = f"SELECT coalesce(sum({SIZE}), 0) FROM predictions WHERE n > ?"
            grown = int(connection.execute(query, (last,)).fetchone()[0])
        else:
            grown = sum(row[-1] for row in rows)
        if connection.execute("SELECT 1 FROM labels_waiting WHERE owner = ? LIMIT 1", (block.owner,)).fetchone():
            for name in block.ids:
                waiting = connection.execute(
                    "DELETE FROM labels_waiting WHERE owner = ? AND id = ?"
                    f" RETURNING id, label, at, agent, crc, {SIZE}",
                    (block.owner, name),
                ).fetchall()
                for *row, size in waiting:
                    grown -= size
                    if self._is_sound(*row):
                        self._pair(name, row[1], row[2], block)
        return grown

    def _note_policy(self, block: Predicted, first: int) -> None:
        """Note the settings of the block's window if they are not those of the predictions before it."""
        connection = self._connection
        own = connection.execute("SELECT policy FROM windows WHERE number = ?", (block.window.number,)).fetchone()
        policy = own[0] if own is not None and own[0] is not None else b""
        before = connection.execute(
            "SELECT policy FROM label_policies WHERE owner = ? AND n < ? ORDER BY n DESC LIMIT 1", (block.owner, first)
        ).fetchone()
        if before is None or before[0] != policy:
            POLICIES.write([(block.owner, first, policy)], connection)

    def match(self, block: Labelled) -> int:
        """Pair labels with kept predictions; keep those whose prediction has not arrived."""
        connection = self._connection
        grown, labels = 0, _plain(block.labels)
        for name, label, at in zip(block.ids, labels, block.times.tolist(), strict=True):
            if self._pair(name, label, at, block):
                continue
            waiting = connection.execute(
                "SELECT label FROM labels_waiting WHERE owner = ? AND id = ?", (block.owner, name)
            ).fetchone()
            if waiting is not None:
                self._count(block, block.agent, DUPLICATE if waiting[0] == label else CONFLICT)
                continue
            size = len(name) + len(block.agent) + OVERHEAD + (len(label) if isinstance(label, bytes) else 0)
            row = (block.owner, name, label, at, block.agent, block.received)
            connection.execute(
                "INSERT INTO labels_waiting (owner, id, label, at, agent, received, crc, size)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, packed_checksum(name, label, at, block.agent), size),
            )
            grown += size
        return grown

    def expire(self, sweep: Sweep) -> int:
        """Delete labels that waited too long; return the bytes they had."""
        freed = 0
        for owner, window in sweep.windows.items():
            rows = self._connection.execute(
                "DELETE FROM labels_waiting WHERE n IN (SELECT n FROM labels_waiting WHERE owner = ? AND received < ?"
                f" ORDER BY n LIMIT ?) RETURNING id, label, at, agent, crc, {SIZE}",
                (owner, sweep.waiting_before, MOST_DELETED),
            ).fetchall()
            for *row, size in rows:
                freed += size
                if self._is_sound(*row):
                    self._outcomes[window.number, row[3]][UNKNOWN] += 1
        return freed

    def _is_sound(self, name: bytes, label: Any, at: int, agent: str, crc: int | None) -> bool:
        """Return whether a label that waited is as it was written; count it if not."""
        sound = crc is None or crc == packed_checksum(name, label, at, agent)
        self.damaged["labels_waiting"] += not sound
        return sound

    def _pair(self, name: bytes, label: Any, at: int, block: Predicted | Labelled) -> bool:
        """Give a label to its prediction; return False when there is none."""
        row = self._connection.execute(
            f'SELECT n, agent, at, start, "end", predicted, kind, p, label, crc, {SIZE} FROM predictions'
            " WHERE owner = ? AND id = ?",
            (block.owner, name),
        ).fetchone()
        if row is None:
            return False
        n, agent, predicted_at, start, end, predicted, kind, p, first_label, crc, size = row
        fixed = (agent, start, end, kind)
        if not restatement_queue.is_sound(crc, (name, predicted_at, predicted, p, first_label, *fixed)):
            self._connection.execute("DELETE FROM predictions WHERE n = ?", (n,))
            self.damaged["predictions"] += 1
            self.freed += size
            return False
        if first_label is not None:
            self._count(block, agent, DUPLICATE if first_label == label else CONFLICT)
            return True
        pairs = self._pairs[block.window.number, agent, kind, len(p)]
        pairs.append((predicted, label, max(0, at - predicted_at), start == block.window.start, p))
        self.labelled_windows.add((block.owner, start, end))
        crc = packed_checksum(name, predicted_at, predicted, p, label, *fixed)
        self._connection.execute("UPDATE predictions SET label = ?, crc = ? WHERE n = ?", (label, crc, n))
        return True

    def _count(self, block: Predicted | Labelled, agent: str, outcome: int, by: int = 1) -> None:
        self._outcomes[block.window.number, agent][outcome] += by

    def records(self) -> Iterator[tuple[int, ChunkRecord]]:
        """Yield windows and what is journaled in them."""
        for (window, agent), outcomes in self._outcomes.items():
            codes = np.repeat(np.array(list(outcomes), dtype=np.int8), list(outcomes.values()))
            yield window, ChunkRecord(agent, b"", b"", 0, len(codes), {"label_outcomes": codes})
        for (window, agent, kind, width), pairs in self._pairs.items():
            predicted, label, delay, of_window, p = zip(*pairs, strict=True)
            columns: dict[str, Array] = {
                "label_outcomes": np.full(len(pairs), JOINED, dtype=np.int8),
                "label_delays": np.array(delay, dtype=np.int64),
                "label_own": np.array(of_window, dtype=bool),
            }
            if isinstance(label[0], bytes):
                columns["labels"] = label_rows(label)
            else:
                columns |= {"predictions": np.array(predicted), "labels": np.array(label)}
            if width:
                columns["probabilities"] = np.frombuffer(b"".join(p), kind).reshape(len(pairs), -1)
            if window in self._classes:
                reorder(columns, *self._classes[window])
            yield window, ChunkRecord(agent, b"", b"", 0, len(pairs), columns)


def _move(moved: Moved, connection: sqlite3.Connection) -> None:
    """Let labels that came before any rows wait under the rows' classes; those that the rows lack stay, and expire."""
    waiting = connection.execute("SELECT DISTINCT label FROM labels_waiting WHERE owner = ?", (moved.owner,)).fetchall()
    connection.executemany(
        "UPDATE OR IGNORE labels_waiting SET owner = ?, label = ?, crc = NULL WHERE owner = ? AND label = ?",
        [
            (moved.to, place, moved.owner, label)
            for (label,) in waiting
            if 0 <= label < len(moved.places) and (place := int(moved.places[label])) >= 0
        ],
    )


def _trim_policies(connection: sqlite3.Connection) -> None:
    """Drop policies that no prediction needs any more; the numbers of predictions begin anew when none is left."""
    connection.execute("DELETE FROM label_policies WHERE n > (SELECT coalesce(max(n), 0) FROM predictions)")
    connection.execute(
        "DELETE FROM label_policies AS old WHERE EXISTS (SELECT 1 FROM label_policies AS later"
        " WHERE later.owner = old.owner AND later.n > old.n AND later.n <= (SELECT min(n) FROM predictions))"
    )


def _plain(labels: Array) -> list[Any]:
    """Return labels as they are kept: numbers, or bytes where a row has one for each class."""
    return [row.tobytes() for row in labels] if labels.ndim == 2 else labels.tolist()


def label_rows(labels: Sequence[bytes]) -> Array:
    """Return labels of a multilabel model, kept as bytes, as rows with a column for each class."""
    return np.frombuffer(b"".join(labels), np.int8).reshape(len(labels), -1)


def _given(labels: Array) -> list[Any]:
    """Return labels, None for rows without one."""
    if labels.ndim == 2:
        return [row.tobytes() if (row >= 0).any() else None for row in labels]
    if labels.dtype.kind == "f":
        return [value if value == value else None for value in labels.tolist()]
    return [value if value >= 0 else None for value in labels.tolist()]


def _trim(work: JoinWork, connection: sqlite3.Connection) -> int:
    """Delete the oldest rows while there are too many bytes or they are too old.

    Returns how many rows without a label the limit of bytes has cost; those that are too old are not counted.
    """
    kept = kept_bytes(connection)
    evicted = freed = deleted = 0
    before = work.sweep.kept_before if work.sweep is not None else 0.0
    for table, age, unlabelled in (("predictions", "kept", "label IS NULL"), ("labels_waiting", "received", "1")):
        while deleted < MOST_DELETED:
            oldest = connection.execute(
                f"SELECT n, {SIZE}, coalesce(CAST({age} AS REAL), 0), {unlabelled} FROM {table} ORDER BY n LIMIT ?",
                (SLICE,),
            ).fetchall()
            doomed = []
            for row in oldest:
                over = kept - freed > work.limit
                if not over and not row[2] < before:
                    break
                freed += row[1]
                evicted += bool(row[3]) if over else 0
                doomed.append(row[0])
            if not doomed:
                break
            connection.execute(f"DELETE FROM {table} WHERE n <= ?", (doomed[-1],))
            deleted += len(doomed)
    if deleted:
        connection.execute("UPDATE label_bytes SET kept = kept - ?", (freed,))
        _trim_policies(connection)
    return evicted
