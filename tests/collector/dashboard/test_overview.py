"""The overview: a report counts once; the history restores it after a start, while windows close."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.dashboard import history_queries, overview_restore
from zmon_collector.dashboard import overview as overviews
from zmon_collector.dashboard.history import History
from zmon_collector.dashboard.history_worker import HistoryWorker
from zmon_collector.dashboard.overview import KEPT, MEASURES, Overview
from zmon_collector.dashboard.overview_restore import OverviewRestore

from tests.support.waiting import until
from zmon import Point, Report, Value, Window


def report(sequence: int, start: int, model: str = "m", agent: str = "pod", **counts: float) -> Report:
    values = [Value("max_prediction_proba", 0.9, stat="mean"), *(Value(what, value) for what, value in counts.items())]
    rows = Value("buffer_count", 100)
    points = [Point(who, value) for who in (agent, None) for value in (rows, *values) if who or value.stat]
    return Report(sequence, model, "", Window(start, start + 10), [*points, Point(None, rows)])


def entry(overview: Overview, wall: float = 0.0) -> dict[str, Any]:
    (found,) = overview.view(wall)
    return found


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[HistoryWorker]:
    made = HistoryWorker(tmp_path / "history.sqlite", 1e12, 2**30)
    made.start()
    yield made
    made.stop()


def restored(worker: HistoryWorker, overview: Overview, between: Callable[[], object] = lambda: None) -> Overview:
    """Run the restoration to its end; `between` is called after each turn."""
    restore = OverviewRestore(worker, overview, time.monotonic)

    def is_finished() -> bool:
        restore.turn(float("inf"))
        between()
        return restore.finished

    until(is_finished, "restoration")
    return overview


def test_a_report_that_is_delivered_again_changes_nothing() -> None:
    overview = Overview()
    for each in (report(1, 0, rows_lost=5), report(2, 10, rows_lost=7)):
        overview.record(each, 0.0)
    before = overview.view(0.0)
    for again in (report(1, 0, rows_lost=5), report(2, 10, rows_lost=7)):
        overview.record(again, 0.0)
    assert overview.view(0.0) == before
    assert (entry(overview)["lost"], entry(overview)["agents"][0]["lost"]) == (12, 12)


def test_counts_of_a_second_report_are_added_to_their_window_whichever_is_first() -> None:
    late = Report(3, "m", "", Window(0, 10), [Point("pod", Value("rows_late", 4))])
    for order in ((report(1, 0), report(2, 10), late), (late, report(4, 0), report(5, 10))):
        overview = Overview()
        for each in order:
            overview.record(each, 0.0)
        assert entry(overview)["late"] == 4
        assert entry(overview)["trend"]["confidence"] == [0.9, 0.9]
        assert entry(overview)["trend"]["rows_per_second"] == [10, 10]


def test_what_is_remembered_of_reports_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "REPORTS", 3)
    model = overviews.ModelWindows()
    for start in range(10):
        assert model.note([(start, start)])
        assert not model.note([(start, start)])
    assert len(model.reports) == 3


def test_the_history_restores_the_newest_windows_and_knows_their_reports(worker: HistoryWorker) -> None:
    live = Overview()
    for i in range(KEPT + 5):
        worker.append(report(i + 1, 10 * i, rows_lost=1), 0.0)
        live.record(report(i + 1, 10 * i, rows_lost=1), 10.0 * i + 10)
    overview = restored(worker, Overview())
    assert overview.view(0.0) == live.view(0.0)
    overview.record(report(KEPT + 5, 10 * (KEPT + 4), rows_lost=1), 0.0)  # its reader's cursor was not on disk
    assert entry(overview)["lost"] == entry(live)["lost"]


def test_windows_that_close_before_their_model_is_restored_count_once(worker: HistoryWorker) -> None:
    for i in range(3):
        worker.append(report(i + 1, 10 * i, rows_lost=1), 0.0)
    overview = Overview()
    for again in (report(3, 20, rows_lost=1), report(4, 30, rows_lost=1)):
        worker.append(again, 0.0)
        overview.record(again, 40.0)
    restored(worker, overview)
    assert entry(overview)["lost"] == 4
    assert entry(overview)["trend"]["rows_per_second"] == [10] * 4
    assert entry(overview)["heard"] == 40.0


def test_a_window_that_the_history_could_not_store_stays() -> None:
    overview = Overview()
    overview.record(report(2, 10), 20.0)
    overview.restore("m", "", [], 10, [(0, 1)])
    assert entry(overview)["newest"] == 10


def test_silent_models_are_forgotten_restored_ones_too() -> None:
    overview, day = Overview(), 86400.0
    overview.restore("restored", "", [], 10, [(0, 1)])
    for number in range(100):
        overview.record(report(2 + number, 10 * number, model=f"m{number}"), number * day)
    assert sorted(each["model"] for each in overview.view(0.0)) == sorted(f"m{n}" for n in range(92, 100))


def test_models_are_restored_newest_first_until_it_is_full(
    worker: HistoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overviews, "MODELS", 3)
    monkeypatch.setattr(overview_restore, "SLICE", 0.0)
    for i in range(5):
        worker.append(report(i + 1, 10 * i, model=f"m{i}"), 0.0)
    overview = Overview()
    overview.record(report(6, 50, model="new"), 60.0)
    restored(worker, overview)
    assert [each["model"] for each in overview.view(0.0)] == ["new", "m4", "m3"]
    overview.record(report(7, 60, model="newer"), 70.0)
    assert [each["model"] for each in overview.view(0.0)] == ["newer", "new", "m4"]


def test_a_model_that_cannot_be_read_costs_only_itself(
    worker: HistoryWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        worker.append(report(i + 1, 10 * i, model=f"m{i}"), 0.0)
    read_series = history_queries.read_series

    def damaged(db: sqlite3.Connection, query: history_queries.PointQuery) -> Any:
        if query.model == "m1":
            raise ValueError("buffer size must be a multiple of element size")
        return read_series(db, query)

    monkeypatch.setattr(history_queries, "read_series", damaged)
    assert [each["model"] for each in restored(worker, Overview()).view(0.0)] == ["m2", "m0"]
    assert "cannot restore the overview of model 'm1'" in caplog.text


def test_others_use_the_history_between_two_slices(worker: HistoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview_restore, "SLICE", 0.0)
    for i in range(6):
        worker.append(report(i + 1, 10 * i, model=f"m{i}"), 0.0)
    overview, seen = Overview(), []
    restored(worker, overview, lambda: seen.append(worker.read(lambda _: len(overview.view(0.0))).result()))
    assert len(set(seen)) > 3, "it was read in one go"


# --- how much is read ------------------------------------------------------------------------------------------------


def filled(path: Path, models: int, agents: int, windows: int = 10) -> None:
    """Write a history of some reports of each model, and for each agent one measure in one window."""
    history = History(path, 1e12, 2**40)
    history.open()
    history.close()
    db = sqlite3.connect(path, isolation_level=None)
    names = [f"m{m}" for m in range(models)]
    bundles = [(name, f"a{a}" if a else "") for name in names for a in range(agents + 1)]
    what, stat = next(iter(MEASURES))
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO report VALUES (?, ?, '', ?, ?, 0, NULL)",
        [(windows * m + w + 1, name, 10 * w, 10 * w + 10) for m, name in enumerate(names) for w in range(windows)],
    )
    db.executemany(
        "INSERT INTO bundle VALUES (?, ?, '', ?, ?, ?)", [(i, *key, what, stat) for i, key in enumerate(bundles, 1)]
    )
    db.executemany("INSERT INTO series VALUES (?, ?, '{}')", [(i, i) for i in range(1, len(bundles) + 1)])
    layouts = [(i, i, np.array([i], "<u4").tobytes()) for i in range(1, len(bundles) + 1)]
    db.executemany("INSERT INTO layout VALUES (?, ?, ?)", layouts)
    one = np.ones(1).tobytes()
    db.executemany(
        "INSERT INTO frame VALUES (?, ?, ?, ?, ?)",
        [(i, 10 * windows - 10, windows * ((i - 1) // (agents + 1)) + windows, i, one) for i, *_ in layouts],
    )
    db.execute("COMMIT")
    db.close()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps of SQLite's machine in connections that are opened from now on, ten at a time."""
    counted = [0]
    connect = sqlite3.connect

    def watched(*given: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*given, **options)

        def add() -> int:
            counted[0] += 10
            return 0

        db.set_progress_handler(add, 10)
        return db

    monkeypatch.setattr(sqlite3, "connect", watched)
    return counted


