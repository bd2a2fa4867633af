"""What the collector keeps on disk: each codec there and back, and the store under every fault a file can have."""

from __future__ import annotations

import random
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.checkpoint_codec import AgentState
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.sample import Sample
from zmon_collector.delivery import report_codec
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage import chunk_codec, integrity, store_file
from zmon_collector.storage import schema as tables
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry

import zmon
from tests.support.waiting import until
from zmon.batch import Batch, Schema
from zmon.contract import Point, Refused, RowCounts, Value, Window
from zmon.errors import ConfigurationError
from zmon.testing import example_report

DTYPES = ["<f4", "<f8", "<f2", "<i8", "|u1", "|b1", "|S7"]


# --- codecs ---------------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_chunk_comes_back(data: st.DataObject) -> None:
    seed = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    records = []
    for _ in range(data.draw(st.integers(0, 5))):
        rows = data.draw(st.integers(0, 40))
        columns = {}
        for name in data.draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)):
            shape = (rows, data.draw(st.integers(1, 5))) if data.draw(st.booleans()) else (rows,)
            columns[name] = seed.integers(0, 100, shape).astype(data.draw(st.sampled_from(DTYPES)))
        numbers: Any = 7 if data.draw(st.booleans()) else seed.integers(1, 2**60, rows).astype(np.uint64)
        records.append(ChunkRecord("pod/1 ä", seed.bytes(16), seed.bytes(8), numbers, rows, columns))
    back = list(chunk_codec.decode(chunk_codec.encode(records)))
    assert len(back) == len(records)
    for left, right in zip(records, back, strict=True):
        assert (left.agent, left.stream, left.schema, left.rows) == (
            right.agent,
            right.stream,
            right.schema,
            right.rows,
        )
        assert np.array_equal(left.numbers, right.numbers)
        assert left.columns.keys() == right.columns.keys()
        for name, column in left.columns.items():
            assert column.dtype == right.columns[name].dtype
            assert np.array_equal(column, right.columns[name])


def test_a_strided_column_comes_back() -> None:
    column = np.arange(24.0).reshape(6, 4)[::2, ::-1]
    codes = {"codes": (("red", "grün"), ()), "segments": (("a", "b", "c"),)}
    (back,) = chunk_codec.decode(chunk_codec.encode([ChunkRecord("a", b"s", b"h", 1, 3, {"inputs": column}, codes)]))
    assert np.array_equal(back.columns["inputs"], column)
    assert back.dictionaries == codes


def test_a_chunk_of_a_newer_version_is_refused() -> None:
    data = bytearray(chunk_codec.encode([]))
    data[2] += 1
    with pytest.raises(ValueError, match="version"):
        list(chunk_codec.decode(bytes(data)))


def test_a_checkpoint_comes_back() -> None:
    schema = Schema(classes=("a", "b"), features=("x",), kinds=("numeric",))
    batch = Batch(schema, {"inputs": np.arange(3.0)[:, None], "probabilities": np.full((3, 2), 0.5)})
    sample = Sample(np.array([1, 2, 2**64 - 2], dtype=np.uint64), batch, 2**64 - 1)
    accumulators = {"m": {"n": 3, "sum": np.array([1.5])}}
    partials = {"": Partial(accumulators, covered={"m": 3}), "plugin": Partial()}
    packed = {
        executor: checkpoint_codec.pack_partials([Named("m")], {"pod": partial}, StepProgress())
        for executor, partial in partials.items()
    }
    agents = {"pod": AgentState(3, 4, sample=sample), "new": AgentState()}
    data, lost = checkpoint_codec.encode(agents, packed, {"n": "broke"})
    back = checkpoint_codec.decode(data, schema)
    assert not lost
    assert back.failed == {"n": "broke"}
    assert (back.agents["pod"].rows, back.agents["pod"].added) == (3, 4)
    restored = back.agents["pod"].partials[""]
    assert restored.accumulators["m"]["sum"].tolist() == [1.5]
    assert restored.covered == {"m": 3}
    found = back.agents["pod"].sample
    assert found is not None
    assert (found.keys.tolist(), found.bound, found.batch.rows) == ([1, 2, 2**64 - 2], 2**64 - 1, 3)
    assert back.agents["new"].sample is None
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint_codec.decode(data.replace(b"version\x02", b"version\x03"), schema)


