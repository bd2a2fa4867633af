"""The join of late labels on its own: bounds, order, restatement; and labels through a collector."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from zmon_collector.config import Config
from zmon_collector.dashboard import history_queries
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.ingest.arrival import BatchArrival
from zmon_collector.ingest.late_labels import LateLabels
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.session import Session
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.ingest.validation import WindowSlice
from zmon_collector.storage import label_join, restatement_queue, schema
from zmon_collector.storage.journal import Turn
from zmon_collector.storage.label_join import Joined
from zmon_collector.storage.label_work import JoinWindow, JoinWork, Labelled, Predicted, Sweep
from zmon_collector.storage.restatement_queue import Place, RestatementPiece
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import Now, OpenWindow, WindowRules

from tests.support.collectors import Collector
from tests.support.databases import in_memory, stored
from tests.support.waiting import until
from zmon import Batch, Schema
from zmon._wire.frames import Message, Topic

OPEN = JoinWindow(7, 60)
NAMES = {
    name: getattr(label_join, name) for name in ("JOINED", "UNKNOWN", "DUPLICATE", "CONFLICT", "REPEATED", "FORBIDDEN")
}


def predicted(ids: Sequence[str], start: int = 0, kept: float = 0.0, own: Sequence[int] | None = None) -> Predicted:
    n = len(ids)
    said = np.array([len(each) % 3 for each in ids])
    p = np.full((n, 3), 1 / 3, dtype=np.float32)
    names = [each.encode() for each in ids]
    given_labels = None if own is None else np.array(own)
    return Predicted(
        1, JoinWindow(5, start), start + 60, "pod", kept, names, np.full(n, start * 10**9), said, p, given_labels
    )


def labelled(pairs: Sequence[tuple[str, int]], at: int = 100, received: float = 0.0) -> Labelled:
    ids, found = [each.encode() for each, _ in pairs], np.array([label for _, label in pairs])
    return Labelled(1, OPEN, "truth", received, ids, found, np.full(len(ids), at * 10**9))


def outcomes(*joined: Joined) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for each in joined:
        for records in each.records.values():
            for record in records:
                counts.update(record.columns["label_outcomes"].tolist())
    return {name.lower(): counts[code] for name, code in NAMES.items() if counts[code]}


def kept(connection: sqlite3.Connection) -> int:
    """The ledger, which must say what is there."""
    (said,) = connection.execute("SELECT kept FROM label_bytes").fetchone()
    there = sum(
        connection.execute(f"SELECT coalesce(sum(size), 0) FROM {table}").fetchone()[0]
        for table in ("predictions", "labels_waiting")
    )
    assert said == there
    return int(said)


ODD: list[Any] = [None, "x", b"\xff", -1, 2**62]


@pytest.mark.parametrize("value", ["no row", *ODD], ids=ascii)
def test_the_sum_of_bytes_is_made_again_if_it_cannot_be(value: Any) -> None:
    connection = in_memory()
    work = JoinWork(predicted=[predicted(["x", "y"])], labelled=[labelled([("z", 1)])])
    before = label_join.join(work, connection).kept_bytes
    if value == "no row":
        connection.execute("DELETE FROM label_bytes")
    else:
        connection.execute("UPDATE label_bytes SET kept = ?", (value,))
    assert label_join.restore_kept_bytes(10**6, connection) == kept(connection) == before > 0


@pytest.mark.parametrize("value", ODD, ids=ascii)
@pytest.mark.parametrize("column", ["size", "kept"])
def test_a_damaged_size_or_age_ends_no_join(column: str, value: Any) -> None:
    connection = in_memory()
    waiting = {"size": "size", "kept": "received"}[column]
    label_join.join(JoinWork(predicted=[predicted(["x"])], labelled=[labelled([("z", 1)])]), connection)
    connection.execute(f"UPDATE predictions SET {column} = ?", (value,))
    connection.execute(f"UPDATE labels_waiting SET {waiting} = ?", (value,))
    sweep = Sweep(50.0, 50.0, {1: OPEN})
    label_join.join(JoinWork(limit=100, predicted=[predicted(["y"], kept=99.0)], sweep=sweep), connection)
    found = label_join.join(JoinWork(limit=0, predicted=[predicted(["z"], kept=99.0)]), connection)
    assert isinstance(found.kept_bytes, int)


@pytest.mark.parametrize("value", [None, "x", b"\xff", 7], ids=ascii)
@pytest.mark.parametrize("column", ["p", "kind", "at"])
def test_a_damaged_prediction_does_not_keep_others_from_being_restated(column: str, value: Any) -> None:
    connection = with_pairs(windows=2, rows=3)
    connection.execute("UPDATE predictions SET crc = 1")
    connection.execute(f"UPDATE predictions SET {column} = ? WHERE n = 1", (value,))
    connection.execute("UPDATE restate SET rest = ? WHERE start = 0", (value,))
    pieces = [piece for each in read(connection) for piece in each]
    assert {piece.target.start for piece in pieces} == {0, 60}


@pytest.mark.parametrize("column", ["id", "agent", "at", "predicted", "kind", "p", "label", '"end"'])
def test_a_damaged_prediction_is_dropped_and_counted_and_joins_nothing(column: str) -> None:
    connection = in_memory()
    label_join.join(JoinWork(predicted=[predicted(["x", "y"])]), connection)
    damaged = {"id": b"x", "agent": "other", "kind": "<f8", "p": b"\0" * 12}.get(column, 4)
    connection.execute(f"UPDATE OR REPLACE predictions SET {column} = ? WHERE n = 1", (damaged,))
    if column == "id":  # another id that is there by chance
        connection.execute("UPDATE predictions SET id = ? WHERE n = 1", (b"z",))
    name = "z" if column == "id" else "x"
    found = label_join.join(JoinWork(labelled=[labelled([(name, 1), ("y", 1)])]), connection)
    assert outcomes(found) == {"joined": 1}
    assert found.damaged == {"predictions": 1}
    kept(connection)
    again = label_join.join(JoinWork(labelled=[labelled([("y", 1)])]), connection)
    assert (outcomes(again), again.damaged) == ({"duplicate": 1}, {}), "the checksum follows the label"


@pytest.mark.parametrize("column", ["id", "agent", "at", "label"])
def test_a_damaged_label_that_waits_is_dropped_and_counted(column: str) -> None:
    connection = in_memory()
    label_join.join(JoinWork(labelled=[labelled([("x", 1), ("y", 1)])]), connection)
    damaged = {"id": b"z", "agent": "other"}.get(column, 2)
    connection.execute(f"UPDATE labels_waiting SET {column} = ? WHERE n = 1", (damaged,))
    found = label_join.join(JoinWork(predicted=[predicted(["x", "y", "z"])]), connection)
    assert outcomes(found) == {"joined": 1}
    assert found.damaged == {"labels_waiting": 1}
    kept(connection)


@pytest.mark.parametrize("checksums", [True, False], ids=["with checksums", "of an older release"])
@pytest.mark.parametrize("damage", [{"kind": "<f9"}, {"p": b"odd"}, {"kind": ""}])
def test_a_damaged_prediction_is_left_out_of_a_restatement(damage: dict[str, Any], checksums: bool) -> None:
    connection = in_memory()
    classes = msgpack.packb(["a", "b", "c"])
    work = JoinWork(predicted=[predicted(["x", "y", "z"], own=[1, 1, 1])])
    work.owners.append((1, "m", "", "classification", classes))
    label_join.join(work, connection)
    if not checksums:
        connection.execute("UPDATE predictions SET crc = NULL")
    connection.execute(f"UPDATE predictions SET {next(iter(damage))} = ? WHERE n = 3", list(damage.values()))
    restatement_queue.mark([(1, 0, 60)], connection)
    ((piece,), place) = restatement_queue.read(None, 1e12, connection)
    assert ([row[0] for row in piece.rows], piece.last, place) == ([1, 2], True, None)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=5)),
        max_size=12,
    )
)
def test_whatever_the_order_first_wins(steps: list[tuple[bool, list[tuple[int, int]]]]) -> None:
    """Against a model in a few lines of Python."""
    connection = in_memory()
    predictions: set[int] = set()
    truth: dict[int, int] = {}
    expected: Counter[str] = Counter()
    found = []
    for is_label, rows in steps:
        if is_label:
            found.append(label_join.join(JoinWork(labelled=[labelled([(f"i{i}", y) for i, y in rows])]), connection))
            for i, y in rows:
                if i not in truth:
                    truth[i] = y
                    expected["joined"] += i in predictions
                else:
                    expected["duplicate" if truth[i] == y else "conflict"] += 1
        else:
            found.append(label_join.join(JoinWork(predicted=[predicted([f"i{i}" for i, _ in rows])]), connection))
            for i, _ in rows:
                if i in predictions:
                    expected["repeated"] += 1
                else:
                    predictions.add(i)
                    expected["joined"] += i in truth
        kept(connection)
    assert outcomes(*found) == {name: count for name, count in expected.items() if count}


def test_a_prediction_that_came_with_its_label() -> None:
    connection = in_memory()
    first = label_join.join(JoinWork(predicted=[predicted(["a", "b"], own=[1, -1])]), connection)
    second = label_join.join(JoinWork(labelled=[labelled([("a", 1), ("a", 2), ("b", 0)])]), connection)
    assert outcomes(first, second) == {"duplicate": 1, "conflict": 1, "joined": 1}


def test_repeated_labels_count_for_the_predictions_agent() -> None:
    connection = in_memory()
    label_join.join(JoinWork(predicted=[predicted(["a"], own=[1])]), connection)
    joined = label_join.join(JoinWork(labelled=[labelled([("a", 1), ("a", 2)])]), connection)
    assert {record.agent: len(record.columns["label_outcomes"]) for record in joined.records[7]} == {"pod": 2}
    label_join.join(JoinWork(labelled=[labelled([("later", 1)])]), connection)
    waiting = label_join.join(JoinWork(labelled=[labelled([("later", 1)])]), connection)
    assert [record.agent for record in waiting.records[7]] == ["truth"]  # no prediction yet, so the sender's


def test_pairs_carry_delay_window_and_probabilities() -> None:
    connection = in_memory()
    label_join.join(JoinWork(predicted=[predicted(["a"], start=60), predicted(["bb"], start=0)]), connection)
    joined = label_join.join(JoinWork(labelled=[labelled([("a", 1), ("bb", 2)], at=90)]), connection)
    pairs = [record for record in joined.records[7] if "labels" in record.columns]
    (pair,) = pairs
    assert pair.agent == "pod"
    assert pair.columns["label_delays"].tolist() == [30 * 10**9, 90 * 10**9]
    assert pair.columns["label_own"].tolist() == [True, False]
    assert pair.columns["predictions"].tolist() == [1, 2]
    assert pair.columns["probabilities"].dtype == np.float32 and pair.columns["probabilities"].shape == (2, 3)


def test_the_oldest_go_when_there_is_no_room() -> None:
    connection = in_memory()
    one = len("i0000") + len("pod") + 12 + label_join.OVERHEAD
    evicted = 0
    for at in range(0, 3000, 500):
        block = predicted([f"i{i:04}" for i in range(at, at + 500)])
        joined = label_join.join(JoinWork(limit=1000 * one, predicted=[block]), connection)
        evicted += joined.evicted
        assert joined.kept_bytes == kept(connection) <= 1000 * one
    assert evicted == 2000
    late = label_join.join(JoinWork(limit=1000 * one, labelled=[labelled([("i1999", 0), ("i2000", 0)])]), connection)
    assert outcomes(late) == {"joined": 1}


def test_what_waits_for_too_long() -> None:
    connection = in_memory()
    label_join.join(JoinWork(predicted=[predicted(["old"], kept=10.0), predicted(["new"], kept=20.0)]), connection)
    label_join.join(
        JoinWork(labelled=[labelled([("x", 0)], received=10.0), labelled([("y", 0)], received=20.0)]), connection
    )
    swept = label_join.join(JoinWork(sweep=Sweep(15.0, 15.0, {1: OPEN})), connection)
    assert outcomes(swept) == {"unknown": 1}
    assert connection.execute("SELECT id FROM predictions").fetchall() == [(b"new",)]
    assert connection.execute("SELECT id FROM labels_waiting").fetchall() == [(b"y",)]
    kept(connection)
    without = label_join.join(JoinWork(sweep=Sweep(15.0, 99.0, {})), connection)
    assert outcomes(without) == {}, "without an open window it waits"


def test_an_older_file_is_brought_up_to_date() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(f"{schema.TABLES} PRAGMA application_id = {schema.APPLICATION}; PRAGMA user_version = 1;")
    schema.migrate(connection, 1)
    assert schema.version_of(connection) == schema.VERSION
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert names == {name for (name,) in in_memory().execute("SELECT name FROM sqlite_master")}


def test_a_window_closes_after_its_joins_and_in_order() -> None:
    closed: list[int] = []
    model, also = (ModelState((name, ""), WindowManager(WindowRules())) for name in ("m", "n"))
    late = LateLabels(
        {each.key: each for each in (model, also)}, lambda model, window: closed.append(window.number), journal=True
    )
    now = Now(1000.0, 0.0)
    topic, schema_of_rows = Topic("m", "", "pod"), Schema(classes=("a", "b"))
    session = Session(b"s" * 16, topic, StreamPosition(0), 0.0)
    message = Message(topic, "batch", b"s" * 16, b"")
    arrival = BatchArrival(session, model, "pod", now, Telemetry(), message, schema_of_rows, b"")
    first, second, other = (OpenWindow(at, at + 60, number) for number, at in ((1, 0), (2, 60), (3, 0)))
    turn = Turn(1)
    batch = Batch(schema_of_rows, {"probabilities": np.eye(2), "ids": np.arange(2), "timestamps": np.arange(2)})
    late.keep_predictions(turn.join_work, arrival, first, WindowSlice(0, batch, 1, 0.0))
    late.close(model, first)  # in the turn that brought the rows
    waiting = late.end_turn(turn.join_work, Config(), now)
    late.close(model, second)  # nothing is joined for it, but it comes after
    late.close(also, other)
    assert (closed, late.idle) == ([3], False)
    late.release(waiting)
    assert (closed, late.idle) == ([3, 1, 2], True)


# --- restatement: the store's part --------------------------------------------------------------------------------


def read(connection: sqlite3.Connection, now: float = 0.0) -> list[list[RestatementPiece]]:
    """All that is due now, slice by slice."""
    slices: list[list[RestatementPiece]] = []
    place: Place | None = None
    while True:
        pieces, place = restatement_queue.read(place, now, connection)
        if not pieces:
            return slices
        slices.append(pieces)


def finished(connection: sqlite3.Connection, slices: list[list[RestatementPiece]]) -> None:
    restatement_queue.finish([piece.target for pieces in slices for piece in pieces if piece.last], connection)


def with_pairs(windows: int, rows: int) -> sqlite3.Connection:
    """Windows of so many rows with an id, of which the first got a label."""
    connection = in_memory()
    owners = [(1, "m", "", "classification", msgpack.packb(["a", "b", "c"]))]
    for window in range(windows):
        names = [str(window * rows + i) for i in range(rows)]
        label = labelled([(names[0], 1)])
        label_join.join(
            JoinWork(owners=owners, predicted=[predicted(names, start=60 * window)], labelled=[label]), connection
        )
    return connection


def test_a_large_window_is_read_in_slices() -> None:
    rows = 3 * restatement_queue.SLICE_ROWS + 7
    slices = read(with_pairs(1, rows))
    assert [len(pieces) for pieces in slices] == [1, 1, 1, 1]
    pieces = [pieces[0] for pieces in slices]
    assert max(len(piece.rows) for piece in pieces) == restatement_queue.SLICE_ROWS
    assert [row[0] for piece in pieces for row in piece.rows] == list(range(1, rows + 1))
    assert [piece.first for piece in pieces] == [True, False, False, False]
    assert [piece.last for piece in pieces] == [False, False, False, True]


def test_a_slice_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restatement_queue, "SLICE_BYTES", 120)  # ten rows of three float32
    slices = read(with_pairs(1, 95))
    assert [len(pieces[0].rows) for pieces in slices] == [10] * 9 + [5]


def test_small_windows_share_a_slice_but_not_too_many() -> None:
    slices = read(with_pairs(50, 3))
    assert [len(pieces) for pieces in slices] == [20, 20, 10]
    starts = [piece.target.start for pieces in slices for piece in pieces]
    assert starts == list(range(0, 3000, 60)), "the oldest first"


def test_the_rows_of_a_slice_are_found_by_an_index() -> None:
    statements: list[str] = []
    connection = with_pairs(1, 10)
    connection.set_trace_callback(statements.append)
    read(connection)
    connection.set_trace_callback(None)
    asked = [statement for statement in statements if statement.startswith("SELECT n")]
    assert len(asked) == 2
    for statement in asked:
        (step,) = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert "predictions_by_window (owner=? AND start=?" in step


def test_a_window_rests_longer_each_time_while_labels_trickle_in() -> None:
    connection = with_pairs(1, 2000)
    at = last = 0.0
    waits = []
    for label in range(1, 1500):
        label_join.join(JoinWork(labelled=[labelled([(str(label), 1)])]), connection)
        slices = read(connection, at)
        if slices:
            finished(connection, slices)
            waits.append(at - last)
            last = at
        at += 1.0
    assert waits == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert not read(connection, last + restatement_queue.LONGEST_REST - 1)
    for _ in range(2):
        at += 2 * restatement_queue.LONGEST_REST
        finished(connection, read(connection, at))
    assert connection.execute("SELECT count(*) FROM restate").fetchone() == (0,), "no more labels came: no more marks"


def test_labels_that_come_while_a_window_is_restated_are_not_forgotten() -> None:
    connection = with_pairs(1, 10)
    slices = read(connection)
    label_join.join(JoinWork(labelled=[labelled([("5", 1)])]), connection)
    finished(connection, slices)
    (pieces,) = read(connection, 2.0)
    assert [row[3] for row in pieces[0].rows].count(1) == 2
    finished(connection, [pieces])
    assert not read(connection, 1e6)


def test_a_window_whose_restatement_was_cut_off_is_restated() -> None:
    connection = with_pairs(1, 10)
    assert read(connection)
    assert read(connection, 2.0), "the collector was killed before the history had it"


def test_marks_of_rows_that_are_not_kept_any_more_go() -> None:
    connection = with_pairs(5, 3)
    connection.execute("DELETE FROM predictions WHERE start >= 120")
    assert len(read(connection)[0]) == 2
    assert connection.execute("SELECT count(*) FROM restate").fetchone() == (2,)


# --- through a collector ------------------------------------------------------------------------------------------


def value(collector: Collector, what: str, **names: str) -> float:
    (found,) = [
        point["value"]
        for point in collector.points()
        if point["properties"]["what"] == what
        and {k: v for k, v in point["properties"].items() if k not in ("what", "model", "ver", "target_type")} == names
    ]
    return float(found)


def test_targets_of_a_regression(collect: Callable[..., Collector]) -> None:
    random = np.random.default_rng(0)
    said, truth = random.normal(size=200), random.normal(size=200)
    collector = collect(window=3600)
    with collector.publisher(task="regression", agent_id="a") as publisher:
        publisher.publish(predictions=said, ids=np.arange(200), labels=np.where(np.arange(200) < 50, truth, np.nan))
        publisher.publish_labels(np.arange(50, 150), truth[50:150])
        publisher.publish_labels([150, 151], [None, np.nan])
        assert publisher.flush(60)
    collector.stop()
    assert value(collector, "mae") == pytest.approx(metrics.mean_absolute_error(truth[:150], said[:150]), rel=1e-9)
    assert value(collector, "prediction_value", stat="mean") == pytest.approx(said.mean(), rel=1e-9)
    assert value(collector, "label_coverage") == 0.75
    assert collector.counts("rows_rejected", agent_id="a", reason="label_missing") == 2


def test_points_go_to_the_predictions_agent(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    p = np.eye(2)[[0, 1, 1, 0]]
    with (
        collector.publisher(classes=2, agent_id="pod") as pod,
        collector.publisher(classes=2, agent_id="truth") as truth,
    ):
        pod.publish(p, ids=["a", "b", "c", "d"])
        assert pod.flush(60)
        truth.publish_labels(["a", "b", "c", "stranger"], [0, 1, 0, 0])
        assert truth.flush(60)
    collector.stop()
    assert value(collector, "accuracy", agent_id="pod") == value(collector, "accuracy") == pytest.approx(2 / 3)
    assert value(collector, "label_coverage", agent_id="pod") == 0.75
    assert collector.counts("buffer_count", agent_id=None) == 4
    assert not collector.counts("rows_rejected")


@pytest.mark.parametrize("rows", [5000, 37])
def test_the_history_restates_the_window_of_the_prediction(
    rows: int, collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the windows are cut into slices."""
    monkeypatch.setattr(restatement_queue, "SLICE_ROWS", rows)
    random = np.random.default_rng(2)
    p, truth = random.dirichlet(np.ones(3), 600), random.integers(0, 3, 600)
    times = 1_700_000_000.0 // 60 * 60 + np.arange(600) / 5  # two windows
    collector = collect(window=60)
    query = history_queries.PointQuery(
        "model", what=("accuracy", "label_coverage"), names={"basis": "prediction_time"}, exact=True
    )

    def restated() -> dict[str, list[float]]:
        lines = collector.service.live.history.read(lambda db: history_queries.read_series(db, query)).result()
        return {line.names["what"]: line.values.tolist() for line in lines}

    with collector.publisher(classes=3, agent_id="a") as publisher:
        publisher.publish(p, ids=np.arange(600), timestamps=times)
        assert publisher.flush(60)
        publisher.publish_labels(np.arange(450), truth[:450])
        assert publisher.flush(60)
        until(lambda: restated().get("label_coverage") == [1.0, 0.5], what="the restated windows")
        right = p.argmax(axis=1) == truth
        assert restated()["accuracy"] == pytest.approx([right[:300].mean(), right[300:450].mean()], rel=1e-9)
        publisher.publish_labels(np.arange(450, 600), truth[450:])
        assert publisher.flush(60)
        until(lambda: restated().get("label_coverage") == [1.0, 1.0], what="the window restated again")
        assert restated()["accuracy"][1] == pytest.approx(right[300:].mean(), rel=1e-9)
    collector.stop()
    assert not any("basis" in point["properties"] for point in collector.points())


