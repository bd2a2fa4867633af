"""Labels that arrive after their predictions: kept ids, and the join, inside the journal's transaction. No clock.

Of a prediction with an id only the id, the predicted class (or value) and the probabilities are kept, with the agent,
the time and the window it was in. The labels of a multilabel model are kept as bytes, one for each class. The first
prediction of an id wins, and so does the first label. Where clients have keys, they neither take each other's ids nor
label rows that they have no right to: predictions of several clients may have the same id, and a label is joined with
those that its sender may label. One that has a right to none of them changes nothing.

Completed pairs are journaled as rows of the window that is open when the second half arrives, in the transaction that
also marks the prediction as labelled. So a crash neither loses a pair nor counts it twice, and a replay joins nothing.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon.batch import Array, Names
from zmon_collector.storage import label_policies, restatement_queue
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.integrity import packed_checksum
from zmon_collector.storage.label_work import (
    GivenLabel,
    JoinWindow,
    JoinWork,
    Labelled,
    LabelSender,
    Moved,
    Predicted,
    Sweep,
)
from zmon_collector.storage.sealed import SealedTable
from zmon_collector.windows.fit import reorder

# The outcome of a label, as whole numbers in the column `label_outcomes`; plugins know the names, in this order.
JOINED, UNKNOWN, DUPLICATE, CONFLICT, REPEATED, FORBIDDEN = range(6)
OWNERS = SealedTable("label_owners", "owner, model, version, task, classes")
OVERHEAD = 120  # bytes of a kept row besides its id, agent and probabilities, both indices included
SIZE = "coalesce(CAST(size AS INTEGER), 0)"  # which no checksum covers, and which a flipped bit may make a string
WAITING = "id, label, at, agent, stream, agents"  # columns of a label that waits
SLICE = 2000  # rows deleted at a time
MOST_DELETED = 20_000  # rows deleted in one transaction, so that a shorter horizon does not stop acknowledgements
SHOWN = 5  # ids in an answer


class Joined(NamedTuple):
    """The outcome of a join: completed pairs and counts by window, and how many rows without a label were evicted."""

    records: dict[int, list[ChunkRecord]] = {}  # noqa: RUF012 - never mutated
    evicted: int = 0
    kept_bytes: int = 0
    damaged: Mapping[str, int] = {}
    forbidden: Mapping[bytes, tuple[int, str]] = {}  # labels that were not joined, and why, by their stream


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
    return Joined(dict(records), evicted, kept_bytes(connection), pairing.damaged, pairing.forbidden())


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
        self._forbidden: dict[bytes, list[tuple[bytes, str]]] = defaultdict(list)  # ids and their agents, by stream
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
        sender = block.sender or None
        place = (block.agent, block.window.start, block.end, kind, *([sender] if sender else []))
        size = len(block.agent) + len(block.sender) + len(block.client) + room
        rows = [
            (
                *(block.owner, block.client, sender, block.agent, block.window.start, block.end, kind, block.kept),
                *row,
                packed_checksum(*row, *place),
                len(row[0]) + len(row[3]) + size,
            )
            for row in zip(block.ids, block.times.tolist(), predicted, pieces, labels, strict=True)
        ]
        (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM predictions").fetchone()
        label_policies.note(block, last + 1, connection)
        inserted = connection.executemany(
            "INSERT OR IGNORE INTO predictions"
            ' (owner, client, sender, agent, start, "end", kind, kept, id, at, predicted, p, label, crc, size)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        ).rowcount
        if inserted < len(rows):
            self._count(block.window, block.agent, REPEATED, len(rows) - inserted)
            query = f"SELECT coalesce(sum({SIZE}), 0) FROM predictions WHERE n > ?"
            grown = int(connection.execute(query, (last,)).fetchone()[0])
        else:
            grown = sum(row[-1] for row in rows)
        if connection.execute("SELECT 1 FROM labels_waiting WHERE owner = ? LIMIT 1", (block.owner,)).fetchone():
            for name in block.ids:
                grown -= self._match_waiting(name, block)
        return grown

    def _match_waiting(self, name: bytes, block: Predicted) -> int:
        """Pair a prediction with the labels that wait for its id; return the bytes that they had.

        A label that has no right to it goes on waiting: the row that it is meant for may still come.
        """
        freed = 0
        query = f"SELECT n, crc, {SIZE}, {WAITING} FROM labels_waiting WHERE owner = ? AND id = ? ORDER BY n"
        for n, crc, size, *row in self._connection.execute(query, (block.owner, name)).fetchall():
            given = _given_label(*row)
            sound = self._is_sound(given, crc)
            if sound and not given.sender.may_label(block.sender or block.agent):
                continue
            self._connection.execute("DELETE FROM labels_waiting WHERE n = ?", (n,))
            freed += size
            if sound:
                self._pair(block.owner, given, block.window)
        return freed

    def match(self, block: Labelled) -> int:
        """Pair labels with kept predictions; keep those whose prediction has not arrived."""
        connection = self._connection
        grown, labels, sender = 0, _plain(block.labels), block.sender
        for name, label, at in zip(block.ids, labels, block.times.tolist(), strict=True):
            given = GivenLabel(name, label, at, sender)
            if any(self._pair(owner, given, block.window) for owner in (block.owner, *block.also)):
                continue
            # One that has other rights takes no place from this one: each waits for the rows that it may label.
            waiting = connection.execute(
                "SELECT label FROM labels_waiting WHERE owner = ? AND id = ? AND agents = ?",
                (block.owner, name, sender.agents),
            ).fetchone()
            if waiting is not None:
                self._count(block.window, block.agent, DUPLICATE if waiting[0] == label else CONFLICT)
                continue
            size = len(name) + len(block.agent) + len(sender.agents) + len(sender.stream) + OVERHEAD
            size += len(label) if isinstance(label, bytes) else 0
            row = (block.owner, name, label, at, block.agent, block.received, sender.agents, sender.stream)
            connection.execute(
                "INSERT INTO labels_waiting (owner, id, label, at, agent, received, agents, stream, crc, size)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, given.checksum, size),
            )
            grown += size
        return grown

    def expire(self, sweep: Sweep) -> int:
        """Delete labels that waited too long; return the bytes they had."""
        freed = 0
        for owner, window in sweep.windows.items():
            rows = self._connection.execute(
                "DELETE FROM labels_waiting WHERE n IN (SELECT n FROM labels_waiting WHERE owner = ? AND received < ?"
                f" ORDER BY n LIMIT ?) RETURNING crc, {SIZE}, {WAITING}",
                (owner, sweep.waiting_before, MOST_DELETED),
            ).fetchall()
            for crc, size, *row in rows:
                freed += size
                given = _given_label(*row)
                if self._is_sound(given, crc):
                    self._count_unjoined(owner, given, window)
        return freed

    def _is_sound(self, given: GivenLabel, crc: int | None) -> bool:
        """Return whether a label that waited is as it was written; count it if not."""
        sound = crc is None or crc == given.checksum
        self.damaged["labels_waiting"] += not sound
        return sound

    def _pair(self, owner: int, given: GivenLabel, window: JoinWindow) -> bool:
        """Give a label to the predictions of its id, as far as its sender may label them; return False when there are
        none."""
        joined, others = False, list[str]()
        for n, agent, at, start, end, predicted, kind, p, first_label, own, crc, size in self._connection.execute(
            f'SELECT n, agent, at, start, "end", predicted, kind, p, label, sender, crc, {SIZE} FROM predictions'
            " WHERE owner = ? AND id = ?",
            (owner, given.id),
        ).fetchall():
            place = (agent, start, end, kind, *([] if own is None else [own]))
            if not restatement_queue.is_sound(crc, (given.id, at, predicted, p, first_label, *place)):
                self._connection.execute("DELETE FROM predictions WHERE n = ?", (n,))
                self.damaged["predictions"] += 1
                self.freed += size
                continue
            if not given.sender.may_label(own or agent):
                others.append(own or agent)
                continue
            joined = True
            if first_label is not None:
                self._count(window, agent, DUPLICATE if first_label == given.label else CONFLICT)
                continue
            pairs = self._pairs[window.number, agent, kind, len(p)]
            pairs.append((predicted, given.label, max(0, given.at - at), start == window.start, p))
            self.labelled_windows.add((owner, start, end))
            crc = packed_checksum(given.id, at, predicted, p, given.label, *place)
            self._connection.execute("UPDATE predictions SET label = ?, crc = ? WHERE n = ?", (given.label, crc, n))
        if others and not joined:
            self._forbid(given, others[0], window)
        return joined or bool(others)

    def _count_unjoined(self, owner: int, given: GivenLabel, window: JoinWindow) -> None:
        """Count a label that waited in vain: it is unknown, or there are rows of its id that it may not label."""
        row = self._connection.execute(
            "SELECT coalesce(sender, agent) FROM predictions WHERE owner = ? AND id = ?", (owner, given.id)
        ).fetchone()
        if row is None:
            self._count(window, given.sender.agent, UNKNOWN)
        else:
            self._forbid(given, row[0], window)

    def _forbid(self, given: GivenLabel, agent: str, window: JoinWindow) -> None:
        self._count(window, given.sender.agent, FORBIDDEN)
        self._forbidden[given.sender.stream].append((given.id, agent))

    def _count(self, window: JoinWindow, agent: str, outcome: int, by: int = 1) -> None:
        self._outcomes[window.number, agent][outcome] += by

    def forbidden(self) -> dict[bytes, tuple[int, str]]:
        """Return how many labels of each stream were of rows that it may not label, and which."""
        return {stream: (len(found), _whose(found)) for stream, found in self._forbidden.items()}

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


def _given_label(*row: Any) -> GivenLabel:
    """Return a label that waited, of the columns WAITING."""
    name, label, at, *sender = row
    return GivenLabel(name, label, at, LabelSender(*sender))


def _whose(found: Sequence[tuple[bytes, str]]) -> str:
    ids = ", ".join(repr(name.decode("utf-8", "replace")) for name, _ in found[:SHOWN])
    agents = ", ".join(map(repr, sorted({agent for _, agent in found})[:SHOWN]))
    more = ", …" if len(found) > SHOWN else ""
    return (
        f"ids {ids}{more} are of agent {agents}; `labels` in the collector's allow-list gives the right to label them"
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
        label_policies.trim(connection)
    return evicted
