"""The journal's tables, and the rows that several modules read or write."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from zmon_collector.storage.sealed import SealedTable

# The columns of `StreamRow` and `WindowRow` are in the order of their fields.
STREAMS = SealedTable("streams", "id, topic, row, issued, tally, gone, heard, identity")
WINDOWS = SealedTable("windows", 'number, model, version, start, "end", schema, closing, through, policy, reference')
CONTRACTS = SealedTable("contracts", "digest, data")
SCHEMAS = SealedTable("schemas", "window, hash, body")
TALLIES = SealedTable("tallies", "window, model, version, agent, counts")
AGENTS = SealedTable("agents", "model, version, agent, newest, heard, identity")
SPANS = SealedTable("spans", 'model, version, start, "end"')
HEARD = SealedTable("heard", "model, version, at, identity")
MEMORY = SealedTable("memory", "model, version, metric, agent, data")
TAGS = SealedTable("tags", "window, model, version, agent, tags")
PERIODS = SealedTable("periods", "model, version, steps")
MAINS = SealedTable("mains", "model, version, schema, main")


class StreamRow(NamedTuple):
    """A stream's position: everything up to `row` is settled."""

    id: bytes
    topic: bytes
    row: int
    issued: int
    tally: bytes
    gone: int  # see `sessions.LIVE` and the other states
    heard: float
    identity: str | None = None  # that holds its place; None in a file of an earlier release


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


def forget_window(window: int, connection: sqlite3.Connection) -> None:
    """Delete a window and what belongs to it, except its chunks, which are many (`Database.delete_chunks`)."""
    for table in ("schemas", "tallies", "tags", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE window = ?", (window,))
    connection.execute("DELETE FROM windows WHERE number = ?", (window,))
