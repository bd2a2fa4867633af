"""Restated windows: however often storing one fails, it is stored in the end."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from zmon_collector.compute import restatement
from zmon_collector.compute.restatement import Restater
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.dashboard import history_queries
from zmon_collector.dashboard.history import History
from zmon_collector.dashboard.history_worker import HistoryWorker
from zmon_collector.loading import load_plugins
from zmon_collector.storage import restatement_queue
from zmon_collector.telemetry import Telemetry

from tests.support.databases import in_memory


def with_labels(windows: int, rows: int) -> sqlite3.Connection:
    """Return a store with windows of predictions that have got their labels."""
    connection = in_memory(check_same_thread=False)
    connection.execute(
        "INSERT INTO label_owners (owner, model, version, task, classes) VALUES (1, 'm', '', 'classification', ?)",
        (msgpack.packb(["a", "b"]),),
    )
    for window in range(windows):
        connection.executemany(
            'INSERT INTO predictions (owner, id, agent, at, start, "end", predicted, kind, p, label)'
            " VALUES (1, ?, 'pod', 0, ?, ?, 0, '<f4', ?, ?)",
            [
                (f"{window} {i}".encode(), 60 * window, 60 * window + 60, np.float32([0.9, 0.1]).tobytes(), i % 2)
                for i in range(rows)
            ],
        )
    restatement_queue.mark([(1, 60 * window, 60 * window + 60) for window in range(windows)], connection)
    return connection


class Immediate:
    """A database whose jobs are done at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def submit(self, work: Any, done: Any = lambda result: None, failed: Any = None) -> None:
        done(work(self.connection))


def marks(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT start, labels FROM restate WHERE labels > 0").fetchall()


@pytest.mark.parametrize("fault", ["disk", "metric"])
def test_a_window_stays_marked_until_its_restatement_is_stored(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restatement_queue, "SLICE_ROWS", 20)
    connection = with_labels(windows=2, rows=30)  # two slices a window
    worker = HistoryWorker(tmp_path / "history.sqlite", 1e12, 2**30)
    worker.start()
    config = Config()
    policies, telemetry = PolicyStore(config), Telemetry()
    wall, mono = [0.0], [time.monotonic()]
    plugins, database = load_plugins(config), Immediate(connection)
    restater = Restater(database, worker.restate, plugins, policies, telemetry, wall=lambda: wall[0])  # type: ignore[arg-type]

    def restate() -> None:
        """Restate all that is due, or fail to."""
        wall[0] += 3600.0
        for _ in range(8):
            mono[0] += 3600.0
            restater.turn(mono[0])
            worker.read(lambda _: None).result()  # what was requested is done

    def failing(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full") if fault == "disk" else KeyError("a metric's")

    where = {"disk": (History, "append"), "metric": (restatement.Restatement, "report")}[fault]
    with monkeypatch.context() as broken:
        broken.setattr(*where, failing)
        for _ in range(2):
            restate()
            assert marks(connection) == [(0, 1), (60, 1)]
    assert telemetry.get("restatements_failed") >= 2
    assert caplog.text.count("cannot restate a window") == 1
    restate()
    assert not marks(connection)
    query = history_queries.PointQuery("m", what=("label_coverage",), names={"basis": "prediction_time"})
    (line,) = worker.read(lambda db: history_queries.read_series(db, query)).result()
    assert line.times.tolist() == [0, 60]
    worker.stop()
