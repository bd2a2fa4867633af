"""The outbox while a sink is down: what waits costs the other readers nothing, and nothing is dropped twice or kept."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.delivery import report_queue
from zmon_collector.delivery.outbox import ROOM, Outbox, next_sequence
from zmon_collector.delivery.report_queue import ReportQueue
from zmon_collector.storage import store_file
from zmon_collector.storage.database import Database
from zmon_collector.storage.integrity import seal
from zmon_collector.telemetry import Telemetry

from zmon import Point, Report, RowCounts, Value, Window


def test_a_queue_is_what_a_list_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_queue, "SPARE", 3)
    chance, queue, plain, newest = random.Random(0), ReportQueue(), list[tuple[int, int]](), 0
    for _ in range(2000):
        if chance.random() < 0.55 or not plain:
            newest += chance.randint(1, 3)  # sequences may be missing
            plain.append((newest, chance.randint(1, 9)))
            queue.append(*plain[-1], 0.0)
        else:
            assert queue.drop_oldest()[:2] == plain.pop(0)
        cursor = chance.randint(0, newest + 1)
        later = [sequence for sequence, _ in plain if sequence > cursor]
        assert queue.after(cursor) == next(iter(later), None)
        assert queue.count_after(cursor) == len(later)
        assert (len(queue), queue.nbytes) == (len(plain), sum(nbytes for _, nbytes in plain))
        assert (queue.oldest[:2] if queue.oldest is not None else None) == next(iter(plain), None)


def seconds(call: Callable[[], object], times: int) -> float:
    """The least time of a call, of so many."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def closed_window(start: int = 0) -> ClosedWindow:
    values = [Point(None, Value("accuracy", 0.5))]
    return ClosedWindow(("m", ""), Window(start, start + 60), 1, values, {"a": RowCounts(1)}, {}, {})


def outbox(database: Database, *readers: str, limit: int = 2**40, telemetry: Telemetry | None = None) -> Outbox:
    made = Outbox(database, telemetry or Telemetry(), limit=limit, keep=1e9, first=1)
    database.call(lambda connection: made.load(connection, readers))
    return made


def close_window(box: Outbox, database: Database, start: int = 0) -> None:
    write, written = box.prepare(closed_window(start), {})
    written(database.call(write))


def costs(database: Database, waiting: int) -> list[float]:
    """What a reader that keeps up pays while so many reports wait for another one: to read, in health, to finish."""
    database.call(
        lambda connection: connection.executemany(
            "INSERT INTO reports (sequence, written, crc, data) VALUES (?, ?, ?, ?)",
            ((i, time.time(), *seal(b"")) for i in range(1, waiting + 1)),
        )
    )
    database.call(lambda c: c.execute("DELETE FROM cursors"))
    database.call(lambda c: c.execute("INSERT INTO cursors (reader, sequence) VALUES ('down', 0)"))
    box = outbox(database, "down", "quick")
    close_window(box, database)
    assert box.behind() == {"down": waiting + 1, "quick": 1}
    return [
        seconds(lambda: box.wait_for_next("quick", 60.0), 200),
        seconds(box.behind, 200),
        database.call(lambda connection: seconds(lambda: box.trim(connection), 200)),
    ]


def test_a_reader_pays_no_more_while_a_hundred_thousand_reports_wait_for_another(
    tmp_path: Path, database: Database
) -> None:
    few = costs(database, 100)
    database.call(lambda connection: connection.execute("DELETE FROM reports"))
    many = costs(database, 100_000)
    assert max(b / a for a, b in zip(few, many, strict=True)) < 20, "it grows with what waits"


def test_what_was_dropped_stays_dropped_when_its_transaction_runs_again(database: Database) -> None:
    telemetry = Telemetry()
    box = outbox(database, "slow")
    for start in range(0, 180, 60):
        close_window(box, database, start)
    limited = Outbox(database, telemetry, limit=1, keep=1e9, first=1)

    def undone(connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT disk_full")
        limited.load(connection, ["slow"])
        connection.execute("ROLLBACK TO disk_full")
        connection.execute("RELEASE disk_full")

    database.call(undone)
    database.call(limited.trim)
    assert database.call(lambda c: c.execute("SELECT sequence FROM reports").fetchall()) == [(3,)]
    assert telemetry.get("outbox_dropped", "slow") == 2


def test_a_report_that_is_too_large_loses_the_largest_details_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    monkeypatch.setattr(store_file, "MOST_BLOB", ROOM + 10_000)
    box = outbox(database, "files", telemetry=telemetry)
    details = {(None, "small"): b"s" * 1000, ("a", "large"): b"l" * 6000, (None, "large"): b"l" * 6000}
    write, written = box.prepare(closed_window()._replace(details=details), {})
    written(database.call(write))
    report = box.wait_for_next("files", 60.0)
    assert isinstance(report, Report)
    assert report.details.keys() == {(None, "small")}
    assert telemetry.get("details_left_out") == 1


def test_strange_files_among_those_of_the_file_sink_are_no_sequences(tmp_path: Path) -> None:
    (tmp_path / "anodot").mkdir()
    for name in ("20260102T030400Z-000000000042.json", "x-²².json", f"x-{10**30}.json", "-.json", "notes.json"):
        (tmp_path / "anodot" / name).touch()
    assert next_sequence(tmp_path) == 43
    assert next_sequence(tmp_path / "absent") == 1


def test_a_start_writes_only_what_has_changed_so_a_full_disk_does_not_delay_it(database: Database) -> None:
    def changes() -> int:
        return int(database.call(lambda connection: connection.total_changes))

    first = outbox(database, "a")
    close_window(first, database)
    first.mark_done("a", 1)
    before = changes()
    outbox(database, "a")
    assert changes() == before
    outbox(database, "a", "new")
    assert changes() == before + 1
