"""Windows of predictions that are to be restated because labels arrived, and their rows, slice by slice. No clock.

A window that was restated rests before it is restated again, twice as long each time while labels trickle in. Its mark
is removed only when the history holds the result, so after a crash, or where that failed, it is restated once more.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from zmon_collector.storage.integrity import checksum, packed_checksum

log = logging.getLogger("zmon.collector")

SLICE_ROWS = 5_000  # read in one job of the database, some milliseconds: acknowledgements behind it wait
SLICE_BYTES = 4 * 2**20  # the same, of probabilities
WINDOW_ROWS = 250  # the fixed cost of a window, in rows: its metrics' results, and its place in the history
LONGEST_REST = 900.0  # seconds; the first is two, see schema.py
ITEMS = {"": 0, "<f2": 2, "<f4": 4, "<f8": 8}  # bytes of a probability, by kind
QUIET = 1_000  # marks of windows that got no more labels, deleted at a time


def is_sound(crc: int | None, prediction: tuple[Any, ...]) -> bool:
    """Return whether a kept prediction is as it was written: id, time, predicted, probabilities, label, agent, start
    and end of its window, kind of the probabilities, and the name of its sender if that is another than the agent's."""
    if crc is not None:
        return crc == packed_checksum(*prediction)
    kind, p = prediction[8], prediction[3]  # of an older release, which wrote no checksum: it must be possible
    return kind in ITEMS and (len(p) % ITEMS[kind] == 0 if kind else not p)


class RestatementTarget(NamedTuple):
    """A window to be restated, as found: `labels` turns had given it labels, its rows were those up to `through`.

    `policy` are the settings with which it opened, packed; empty if they are not known.
    """

    owner: int
    start: int
    end: int
    model: tuple[str, str]
    task: str
    classes: tuple[str, ...]
    labels: int
    through: int
    policy: bytes = b""


class Place(NamedTuple):
    """Row after which reading continues."""

    target: RestatementTarget
    after: int = 0


class RestatementPiece(NamedTuple):
    """Some of a window's rows: number, agent, predicted, label, kind and bytes of the probabilities."""

    target: RestatementTarget
    rows: list[Sequence[Any]]
    first: bool
    last: bool


def mark(touched: Iterable[tuple[int, int, int]], connection: sqlite3.Connection) -> None:
    """Mark windows (owner, start, end) whose predictions got labels."""
    connection.executemany(
        'INSERT INTO restate (owner, start, "end") VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET labels = labels + 1',
        touched,
    )


def read(
    place: Place | None, now: float, connection: sqlite3.Connection
) -> tuple[list[RestatementPiece], Place | None]:
    """Read a slice: what follows `place`, then windows due `now`; and where to continue, None after a whole window."""
    pieces: list[RestatementPiece] = []
    room, nbytes = SLICE_ROWS, SLICE_BYTES
    while room > 0 and nbytes > 0:
        place = place or _next_window(now, connection)
        if place is None:
            break
        rows: list[Sequence[Any]] = []
        more, seen, n = False, 0, 0
        for row in connection.execute(
            'SELECT n, agent, predicted, label, kind, p, id, at, start, "end", sender, crc FROM predictions'
            " WHERE owner = ? AND start = ? AND n > ? AND n <= ? ORDER BY n",
            (place.target.owner, place.target.start, place.after, place.target.through),
        ):
            n, agent, predicted, label, kind, p, name, at, start, end, sender, crc = row
            own = () if sender is None else (sender,)
            if is_sound(crc, (name, at, predicted, p, label, agent, start, end, kind, *own)):
                rows.append(row[:6])
                nbytes -= len(p)
            else:
                log.error("a kept prediction is damaged and is left out of the restatement of its window")
            seen += 1
            more = seen >= room or nbytes <= 0
            if more:
                break
        room -= seen + WINDOW_ROWS
        pieces.append(RestatementPiece(place.target, rows, not place.after, not more))
        place = Place(place.target, n) if more else None
    return pieces, place


def finish(targets: Iterable[RestatementTarget], connection: sqlite3.Connection) -> None:
    """Clear the marks of restated windows; labels that arrived meanwhile keep them due."""
    connection.executemany(
        "UPDATE restate SET labels = max(0, labels - ?) WHERE owner = ? AND start = ?",
        [(target.labels, target.owner, target.start) for target in targets],
    )


def _next_window(now: float, connection: sqlite3.Connection) -> Place | None:
    connection.execute(
        "DELETE FROM restate WHERE (owner, start) IN"
        " (SELECT owner, start FROM restate WHERE due <= ? AND labels = 0 LIMIT ?)",
        (now, QUIET),
    )
    while True:
        due = connection.execute(
            'SELECT owner, start, "end", labels, max(2, coalesce(CAST(rest AS REAL), 2)) FROM restate'
            " WHERE due <= ? AND labels > 0"
            " ORDER BY due, start LIMIT 1",
            (now,),
        ).fetchone()
        if due is None:
            return None
        owner, start, end, labels, rest = due
        owner_row = connection.execute(
            "SELECT model, version, task, classes FROM label_owners WHERE owner = ?", (owner,)
        ).fetchone()
        newest = connection.execute(
            "SELECT n FROM predictions WHERE owner = ? AND start = ? ORDER BY n DESC LIMIT 1", (owner, start)
        ).fetchone()
        if owner_row is None or newest is None:  # its rows have been deleted
            connection.execute("DELETE FROM restate WHERE owner = ? AND start = ?", (owner, start))
            continue
        connection.execute(
            "UPDATE restate SET due = ?, rest = ? WHERE owner = ? AND start = ?",
            (now + rest, min(2 * rest, LONGEST_REST), owner, start),
        )
        model, version, task, classes = owner_row
        try:
            schema = (model, version), task, tuple(msgpack.unpackb(classes))
        except (ValueError, TypeError):  # damaged: its rows cannot be read any more
            connection.execute("DELETE FROM restate WHERE owner = ?", (owner,))
            continue
        policy = _policy_of(owner, start, connection)
        return Place(RestatementTarget(owner, start, end, *schema, labels, newest[0], policy))


def _policy_of(owner: int, start: int, connection: sqlite3.Connection) -> bytes:
    """Return the settings that were noted for the window's first prediction; empty if they are lost."""
    row = connection.execute(
        "SELECT digest, data, crc FROM contracts WHERE digest ="
        " (SELECT policy FROM label_policies WHERE owner = ? AND n <="
        " (SELECT n FROM predictions WHERE owner = ? AND start = ? ORDER BY n LIMIT 1) ORDER BY n DESC LIMIT 1)",
        (owner, owner, start),
    ).fetchone()
    if row is None or row[2] != checksum(row[:2]):
        return b""
    return bytes(row[1])