def test_opening_and_listing_read_no_more_of_many_windows_than_of_few(tmp_path: Path, steps: list[int]) -> None:
    taken = {}
    sizes = {"small": (1, 1, 10), "wide": (1000, 100, 10), "long": (1, 1, 10_000)}
    for name, (models, agents, windows) in sizes.items():
        path = tmp_path / f"{name}.sqlite"
        filled(path, models, agents, windows)
        worker = HistoryWorker(path, 1e12, 2**40)
        steps[0] = 0
        worker.start()
        worker.read(lambda *_: None).result()  # what the start has set going is done before
        taken["open", name] = steps[0]
        steps[0] = 0
        assert len(worker.read(history_queries.list_models).result()) == models
        taken["list", name] = steps[0] / models
        worker.stop()
    for work, name in taken:
        assert taken[work, name] <= taken[work, "small"] + 100


def test_a_slice_of_the_restoration_is_one_model_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview_restore, "SLICE", 0.0)
    path = tmp_path / "history.sqlite"
    filled(path, 50, 3)
    worker = HistoryWorker(path, 1e12, 2**40)
    worker.start()
    overview, sizes = Overview(), [0]
    restored(worker, overview, lambda: sizes.append(len(overview.view(0.0))))
    worker.stop()
    assert sizes[-1] == 50
    assert max(np.diff(sizes)) <= 2
    assert len(overview.view(0.0)[0]["agents"]) == 3
