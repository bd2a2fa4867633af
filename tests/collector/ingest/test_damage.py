"""Flipped bits in the database: the damaged row is lost and counted, and every row of a publisher is in one count."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.health import HealthReport
from zmon_collector.storage import chunk_reader, journal, label_work
from zmon_collector.storage.chunk_reader import ChunkEntry
from zmon_collector.storage.schema import SEALED

from tests.support.unstarted import AB, T0, Table, restarted, stream_of
from zmon.state import pack_state

ROWS, OPEN, TWICE = 10, 25, 3
KEPT = {  # what a scene has, and how to name one of its rows
    "streams": ["id", "topic", "row", "issued", "tally", "gone", "heard"],
    "windows": ["model", "version", "start", '"end"', "schema", "closing", "through"],
    "schemas": ["hash", "body"],
    "tallies": ["window", "model", "version", "agent", "counts"],
    "agents": ["model", "version", "agent", "newest"],
    "spans": ["model", "version", "start", '"end"'],
    "heard": ["model", "version", "at"],
    "memory": ["model", "version", "metric", "agent", "data"],
    "label_owners": ["model", "version", "task", "classes"],
    "tags": ["window", "model", "version", "agent", "tags"],
}
KEYS = {
    "streams": "id",
    "windows": "number",
    "schemas": "window",
    "label_owners": "owner",
    "spans": "start",
    "tallies": "agent",
    "agents": "agent",
    "heard": "model",
    "memory": "agent",
    "tags": "window",
}
COLUMNS = [(table, column) for table, columns in KEPT.items() for column in columns]


def flipped(value: Any, chance: random.Random) -> Any:
    """The value with one bit or one whole byte changed, of the same type."""
    if isinstance(value, bytes):
        data = bytearray(value or b"\0")
        if not value:
            return bytes(data)
        data[chance.randrange(len(data))] ^= chance.choice([*(1 << bit for bit in range(8)), 0xFF])
        return bytes(data)
    if isinstance(value, str):
        return flipped(value.encode(), chance)  # cast to text by the statement, which may be no text then
    if isinstance(value, float):
        return value + 2.0 ** chance.randrange(40)
    return value ^ (1 << chance.randrange(40))


def flip(disk: sqlite3.Connection, table: str, column: str, chance: random.Random, where: str = "1") -> None:
    """Change one value of a table that is not its checksum."""
    query = f"SELECT {column}, typeof({column}), key FROM (SELECT *, {KEYS[table]} AS key FROM {table}) WHERE {where}"
    value, kind, key = disk.execute(query).fetchone()
    cast = "CAST(? AS TEXT)" if kind == "text" else "?"
    damaged = value
    while damaged == value:
        damaged = flipped(value, chance)
    disk.execute(f"UPDATE OR REPLACE {table} SET {column} = {cast} WHERE {KEYS[table]} = ?", (damaged, key))


def rows(table: Table, agent: str, first: int, count: int, at: float) -> None:
    columns = {"probabilities": np.full((count, 2), 0.5), "timestamps": np.full(count, int((T0 + at) * 1e9))}
    table.send(AB, columns, agent=agent, first=first)


def scene(table: Table) -> Table:
    """Two agents: ROWS of each in a window that is reported, OPEN of each in the one after it, and what is kept."""
    for agent in "ab":
        rows(table, agent, 1, ROWS, 1)
        table.greeting("hello", issued=ROWS + OPEN, base=1, agent=agent)
    table.end_turn()
    table.goes(130)
    for agent in "ab":
        rows(table, agent, ROWS + 1, OPEN, 90)
    table.ingestor.close_due(table.now, hold=False)
    table.end_turn()
    (closed,) = table.finished(1)
    memory = {("plugin", None): pack_state({"n": 1}), ("plugin", "a"): pack_state({"n": 2})}
    journal.write_closed(closed.number, closed.model, memory, table.disk)
    tags = journal.Turn(tags=[(2, "m", "", "a", b"\x81\xa1k\xa1v"), (0, "m", "", "a", b"\x81\xa1k\xa1v")])
    tags.join_work.owners.append((7, "m", "", "classification", b"\x92\xa1a\xa1b"))
    tags.join_work.sweep = label_work.Sweep(0, 0, {})
    journal.write(tags, table.disk)
    return table


def everything(table: Table, agent: str) -> int:
    """All rows of an agent that are in some count."""
    tally = table.tally(agent)
    return tally.received + tally.lost + tally.late


def come_back(table: Table, agent: str, store: bytes, rows_acknowledged: int = ROWS + OPEN) -> None:
    """The publisher greets, sends again what was not acknowledged, and more."""
    issued = rows_acknowledged + TWICE
    table.greeting(
        "hello", base=rows_acknowledged + 1, acked=rows_acknowledged, issued=issued, agent=agent, store=store
    )
    rows(table, agent, rows_acknowledged + 1, TWICE, 91)


def store_of(table: Table) -> bytes:
    (name,) = table.disk.execute("SELECT name FROM store").fetchone()
    return bytes(name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_flipped_bit_costs_the_row_in_which_it_is(
    table: str, column: str, seed: int, lay: Callable[[], Table]
) -> None:
    killed = scene(lay())
    store = store_of(killed)
    flip(killed.disk, table, column, random.Random(f"{table} {column} {seed}"))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert second.service.telemetry.get("state_rows_damaged", table) == 1
    health = HealthReport(counters=dict(second.service.telemetry.snapshot()))
    assert any(f"1 of {table}" in problem for problem in health.problems), health.problems
    for agent in "ab":
        come_back(second, agent, store)
        assert everything(second, agent) == OPEN + TWICE, agent
    second.end_turn()
    third = lay()
    third.now = second.now
    restarted(second, third)
    assert third.service.telemetry.get("state_rows_damaged") == 0, "what is lost is counted once"
    for agent in "ab":
        assert everything(third, agent) == OPEN + TWICE, agent


def test_rows_that_were_on_disk_and_not_acknowledged_count_once_without_their_position(
    lay: Callable[[], Table],
) -> None:
    """The journaled rows say how far the stream had come, where the publisher knows of less."""
    killed = scene(lay())
    store = store_of(killed)
    where = f"id = x'{stream_of('a').hex()}'"
    flip(killed.disk, "streams", "tally", random.Random(0), where)
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    second.greeting("hello", base=ROWS + 1, acked=ROWS, issued=ROWS + OPEN, store=store)
    rows(second, "a", ROWS + 1, OPEN, 90)
    assert everything(second, "a") == OPEN
    assert second.answer().row == ROWS + OPEN


def test_a_damaged_window_counts_its_rows_as_lost_and_takes_new_ones(lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    flip(killed.disk, "windows", "schema", random.Random(0))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert second.service.telemetry.get("lost", "damaged") == 2 * OPEN
    assert second.tally("a").lost == OPEN
    rows(second, "a", ROWS + OPEN + 1, TWICE, 91)
    assert second.tally("a").received == TWICE


def test_counts_that_are_lost_are_those_of_the_rows_that_are_there_and_it_is_said(
    lay: Callable[[], Table], caplog: pytest.LogCaptureFixture
) -> None:
    killed = scene(lay())
    flip(killed.disk, "tallies", "counts", random.Random(0), "agent = 'a'")
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert (second.tally("a").received, second.tally("b").received) == (OPEN, OPEN)
    assert second.service.telemetry.get("lost") == 0
    assert "counts of agent 'a' of model 'm', version ''" in caplog.text


@pytest.mark.parametrize("column", ["start", '"end"', "model"])
def test_no_closed_window_opens_again_when_its_span_is_lost(column: str, lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    flip(killed.disk, "spans", column, random.Random(1))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    rows(second, "a", ROWS + OPEN + 1, TWICE, 1)
    assert second.tally("a").late == TWICE
    assert list(second.ingestor.models["m", ""].windows.open) == [T0 + 60]


def test_a_damaged_chunk_index_never_puts_rows_into_another_window(lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    (window, turn, number) = killed.disk.execute("SELECT window, turn, id FROM chunks").fetchone()
    assert chunk_reader.read_chunk(ChunkEntry(window, turn, number, 0), killed.disk)
    for other in ((window + 1, turn), (window, turn + 1)):
        with pytest.raises(ValueError, match="gone"):
            chunk_reader.read_chunk(ChunkEntry(*other, number, 0), killed.disk)


ODD: list[Any] = [None, "x", b"\xff", -5, 2**62]


@pytest.mark.parametrize("value", ODD, ids=map(ascii, ODD))
@pytest.mark.parametrize("column", ["window", "turn", "crc", "data"])
def test_whatever_a_chunk_has_become_its_rows_are_counted(column: str, value: Any, lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    killed.disk.execute(f"UPDATE chunks SET {column} = ? WHERE id = (SELECT max(id) FROM chunks)", (value,))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    for agent in "ab":
        assert everything(second, agent) == OPEN, agent
    second.batch(ROWS + OPEN + 1, TWICE)
    second.end_turn()  # also when a turn of that number would be the next


@pytest.mark.parametrize("damage", ["", "crc = crc + 1", "data = NULL", "data = x'00'"])
def test_a_damaged_checkpoint_counts_its_rows_as_lost(damage: str, lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    (number, turn) = killed.disk.execute("SELECT window, max(turn) FROM chunks").fetchone()
    journal.write_checkpoint(number, turn, b"sound bytes that are no checkpoint", killed.disk)
    killed.disk.execute("DELETE FROM chunks")
    if damage:
        killed.disk.execute(f"UPDATE checkpoints SET {damage}")
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert second.service.telemetry.get("checkpoints_damaged") == 1
    for agent in "ab":
        assert everything(second, agent) == OPEN, agent
    assert second.service.telemetry.get("lost", "damaged") == 2 * OPEN


def test_a_chunk_of_another_window_is_not_taken_for_one_of_this(lay: Callable[[], Table]) -> None:
    """Its table and its index agree, as they do after what can be read of a file was copied into a new one."""
    killed = scene(lay())
    (other,) = killed.disk.execute("SELECT max(number) FROM windows").fetchone()
    rows(killed, "a", ROWS + OPEN + 1, TWICE, 150)
    killed.end_turn()
    killed.disk.execute("UPDATE chunks SET window = ? WHERE window > ?", (other, other))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert second.service.telemetry.get("lost", "damaged") == TWICE
    assert everything(second, "a") == OPEN + TWICE


@pytest.mark.parametrize("name", [None, "x" * 8, b"short", 7, "no row", "two rows"], ids=ascii)
def test_a_store_without_a_name_gets_another_one(name: Any, lay: Callable[[], Table]) -> None:
    killed = scene(lay())
    before = store_of(killed)
    if name == "no row":
        killed.disk.execute("DELETE FROM store")
    elif name == "two rows":
        killed.disk.execute("INSERT INTO store (name) VALUES (randomblob(8))")
    else:
        killed.disk.execute("UPDATE store SET name = ?", (name,))
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert len(store_of(second)) == len(before)
    assert second.ingestor.store_id == store_of(second) != before
    assert second.service.telemetry.get("state_rows_damaged", "store") >= 1
    for agent in "ab":
        come_back(second, agent, before)
        assert everything(second, agent) == OPEN + TWICE


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("table", "column"),
    [
        *[("streams", "topic"), ("streams", "tally"), ("memory", "data")],
        *[("tallies", "counts"), ("schemas", "body"), ("windows", "schema")],
    ],
)
def test_rows_of_an_older_release_have_no_checksum_and_are_read_with_care(
    table: str, column: str, seed: int, lay: Callable[[], Table]
) -> None:
    killed = scene(lay())
    for each in SEALED:
        killed.disk.execute(f"UPDATE {each} SET crc = NULL")
    second = lay()
    second.now = killed.now
    restarted(killed, second)
    assert second.service.telemetry.get("state_rows_damaged") == 0
    assert everything(second, "a") == everything(second, "b") == OPEN
    flip(second.disk, table, column, random.Random(seed))
    third = lay()
    third.now = killed.now
    restarted(second, third)  # whatever it makes of it