def test_without_a_journal_labels_are_rejected(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600, journal="off")
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.eye(2), ids=["a", "b"])
        publisher.publish_labels(["a"], [0])
        assert publisher.flush(60)
    collector.stop()
    assert collector.counts("rows_rejected", reason="labels_need_journal") == 1
    assert stored(collector.folder, "SELECT count(*) FROM predictions") == [(0,)]


def test_labels_that_open_a_window_take_no_columns_from_its_rows(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    with collector.publisher(classes=2, agent_id="truth") as truth, collector.publisher(classes=2, agent_id="a") as pod:
        truth.publish_labels([1], [1])
        assert truth.flush(60)
        pod.publish(np.eye(2), inputs=np.ones((2, 3)), ids=[1, 2])
        assert pod.flush(60)
    collector.stop()
    assert value(collector, "feature_value", feat_name="feat_2", stat="mean") == 1.0
    assert value(collector, "accuracy") == 0.0


def test_a_checkpoint_holds_what_was_joined(collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch completes pairs in the turn that also asks for a checkpoint, which replaces that turn's rows."""
    monkeypatch.setattr(checkpoint_policy, "CHECKPOINT_BYTES", 1)
    collector = collect(window=3600, flush_on_exit=False, sample_rows=10)
    each = 500  # rows: those of a batch are more bytes than a checkpoint
    p = np.eye(2)[np.zeros(each, dtype=int)]
    times = 1_700_000_000.0
    with collector.publisher(classes=2, agent_id="truth") as truth, collector.publisher(classes=2, agent_id="a") as pod:
        pod.publish(p[:1], ids=["first"], timestamps=times)
        assert pod.flush(60)
        truth.publish_labels(np.arange(20 * each), np.zeros(20 * each, dtype=int), timestamps=times)
        assert truth.flush(60)
        for at in range(0, 20 * each, each):
            pod.publish(p, ids=np.arange(at, at + each), timestamps=times)
            assert pod.flush(60)
        until(lambda: collector.service.telemetry.get("checkpoints") > 2, what="checkpoints")
        collector.stop()
    again = collect(window=3600)
    until(lambda: again.service.telemetry.get("replayed") or again.service.recovery is None, what="the replay")
    again.stop()
    assert again.counts("late_label_count", agent_id=None, reason="joined") == 20 * each
    assert again.counts("buffer_count", agent_id=None) == 20 * each + 1


def test_what_ids_cost(collect: Callable[..., Collector]) -> None:
    """Predictions with ids and without, side by side: the figure is printed, the bound is generous."""
    p = np.random.default_rng(0).dirichlet(np.ones(3), 1000)
    seconds = {}
    for kind in ("without", "with"):
        collector = collect(window=3600, folder=kind)
        with collector.publisher(classes=3) as publisher:
            started = time.perf_counter()
            for at in range(0, 100_000, 1000):
                publisher.publish(p, ids=None if kind == "without" else np.arange(at, at + 1000))
            assert publisher.flush(60)
            seconds[kind] = time.perf_counter() - started
        collector.stop()
    print(f"100,000 rows acknowledged: {seconds['without']:.2f} s without ids, {seconds['with']:.2f} s with")
    assert seconds["with"] < 25 * seconds["without"]


def test_no_ids_no_work(collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the join ran for a model without ids")

    monkeypatch.setattr(label_join, "join", never)
    collector = collect(window=3600)
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.eye(2), labels=[0, 1])
        assert publisher.flush(60)
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 2