class Named(zmon.MetricBase[object]):
    """A metric of which only the name is used."""

    def __init__(self, name: str) -> None:
        self.name = name

    create = update = merge = result = None  # type: ignore[assignment]


def test_a_metric_whose_accumulator_is_no_plain_data_loses_only_itself() -> None:
    progress = StepProgress()
    partial = Partial({"good": 1, "bad": object()}, covered={"good": 1, "bad": 1})
    packed = checkpoint_codec.pack_partials([Named("good"), Named("bad")], {"a": partial}, progress)
    data, _ = checkpoint_codec.encode({"a": AgentState(1, 1)}, {"": packed}, progress.failures)
    back = checkpoint_codec.decode(data, Schema())
    assert list(progress.failures) == list(back.failed) == ["bad"]
    assert back.agents["a"].partials[""].accumulators == {"good": 1}
    assert back.agents["a"].partials[""].covered == {"good": 1}


def test_a_report_comes_back() -> None:
    report = example_report(7)
    back = report_codec.decode(report_codec.encode(report))
    assert back == report
    with pytest.raises(ValueError, match="not a report"):
        report_codec.decode(report_codec.encode(report).replace(b"version\x01", b"version\x02"))


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_file, "PAUSES", (0.0, 0.0, 0.0))
    return tmp_path / "state.sqlite"


def opened(path: Path) -> Database:
    database = Database(path, Telemetry())
    database.open()
    database.start()
    return database


def put(number: int) -> Any:
    return lambda connection: connection.execute("INSERT INTO cursors (reader, sequence) VALUES (?, 1)", (str(number),))


def stored(path: Path) -> set[int]:
    database = opened(path)
    found = database.call(lambda connection: connection.execute("SELECT reader FROM cursors").fetchall())
    database.close(5)
    return {int(each) for (each,) in found}


def test_done_is_called_in_order_and_only_when_it_is_on_disk(path: Path) -> None:
    database = opened(path)
    seen: list[int] = []
    for number in range(500):
        database.submit(put(number), lambda _, number=number: seen.append(number), 1000)
    assert database.wait(60)
    assert seen == list(range(500))
    assert database.pending_bytes == 0
    assert database.close(5)
    assert stored(path) == set(range(500))
    assert oct(path.stat().st_mode)[-3:] == "600"


def test_one_jobs_fault_is_not_the_others(path: Path) -> None:
    database = opened(path)

    def wrong(connection: Any) -> None:
        put(99)(connection)
        raise KeyError("mine")

    database.submit(put(1))
    with pytest.raises(KeyError, match="mine"):
        database.call(wrong)
    database.submit(put(2))
    assert database.close(5)
    assert stored(path) == {1, 2}


def test_a_job_may_return_an_exception_as_its_result(path: Path) -> None:
    database = opened(path)
    returned: list[Any] = []
    database.submit(lambda connection: ValueError("a damaged chunk"), returned.append)
    assert database.wait(10)
    assert isinstance(returned[0], ValueError)
    assert not database.broken
    assert database.close(10)


def test_a_second_collector_is_refused(path: Path) -> None:
    database = opened(path)
    database.call(put(1))
    with pytest.raises(ConfigurationError, match="another collector"):
        Database(path, Telemetry()).open()
    database.close(5)


def test_a_newer_file_is_refused_untouched(path: Path) -> None:
    opened(path).close(5)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {tables.VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="newer zmon"):
        Database(path, Telemetry()).open()
    assert path.read_bytes() == before
    assert list(path.parent.glob("*damaged*")) == []


