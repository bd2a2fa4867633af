"""The history: what goes in comes out, whatever the layout; bounded; newer files are refused, damaged ones kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.config import Config
from zmon_collector.config.sections import WebSection
from zmon_collector.dashboard import history_queries
from zmon_collector.dashboard.history import SCHEMA, History, newest_sequence
from zmon_collector.dashboard.history_queries import PointQuery
from zmon_collector.dashboard.timeseries import downsample

from tests.support.collectors import Collector
from zmon import ConfigurationError, Point, Report, Value, Window


def report(sequence: int, start: int, values: dict[str, float], agent: str | None = None, **names: str) -> Report:
    points = [
        Point(agent, Value("feature_value", value, feat_name=name, stat="mean")) for name, value in values.items()
    ]
    return Report(sequence, names.get("model", "m"), names.get("version", ""), Window(start, start + 10), points)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    store = History(tmp_path / "history.sqlite", 3600.0, 2**30)
    store.open()
    yield store
    store.close()


def asked(history: History, **names: object) -> dict[str, list[tuple[int, float]]]:
    query = PointQuery("m", **names)  # type: ignore[arg-type]
    lines = history.read(lambda db: history_queries.read_series(db, query))
    return {line.get("feat_name"): list(zip(line.times.tolist(), line.values.tolist(), strict=True)) for line in lines}


def test_points_come_back_by_series_and_time(history: History) -> None:
    history.append(report(1, 0, {"a": 1.0, "b": 2.0}), 0.0)
    history.append(report(2, 10, {"b": 4.0, "c": 5.0}), 10.0)  # another layout
    history.append(report(3, 10, {"a": 9.0}, agent="pod"), 10.0)
    assert asked(history) == {"a": [(0, 1.0)], "b": [(0, 2.0), (10, 4.0)], "c": [(10, 5.0)]}
    assert asked(history, agents=("pod",)) == {"a": [(10, 9.0)]}
    assert asked(history, names={"feat_name": "b"}) == {"b": [(0, 2.0), (10, 4.0)]}
    assert asked(history, start=5) == {"b": [(10, 4.0)], "c": [(10, 5.0)]}
    assert asked(history, what=("other",)) == {}
    assert asked(history, version="2") == {}


@given(st.lists(st.dictionaries(st.text(max_size=4), st.floats(-1e9, 1e9), min_size=1, max_size=5), max_size=6))
def test_any_names_and_layouts_round_trip(windows: list[dict[str, float]]) -> None:
    wanted: dict[str, list[tuple[int, float]]] = {}
    with TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.sqlite", 3600.0, 2**30)
        history.open()
        for i, values in enumerate(windows):
            history.append(report(i + 1, 10 * i, values), 10.0 * i)
            for name, value in values.items():
                wanted.setdefault(name, []).append((10 * i, value))
        assert asked(history) == wanted
        history.close()


def test_the_same_report_again_changes_nothing(history: History) -> None:
    for _ in range(2):
        history.append(report(1, 0, {"a": 1.0}), 0.0)
    assert asked(history) == {"a": [(0, 1.0)]}


def test_sequences_that_begin_again_overwrite_no_other_window(history: History) -> None:
    for i in range(5):
        history.append(report(i + 1, 10 * i, {"a": float(i)}), 0.0)
    for _ in range(2):  # with another state.sqlite, and each delivered twice
        for i in range(5, 12):
            history.append(report(i - 4, 10 * i, {"a": float(i)}), 0.0)
    history.append(report(1, 0, {"a": 9.0}, model="other"), 0.0)
    assert asked(history) == {"a": [(10 * i, float(i)) for i in range(12)]}
    reports = history.read(lambda db: history_queries.list_reports(db, "m", "", 0))
    assert reports == [(10 * i, 1 + i if i < 5 else i - 4) for i in range(12)], "known by their own sequences"
    history.append(report(2, 60, {"a": 60.0}), 0.0)
    assert asked(history)["a"][6] == (60, 60.0)


def test_the_newest_sequence_of_whatever_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    assert newest_sequence(path) == 0
    assert not path.exists()
    history = History(path, 1e12, 2**30)
    history.open()
    assert newest_sequence(path) == 0
    history.append(report(0, 0, {"a": 1.0}), 0.0)  # restated
    assert newest_sequence(path) == 0
    history.append(report(7, 0, {"a": 1.0}), 0.0)
    assert newest_sequence(path) == 7  # while it is open, as after a kill
    history.close()
    assert newest_sequence(path) == 7
    path.write_bytes(path.read_bytes()[:5000])
    assert newest_sequence(path) == 0
    path.write_text("this is no database\n" * 100)
    assert newest_sequence(path) == 0


def test_counts_noticed_later_are_added_to_their_window(history: History) -> None:
    for sequence in (1, 2):
        points = [Point(None, Value("rows_late", 3)), Point(None, Value("accuracy", sequence / 2))]
        history.append(Report(sequence, "m", "", Window(0, 10), points), 0.0)
    lines = {
        line.get("what"): line.values.tolist()
        for line in history.read(lambda db: history_queries.read_series(db, PointQuery("m")))
    }
    assert lines == {"rows_late": [6.0], "accuracy": [1.0]}


def test_steps_add_counters_and_average_gauges() -> None:
    times, values = np.arange(0, 60, 10), np.array([[1.0, 2.0, 3.0, np.nan, np.nan, 6.0]])
    for counter, wanted in ((True, [6.0, 6.0]), (False, [2.0, 6.0])):
        steps, found = downsample(times, values, 30, counter=counter)
        assert (steps.tolist(), found[0].tolist()) == ([0, 30], wanted)


def test_it_forgets_by_age(history: History) -> None:
    history.append(report(1, 0, {"old": 1.0}), 0.0)
    history.append(report(2, 5000, {"new": 1.0}), 5000.0)
    assert asked(history) == {"new": [(5000, 1.0)]}
    assert history.read(lambda db: db.execute("SELECT names FROM series").fetchall()) == [('{"feat_name": "new"}',)]


def test_it_forgets_by_size(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite", 1e9, 400_000)
    history.open()
    for i in range(300):
        history.append(report(i + 1, 10 * i, {f"f{j}": float(j) for j in range(500)}), 61.0 * i)
        assert history.nbytes < 500_000
    kept = asked(history)["f0"]
    assert kept[-1][0] == 2990, "the newest stay"
    assert 20 < len(kept) < 200
    history.close()
    assert (tmp_path / "history.sqlite").stat().st_size < 800_000


def test_a_newer_file_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path, 3600.0, 2**30)
    history.open()
    history.close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="newer release"):
        history.open()
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["history.sqlite"]


@pytest.mark.parametrize("damage", ["text", "half", "foreign"])
def test_a_damaged_file_is_set_aside_and_counted(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path, 3600.0, 2**30)
    history.open()
    history.append(report(1, 0, {f"f{i}": 1.0 for i in range(3000)}), 0.0)
    history.close()
    whole = path.read_bytes()
    if damage == "text":
        path.write_text("this is no database\n" * 100)
    elif damage == "half":
        path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    else:
        path.unlink()
        other = sqlite3.connect(path)
        other.executescript("CREATE TABLE theirs (x); PRAGMA application_id = 7;")
        other.close()
    damaged = path.read_bytes()
    history.open()
    history.append(report(2, 10, {"a": 1.0}), 1.0)
    assert asked(history) == {"a": [(10, 1.0)]}
    assert history.set_aside == 1
    history.close()
    assert path.with_suffix(".sqlite.corrupt").stat().st_size == len(damaged)


def failing(monkeypatch: pytest.MonkeyPatch, statement: str, names: list[str]) -> None:
    """Let a statement fail as often as there are names of errors, which are used up."""
    connect = sqlite3.connect

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            if names and sql.startswith(statement):
                kind = sqlite3.DatabaseError if names[0] == "SQLITE_CORRUPT" else sqlite3.OperationalError
                error = kind("the disk fails")
                error.sqlite_errorname = names.pop(0)
                raise error
            return super().execute(sql, *given)

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, factory=Failing, **more))


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_READ", "SQLITE_CANTOPEN", "SQLITE_READONLY_DBMOVED"])
def test_a_disk_that_fails_at_the_start_costs_no_history(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path / "history.sqlite", 1e12, 2**30)
    history.open()
    history.append(report(1, 0, {"a": 1.0}), 0.0)
    history.close()
    failing(monkeypatch, "PRAGMA journal_mode", [name, name])
    history.open()
    assert "cannot be opened" in caplog.text
    with pytest.raises(sqlite3.OperationalError, match="the disk fails"):
        history.append(report(2, 10, {"a": 2.0}), 10.0)
    history.append(report(3, 20, {"a": 3.0}), 20.0)
    assert asked(history) == {"a": [(0, 1.0), (20, 3.0)]}
    assert history.set_aside == 0
    history.close()
    with pytest.raises(sqlite3.ProgrammingError):
        history.read(lambda db: db.execute("SELECT 1 FROM report"))


def test_a_history_that_is_no_file_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.mkdir()
    history = History(path, 1e12, 2**30)
    history.open()
    with pytest.raises(sqlite3.OperationalError):
        history.append(report(1, 0, {"a": 1.0}), 0.0)
    path.rmdir()
    history.append(report(2, 10, {"a": 2.0}), 10.0)
    assert asked(history) == {"a": [(10, 2.0)]}
    history.close()


@pytest.mark.parametrize("where", ["PRAGMA auto_vacuum", "SELECT start, layout"], ids=["opening", "reading"])
def test_what_looks_like_damage_is_read_again(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon_collector.dashboard.history.PAUSES", (0.0, 0.0))
    history = History(tmp_path / "history.sqlite", 1e12, 2**30)
    history.open()
    history.append(report(1, 0, {"a": 1.0}), 0.0)
    history.close()
    names = ["SQLITE_CORRUPT"] * 2
    failing(monkeypatch, where, names)
    history.open()
    assert asked(history) == {"a": [(0, 1.0)]}
    assert history.set_aside == 0
    history.close()
    names += ["SQLITE_CORRUPT"] * 3
    history.open()
    assert asked(history) == {}
    assert history.set_aside == 1
    history.close()


def test_a_question_without_measure_is_bounded(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_queries, "MOST_VALUES", 10)
    for i in range(6):
        history.append(report(i + 1, 10 * i, {"a": 1.0, "b": 2.0}), 0.0)
    with pytest.raises(history_queries.QueryTooLargeError, match="shorter time"):
        asked(history)


def test_models_agents_and_series(history: History) -> None:
    history.append(report(1, 0, {"amount €": 1.0, "age": 2.0}, version="7"), 0.0)
    history.append(report(2, 0, {"age": 2.0}, agent="pod", version="7"), 0.0)
    assert [row[:5] for row in history.read(history_queries.list_models)] == [("m", "7", 0, 0, 10)]
    assert history.read(lambda db: history_queries.list_agents(db, "m", "7")) == ["pod"]
    found = history.read(lambda db: history_queries.find_series(db, "m", search="mean AMOUNT"))
    assert found == [
        {"what": "feature_value", "model": "m", "model_version": "7", "stat": "mean", "feat_name": "amount €"}
    ]


def test_a_new_state_file_continues_the_sequences_of_the_history(collect: Callable[..., Collector]) -> None:
    config = Config(web=WebSection(bind="127.0.0.1:0"), sinks={"anodot_file": {"enabled": False}})
    for hour in range(3):
        collector = collect(config=config)
        with collector.publisher() as publisher:
            for window in range(4):
                publisher.publish([0.2, 0.7], timestamps=1_700_000_000.0 + 3600 * hour + 60 * window)
            assert publisher.flush(60)
        collector.stop()
        for path in collector.folder.glob("state.sqlite*"):
            path.unlink()
    history = History(collector.folder / "history.sqlite", 1e12, 2**30)
    history.open()
    reports = history.read(lambda db: history_queries.list_reports(db, "model", "", 0))
    assert [sequence for _, sequence in reports] == list(range(1, 13))
    assert len({start for start, _ in reports}) == 12
    history.close()


def test_old_windows_are_found_by_an_index_and_names_are_searched_once_an_hour(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[float] = []
    monkeypatch.setattr(history, "_drop_names", lambda: searched.append(1))
    for number in range(60):
        history.append(report(1 + number, 10 * number, {"a": 1.0}), 100.0 * number)
    for now in (3700.0, 4000.0, 5000.0, 9000.0):
        history.trim(now)
    assert len(searched) == 2
    assert history.read(lambda db: db.execute("SELECT count(*) FROM report").fetchone()) == (6,)
    plan = history.read(lambda db: db.execute("EXPLAIN QUERY PLAN DELETE FROM report WHERE written < 1").fetchall())
    assert "report_written" in plan[0][-1]
