"""A damaged file is set aside, what can be read of it goes on in a new one, and what is lost is accounted for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from zmon_collector.storage import journal, journal_state, positions, store_file
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import Turn
from zmon_collector.storage.journal_tables import StreamRow, WindowRow
from zmon_collector.storage.schema import PAGE
from zmon_collector.telemetry import Telemetry

STREAMS = 800
LEAF = 10  # the first byte of a page with rows by key


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_file, "PAUSES", (0.0,))
    return tmp_path / "state.sqlite"


def opened(path: Path) -> Database:
    database = Database(path, Telemetry())
    database.open()
    database.start()
    return database


def stream(number: int) -> StreamRow:
    return StreamRow(number.to_bytes(16, "big"), b"z1/d0/m//a/" + bytes(200), number, number, b"\x80", False, 0.0)


def full(path: Path) -> bytes:
    """A closed file with a window and many streams; return the store's name."""
    database = opened(path)
    turn = Turn(streams=[stream(i) for i in range(STREAMS)], windows=[WindowRow(1, "m", "", 0, 60, b"")])
    database.call(lambda connection: journal.write(turn, connection))
    (name,) = database.call(lambda connection: connection.execute("SELECT name FROM store").fetchone())
    assert database.close(60)
    return bytes(name)


def pages_of_streams(path: Path) -> list[int]:
    """The pages that hold rows of streams, counted from 0."""
    data = path.read_bytes()
    pages = [data[start : start + PAGE] for start in range(0, len(data), PAGE)]
    return [n for n, page in enumerate(pages) if page[0] == LEAF and b"z1/d0/m" in page]


def load(database: Database) -> Any:
    incomplete = database.incomplete
    return database.call(
        lambda connection: journal_state.load(connection, positions.load(connection, incomplete=incomplete))
    )


def test_what_lies_beside_a_damaged_page_is_kept_and_the_store_renamed(path: Path) -> None:
    name = full(path)
    data = bytearray(path.read_bytes())
    broken = pages_of_streams(path)[2]
    data[broken * PAGE : broken * PAGE + 16] = b"\xff" * 16
    path.write_bytes(data)
    database = opened(path)
    (note,) = database.damaged_files.values()
    assert "1 of windows" in note and "not whole: streams" in note
    state = load(database)
    assert STREAMS / 2 < len(state.streams) < STREAMS
    assert all(row == stream(row.row) for row in state.streams)
    assert [row.number for row in state.windows] == [1]
    assert state.store_id != name, "streams that it does not know any more go on after what was acknowledged"
    assert database.close(60)


def test_a_file_of_which_all_rows_can_be_read_goes_on_as_the_same_store(path: Path) -> None:
    name = full(path)
    data = bytearray(path.read_bytes())
    data[36:40] = (77).to_bytes(4, "big")  # the number of free pages, which no table needs
    path.write_bytes(data)
    database = opened(path)
    assert len(database.damaged_files) == 1
    state = load(database)
    assert (len(state.streams), state.store_id, state.damaged) == (STREAMS, name, {})
    assert database.close(60)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_damaged_nothing_wrong_is_read(seed: int, path: Path) -> None:
    full(path)
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    database = opened(path)
    state = load(database)
    assert all(row == stream(row.row) for row in state.streams)
    if len(state.streams) < STREAMS:
        assert "streams" in state.damaged
    assert all(row == WindowRow(1, "m", "", 0, 60, b"") for row in state.windows)
    assert database.close(60)


def test_a_file_set_aside_is_told_until_it_is_removed(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    for _ in range(2):
        database = opened(path)
        ((name, note),) = database.damaged_files.items()
        assert "unknown" in note
        assert database.close(60)
    for part in path.parent.glob(f"{name}*"):
        part.unlink()
    database = opened(path)
    assert not database.damaged_files
    assert database.close(60)
