"""Every job of the database has an outcome, whatever the disk does; what can be read again is not called damaged."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from zmon_collector.config import Config
from zmon_collector.config.sections import MetricsSection, WebSection
from zmon_collector.delivery import report_codec
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.storage import database as module
from zmon_collector.storage import integrity, journal, journal_state, schema, store_file
from zmon_collector.storage.database import Database, StoreError
from zmon_collector.telemetry import Telemetry

from tests.support.collectors import answer
from tests.support.disks import FailingDisk, failing_disk
from tests.support.waiting import PATIENCE, until
from zmon.errors import ConfigurationError


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    with failing_disk(monkeypatch) as disk:
        yield disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def opened(path: Path) -> Database:
    database = Database(path, Telemetry())
    database.open()
    database.start()
    return database


def put(number: int) -> Any:
    return lambda connection: connection.execute("INSERT INTO heard (model, version) VALUES ('m', ?)", (str(number),))


def stored(database: Database) -> set[int]:
    return {int(each) for (each,) in database.call(lambda c: c.execute("SELECT version FROM heard").fetchall())}


def outcome_of(database: Database, work: Any) -> tuple[str, Any]:
    """What a job that was submitted came to; a test that waits for ever says so."""
    outcomes: list[tuple[str, Any]] = []
    database.submit(
        work, lambda result: outcomes.append(("done", result)), failed=lambda error: outcomes.append(("failed", error))
    )
    until(lambda: outcomes, what="the job's outcome")
    return outcomes[0]


FATAL = ["SQLITE_CORRUPT", "SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR_READ"]


@pytest.mark.parametrize("where", ["BEGIN", "SAVEPOINT", "FROM streams", "RELEASE", "COMMIT"])
@pytest.mark.parametrize("name", FATAL)
def test_an_error_in_the_first_group_ends_the_start_with_it(
    name: str, where: str, disk: FailingDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_PATIENCE", 0.0)
    database = Database(path, Telemetry())
    database.open()
    disk.fail(name, 10**6, where)
    database.start()
    raised: list[BaseException] = []

    def restore() -> None:
        try:
            database.call(journal_state.load)
        except StoreError as error:
            raised.append(error)

    thread = threading.Thread(target=restore, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert raised, "the caller waits for ever"
    assert str(path) in str(raised[0])
    assert database.broken
    assert database.close(60)


def test_a_start_that_the_database_refuses_says_why_and_exits_with_1(path: Path) -> None:
    database = opened(path)
    database.call(lambda connection: connection.execute("DROP TABLE streams"))
    assert database.close(60)
    ended = subprocess.run(
        [sys.executable, "-m", "zmon_collector", "collect", "--no-web", "--data-dir", path.parent],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ended.returncode == 1
    assert f"zmon: {path}: no such table: streams" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("how", ["call", "submit", "wait"])
def test_what_comes_after_the_end_of_the_thread_fails_at_once(how: str, disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    disk.fail("SQLITE_NOMEM", 10**6, "COMMIT")
    database.submit(put(1))
    until(lambda: database.broken, what="the end")
    if how == "call":
        with pytest.raises(StoreError, match="SQLITE_NOMEM"):
            database.call(put(2))
    elif how == "submit":
        assert outcome_of(database, put(2))[0] == "failed"
    else:
        assert not database.wait(PATIENCE)


def test_all_that_were_queued_behind_a_fatal_error_are_told(disk: FailingDisk, path: Path) -> None:
    database = Database(path, Telemetry())
    database.open()
    disk.fail("SQLITE_NOMEM", 10**6, "COMMIT")
    failed: list[Exception] = []
    for number in range(2 * module.GROUP_JOBS):
        database.submit(put(number), failed=failed.append)
    database.start()
    until(lambda: len(failed) == 2 * module.GROUP_JOBS, what="their outcomes")
    assert {type(error) for error in failed} == {StoreError}


def test_a_callback_that_raises_ends_the_database_and_leaves_nobody_waiting(path: Path) -> None:
    database = Database(path, Telemetry())
    database.open()

    def wrong(_: Any) -> None:
        raise KeyError("mine")

    failed: list[Exception] = []
    database.submit(put(1), wrong)
    database.submit(put(2), failed=failed.append)
    database.start()
    until(lambda: failed, what="the outcome of the other")
    assert "mine" in database.broken


def test_a_row_above_the_bound_fails_its_job_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "MOST_BLOB", 2**20)
    database = opened(path)
    big = bytes(2**20 + 1)
    database.submit(put(1))
    kind, error = outcome_of(database, lambda c: journal.write_checkpoint(1, 1, big, c))
    assert kind == "failed" and isinstance(error, sqlite3.Error)
    kind, _ = outcome_of(database, lambda c: journal.write_closed(1, ("m", ""), {("plugin", None): big}, c))
    assert kind == "failed"
    with pytest.raises(StoreError, match="too big"):
        database.call(lambda c: c.execute("INSERT INTO reports (sequence, data) VALUES (1, ?)", (big,)))
    database.submit(put(2))
    assert stored(database) == {1, 2}
    assert not database.broken
    assert database.close(60)


@pytest.mark.parametrize("where", ["BEGIN", "INSERT", "COMMIT", "DELETE"])
@pytest.mark.parametrize("name", ["SQLITE_IOERR_READ", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"])
def test_a_burst_of_disk_errors_costs_nothing(
    name: str, where: str, disk: FailingDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    database = opened(path)
    disk.fail(name, 4, where)
    for number in range(3):
        database.call(put(number))
    database.delete_chunks(1, 1)
    until(lambda: disk.failures == 4, what="the burst")
    assert stored(database) == {0, 1, 2}
    assert not database.broken
    assert database.close(60)


@pytest.mark.parametrize("name", ["SQLITE_IOERR_READ", "SQLITE_CORRUPT", "SQLITE_NOTADB"])
@pytest.mark.parametrize("where", ["user_version", "quick_check", "journal_mode"])
def test_a_start_reads_again_before_it_sets_a_file_aside(name: str, where: str, disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    database.call(put(1))
    assert database.close(60)
    disk.fail(name, len(store_file.PAUSES), where)
    database = opened(path)
    assert disk.failures == len(store_file.PAUSES)
    assert not database.damaged_files
    assert stored(database) == {1}
    assert database.close(60)


@pytest.mark.parametrize("where", ["BEGIN", "FROM heard", "COMMIT"])
def test_damage_that_is_gone_when_it_is_read_again_costs_nothing(where: str, disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    database.call(put(1))
    disk.fail("SQLITE_CORRUPT", 1, where)
    assert stored(database) == {1}
    assert disk.failures == 1
    assert not database.damaged_files
    assert database.close(60)


def test_damage_that_stays_sets_the_file_aside_and_ends_the_database(disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    database.call(put(1))
    healthy = disk.fault
    disk.fault = lambda statement: (
        "SQLITE_CORRUPT" if statement != "PRAGMA page_count" and path.stat().st_ino == inode else None
    )
    inode = path.stat().st_ino
    with pytest.raises(StoreError):
        database.call(put(2))
    assert database.broken and len(database.damaged_files) == 1
    disk.fault = healthy
    database = opened(path)
    assert len(database.damaged_files) == 1, "it is told until somebody has removed the file"
    assert stored(database) == {1}, "what can be read is kept"
    assert database.close(60)


WINDOW, OTHER = 0x3E9, 0x3EA  # two bytes each, which are nowhere else on their page


def differing(path: Path, name: str) -> None:
    """Write two chunks, and let the table or the index of that name say that the first is of the other's window."""
    database = opened(path)
    for window in (WINDOW, OTHER):
        row = (window, *integrity.seal(b"rows", window, 7))
        database.call(
            lambda c, row=row: c.execute("INSERT INTO chunks (window, turn, crc, data) VALUES (?, 7, ?, ?)", row)
        )
    (page,) = database.call(
        lambda c: c.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    )
    assert database.close(60)
    data = bytearray(path.read_bytes())
    start = (page - 1) * schema.PAGE
    at = data.index(WINDOW.to_bytes(2, "big"), start, start + schema.PAGE)
    data[at : at + 2] = OTHER.to_bytes(2, "big")
    path.write_bytes(data)