def test_a_file_of_another_program_is_refused_untouched(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        Database(path, Telemetry()).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_never_stops_the_start(seed: int, path: Path) -> None:
    """Bytes flipped, or the end cut off, in the file or its log: it opens, with or without what it held."""
    chance = random.Random(seed)
    database = opened(path)
    for number in range(200):
        row = (number, b"x" * 3000)
        database.call(
            lambda c, row=row: c.execute("INSERT INTO chunks (window, turn, crc, data) VALUES (1, ?, 0, ?)", row)
        )
    log = path.with_name(path.name + "-wal").read_bytes()
    main = path.read_bytes()
    database.close(5)
    path.write_bytes(damaged(main, chance) if seed % 2 else main)
    path.with_name(path.name + "-wal").write_bytes(log if seed % 2 else damaged(log, chance))
    again = Database(path, Telemetry())
    again.open()
    again.start()
    again.call(put(1))
    assert again.close(5)
    assert len(again.damaged_files) <= 1
    assert stored(path) == {1}


def damaged(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return data[: chance.randrange(len(data))]
    flipped = bytearray(data)
    for _ in range(chance.choice([1, 10, 1000])):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def test_rubbish_is_set_aside_and_counted(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    telemetry = Telemetry()
    database = Database(path, telemetry)
    database.open()
    database.close(5)
    (name,) = database.damaged_files
    assert (path.parent / name).read_bytes().startswith(b"this is no")
    assert telemetry.get("files_set_aside") == 1


def test_a_sealed_blob_is_read_back_and_a_flipped_bit_noticed() -> None:
    crc, data = integrity.seal(b"rows of a window")
    assert integrity.unseal(crc, data) == b"rows of a window"
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="checksum"):
            integrity.unseal(crc, bytes(flipped))


def test_a_damaged_file_takes_its_log_along_and_no_older_one(path: Path) -> None:
    path.write_bytes(b"new")
    path.with_name("state.sqlite-wal").write_bytes(b"new log")
    for suffix in ("", "-wal", "-shm"):
        path.with_name("aside" + suffix).write_bytes(b"old")
    assert integrity.set_aside(path, "aside") == path.with_name("aside")
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == {
        "aside": b"new",
        "aside-wal": b"new log",
    }


def test_only_some_damaged_files_are_kept(path: Path) -> None:
    for number in range(6):
        path.write_bytes(b"%d" % number * 9999)
        database = Database(path, Telemetry())
        database.open()
        database.close(5)
    assert len(list(path.parent.glob("*damaged*"))) <= 6  # at most three files, each with its log


def test_rows_of_closed_windows_are_deleted_while_other_work_goes_on(path: Path) -> None:
    database = opened(path)
    blob = bytes(300_000)
    for turn in range(100):
        database.call(
            lambda c, t=turn: c.execute("INSERT INTO chunks (window, turn, crc, data) VALUES (5, ?, 0, ?)", (t, blob))
        )
    before = database.used_bytes
    database.delete_chunks(5, 49)
    until(lambda: count(database) == 50, what="the older half to go")
    database.delete_chunks(5, 99)
    until(lambda: count(database) == 0, what="the rest to go")
    database.call(put(1))
    assert database.used_bytes < before / 10
    database.close(5)


def test_what_is_deleted_is_noticed_without_another_job(path: Path) -> None:
    """With a full journal no rows are accepted, so no other job may come."""
    database = opened(path)
    insert = "INSERT INTO chunks (window, turn, crc, data) VALUES (5, 1, 0, ?)"
    database.submit(lambda connection: connection.executemany(insert, [(bytes(2**18),)] * 8))
    assert database.wait(60)
    full = database.used_bytes
    assert full > 2**21
    database.delete_chunks(5, 1)
    until(lambda: database.used_bytes <= full - 2**21, what="the deletion")
    assert database.close(60)


def count(database: Database) -> int:
    return int(database.call(lambda c: c.execute("SELECT count(*) FROM chunks").fetchone()[0]))


# --- the outbox -----------------------------------------------------------------------------------------------------


def outbox(database: Database, *readers: str, limit: int = 2**30, keep: float = 3600.0) -> Outbox:
    made = Outbox(database, Telemetry(), limit=limit, keep=keep, first=1)
    database.call(lambda connection: made.load(connection, readers))
    return made


def dead_letters(database: Database) -> DeadLetters:
    return DeadLetters(database, Telemetry(), rows=100, keep=3600.0)


def close_window(box: Outbox, database: Database, start: int, points: int = 3) -> None:
    values = [Point(None, Value("accuracy", 0.5, class_name=f"class {i}")) for i in range(points)]
    closed = ClosedWindow(("m", ""), Window(start, start + 60), 1, values, {"a": RowCounts(1)}, {}, {})
    write, written = box.prepare(closed, {})
    written(database.call(write))


def test_each_reader_sees_every_report_in_order_across_a_restart(path: Path) -> None:
    database = opened(path)
    box = outbox(database, "files", "api")
    for start in range(0, 600, 60):
        close_window(box, database, start)
    for expected in range(1, 6):
        report = box.wait_for_next("files", 1.0)
        assert report is not None
        assert (report.sequence, report.window.start) == (expected, 60 * (expected - 1))
        box.mark_done("files", expected)
    database.close(5)
    database = opened(path)
    box = outbox(database, "files", "api")
    assert box.behind() == {"files": 5, "api": 10}
    report = box.wait_for_next("files", 1.0)
    assert report is not None
    assert report.sequence == 6
    assert report.points[2].value.class_name == "class 2"
    for reader in ("files", "api"):
        box.mark_done(reader, 10)
    database.wait(60)
    assert database.call(lambda c: c.execute("SELECT count(*) FROM reports").fetchone()[0]) == 0
    close_window(box, database, 6000)
    last = box.wait_for_next("api", 1.0)
    assert last is not None
    assert last.sequence == 11
    box.end()
    box.mark_done("api", 11)
    assert box.wait_for_next("api", 1.0) is None
    database.close(5)


def test_beyond_its_bytes_the_oldest_go_and_are_counted(path: Path) -> None:
    database = opened(path)
    telemetry = Telemetry()
    box = Outbox(database, telemetry, limit=20_000, keep=3600.0, first=1)
    database.call(lambda connection: box.load(connection, ["slow", "quick"]))
    for start in range(0, 60 * 40, 60):
        close_window(box, database, start, points=20)
        box.mark_done("quick", 1 + start // 60)
    database.wait(60)
    assert box.nbytes <= 20_000
    dropped = telemetry.get("outbox_dropped", "slow")
    assert dropped == 40 - len(box) > 0
    assert telemetry.get("outbox_dropped", "quick") == 0
    report = box.wait_for_next("slow", 1.0)
    assert report is not None
    assert report.sequence == dropped + 1
    database.close(5)


def test_a_report_that_waits_too_long_goes(path: Path) -> None:
    database = opened(path)
    box = outbox(database, "slow", keep=0.0)
    close_window(box, database, 0)
    close_window(box, database, 60)
    database.wait(60)
    assert len(box) == 1
    database.close(5)


def test_a_damaged_report_is_passed_over(path: Path) -> None:
    database = opened(path)
    box = outbox(database, "files")
    close_window(box, database, 0)
    close_window(box, database, 60)
    database.call(lambda c: c.execute("UPDATE reports SET data = ? WHERE sequence = 1", (b"rubbish",)))
    database.close(5)
    database = opened(path)
    box = outbox(database, "files")
    report = box.wait_for_next("files", 1.0)
    assert report is not None
    assert report.sequence == 2
    database.close(5)


def test_a_sink_notes_how_far_it_has_come(path: Path) -> None:
    database = opened(path)
    outbox(database, "api")
    ledger = dead_letters(database).ledger("api")
    assert ledger.settled(3) == 0
    ledger.settle(3, 1000, [Refused({"value": float("nan")}, "2026", "NaN")])
    database.close(5)
    database = opened(path)
    box = outbox(database, "api")
    ledger = dead_letters(database).ledger("api")
    assert (ledger.settled(3), ledger.settled(4)) == (1000, 0)
    assert database.call(lambda c: c.execute("SELECT code, description FROM refused").fetchall()) == [("2026", "NaN")]
    box.mark_done("api", 3)
    database.wait(60)
    assert ledger.settled(3) == 0
    database.close(5)


def test_a_waiting_reader_is_woken_by_the_end(path: Path) -> None:
    database = opened(path)
    box = outbox(database, "files")
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(box.wait_for_next("files")))
    thread.start()
    box.end()
    thread.join(60)
    assert got == [None]
    database.close(5)


def test_a_checksum_is_of_what_is_stored_and_where(path: Path) -> None:
    database = opened(path)
    box = outbox(database, "files")
    close_window(box, database, 0)
    sequence, crc, data = database.call(lambda c: c.execute("SELECT sequence, crc, data FROM reports").fetchone())
    assert integrity.unseal(crc, data, sequence) == data
    with pytest.raises(ValueError, match="checksum"):
        integrity.unseal(crc, data, sequence + 1)
    assert integrity.unseal(zlib.crc32(data), data, sequence) == data, "of release 0.1"
    database.close(5)