def chunks(database: Database) -> list[int]:
    found = database.call(lambda c: c.execute("SELECT window FROM chunks NOT INDEXED").fetchall())
    return [window for (window,) in found]


@pytest.mark.parametrize("name", ["chunks", "chunks_by_window"])
def test_an_index_that_differs_from_its_table_is_built_again(name: str, path: Path) -> None:
    """SQLite finds it when it deletes the row, and calls it damage, at each start again."""
    differing(path, name)
    database = opened(path)
    for window in (WINDOW, OTHER, WINDOW):  # whichever of the two it is found to be of
        database.delete_chunks(window, 7)
    until(lambda: database.broken or not chunks(database), what="the deletion")
    assert not database.broken
    assert not database.damaged_files
    assert database.close(60)


def test_damage_that_comes_again_in_a_file_that_was_opened_again_sets_it_aside(disk: FailingDisk, path: Path) -> None:
    """However sound its pages look: no start could use it."""
    database = opened(path)
    database.call(put(1))
    disk.fail("SQLITE_CORRUPT", 2, "INSERT INTO heard")
    with pytest.raises(StoreError):
        database.call(put(2))
    assert database.broken and len(database.damaged_files) == 1
    database = opened(path)
    assert stored(database) == {1}
    assert database.close(60)


@pytest.mark.parametrize("name", ["SQLITE_CORRUPT", "SQLITE_CONSTRAINT"])
def test_an_index_that_cannot_be_built_sets_the_file_aside(name: str, disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    database.call(put(1))

    def fault(statement: str) -> str | None:
        return "SQLITE_CORRUPT" if "INSERT INTO heard" in statement else name if statement == "REINDEX" else None

    disk.fault = fault
    with pytest.raises(StoreError):
        database.call(put(2))
    assert database.broken and len(database.damaged_files) == 1
    disk.fault = lambda statement: None
    database = opened(path)
    assert stored(database) == {1}
    assert database.close(60)


@pytest.mark.parametrize("error", [OSError("gone"), sqlite3.OperationalError("disk I/O error")], ids=["OS", "SQLite"])
def test_a_new_file_begins_though_the_damaged_one_cannot_be_copied_from(
    error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path, connection: sqlite3.Connection) -> Any:
        connection.execute("BEGIN IMMEDIATE")
        put(1)(connection)
        raise error

    monkeypatch.setattr(store_file, "PAUSES", ())
    monkeypatch.setattr(store_file, "salvage", failing)
    path.write_bytes(b"this is no database" * 1000)
    database = opened(path)
    assert stored(database) == set(), "what was copied until then may be a part of something"
    (note,) = database.damaged_files.values()
    assert str(error) in note
    assert database.close(60)


def test_a_start_that_can_create_no_new_file_says_why(disk: FailingDisk, path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    disk.fault = lambda statement: "SQLITE_CANTOPEN" if list(path.parent.glob("*damaged*")) else None
    with pytest.raises(ConfigurationError, match=r"cannot be used: SQLITE_CANTOPEN; fix it, or choose"):
        opened(path)


@pytest.mark.parametrize("how", ["wait", "close"])
def test_the_end_does_not_wait_for_a_full_disk(
    how: str, disk: FailingDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FULL_WAIT", 0.001)
    database = opened(path)
    disk.fail("SQLITE_FULL", 10**6, "COMMIT")
    failed: list[Exception] = []
    database.submit(put(1), failed=failed.append)
    until(lambda: database.full, what="a full disk")
    if how == "wait":
        assert not database.wait(0.01)
    assert database.close(60)
    assert failed and database.broken


def test_rows_are_deleted_though_the_disk_was_full_in_between(
    disk: FailingDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is free then is given back."""
    for name, value in (("FULL_WAIT", 0.001), ("FREE_BYTES", 0)):
        monkeypatch.setattr(module, name, value)
    database = opened(path)
    for turn in range(30):
        row = (WINDOW, turn, bytes(10 * schema.PAGE))
        database.call(lambda c, row=row: c.execute("INSERT INTO chunks (window, turn, data) VALUES (?, ?, ?)", row))
    before = path.stat().st_size + path.with_name(path.name + "-wal").stat().st_size
    disk.fail("SQLITE_FULL", 3, "DELETE FROM chunks")
    database.delete_chunks(WINDOW, 30)
    until(lambda: not chunks(database), what="the deletion")
    assert disk.failures == 3
    pages = lambda: database.call(lambda c: c.execute("PRAGMA freelist_count").fetchone())[0]  # noqa: E731
    until(lambda: pages() == 0, what="pages to be returned")
    assert database.close(60)
    assert path.stat().st_size < before / 4


def test_a_connection_that_cannot_be_closed_costs_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def close() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    store_file.close(SimpleNamespace(close=close))  # type: ignore[arg-type]
    assert "not closed cleanly: disk I/O error" in caplog.text


def test_the_beat_goes_on_while_nothing_is_to_do_and_while_the_disk_fails(disk: FailingDisk, path: Path) -> None:
    database = opened(path)
    for _ in range(2):
        before = database.beat
        until(lambda before=before: database.beat > before, what="a beat while idle")
    disk.fail("SQLITE_FULL", 3, "COMMIT")
    database.submit(put(1))
    until(lambda: database.full, what="a full disk")
    before = database.beat
    until(lambda: database.beat > before, what="a beat while the disk is full")
    assert database.close(60)


def test_the_beat_goes_on_within_a_long_statement(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "STEPS", 1000)
    database = opened(path)
    beats: set[float] = set()

    def work(connection: sqlite3.Connection) -> None:
        connection.create_function("look", 0, lambda: beats.add(database.beat))
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT count(look()) FROM n"
        ).fetchall()

    database.call(work)
    assert len(beats) > 2
    assert database.close(60)


def test_a_checkpoint_that_the_database_refuses_costs_nothing_but_itself(
    collect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "MOST_BLOB", 2**20)
    monkeypatch.setattr(checkpoint_policy, "CHECKPOINT_BYTES", 2**20)
    collector = collect(config=Config(metrics=MetricsSection(preset="minimal"), web=WebSection(enabled=False)))
    telemetry = collector.service.telemetry
    rows = 0
    with collector.publisher(agent_id="a", classes=2) as publisher:
        while not telemetry.get("checkpoints_failed"):
            publisher.publish(np.full((200, 2), 0.5), inputs=np.ones((200, 100)), timestamps=1_000_000_021)
            rows += 200
            assert publisher.flush(60)
    collector.stop()
    assert not collector.service.failed
    assert collector.counts("buffer_count", agent_id="a") == rows


def test_a_report_that_the_database_refuses_costs_its_window_and_every_row_is_counted(
    collect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "MOST_BLOB", 2**20)
    encode, sizes = report_codec.encode, iter([2**20 + 1])
    monkeypatch.setattr(report_codec, "encode", lambda *given: encode(*given) + bytes(next(sizes, 0)))
    options = {"grace": 0.0, "config": Config(metrics=MetricsSection(preset="minimal"), web=WebSection(enabled=False))}
    collector = collect(**options, flush_on_exit=False)
    telemetry = collector.service.telemetry
    with collector.publisher(agent_id="a", classes=2) as publisher:
        for minute, rows in enumerate((5, 7)):
            publisher.publish(np.full((rows, 2), 0.5), timestamps=1_000_000_021 + 60 * minute)
            assert publisher.flush(60)
        until(lambda: telemetry.get("reports_unwritten"), what="the refusal")
        assert any("could not be written" in problem for problem in answer(collector.folder)["problems"])
    collector.stop()
    assert not collector.service.failed
    again = collect(**options)
    again.stop()
    assert (again.counts("buffer_count", agent_id="a"), again.counts("rows_lost", agent_id="a")) == (7, 5)
