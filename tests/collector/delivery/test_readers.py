"""The collector's own readers of reports: an error costs one the report that it came from, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zmon_collector.alerts.rules import AlertTracker
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection
from zmon_collector.dashboard import live as live_page
from zmon_collector.dashboard.history import History
from zmon_collector.dashboard.live import HistoryDelivery, Live
from zmon_collector.dashboard.overview import Overview
from zmon_collector.delivery import dispatch
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import Delivery, ObserverDelivery, SinkDelivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.plugins import Registry
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry

from tests.support.disks import error_of
from zmon import Point, Report, RowCounts, SinkBase, Value, Window
from zmon.hooks import hookimpl

ERRORS = [ValueError("not a report"), MemoryError(), SystemExit(3), sqlite3.OperationalError("disk is full")]
REPORTS = 4


def filled(database: Database, reader: str) -> Outbox:
    """An outbox with some reports, after which it ends."""
    box = Outbox(database, Telemetry(), limit=2**30, keep=1e9, first=1)
    database.call(lambda connection: box.load(connection, [reader]))
    for start in range(0, 60 * REPORTS, 60):
        values = [Point(None, Value("accuracy", 0.5))]
        closed = ClosedWindow(("m", ""), Window(start, start + 60), 1, values, {"a": RowCounts(1)}, {}, {})
        write, written = box.prepare(closed, {})
        written(database.call(write))
    box.end()
    return box


def failing_first(
    error: BaseException, call: Callable[..., Any] = lambda *_: None
) -> tuple[Callable[..., Any], list[Any]]:
    """Raise the first time, and note what came the other times."""
    taken: list[Any] = []
    first = [error]

    def failing(*given: Any) -> Any:
        if first:
            raise first.pop()
        taken.append(given)
        return call(*given)

    return failing, taken


def ended(delivery: Delivery) -> Delivery:
    delivery.start()
    assert delivery.join(60)
    return delivery


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["history", "overview"])
def test_the_history_goes_on_after_an_error(
    where: str, error: BaseException, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = {"history": (History, "append"), "overview": (Overview, "record")}[where]
    failing, taken = failing_first(error, getattr(owner, name))
    monkeypatch.setattr(owner, name, failing)
    live = Live(Config(collector=CollectorSection(data_dir=tmp_path)), None, None, None)  # type: ignore[arg-type]
    telemetry = Telemetry()
    live.start()
    delivery = ended(HistoryDelivery(live, filled(database, "history"), telemetry))
    live.stop()
    assert [given[1].sequence for given in taken] == [2, 3, 4]
    assert telemetry.get("history_failed") == 1
    assert (delivery.state, type(error).__name__ in delivery.problem()) == ("failing", True)
    shown = [row["newest"] for row in live.overview.view(0.0)]
    assert shown == [60 * (REPORTS - 1)]
    assert len(live.recent_reports) == REPORTS


def test_the_history_waits_for_a_full_disk_and_misses_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "FULL_WAIT", 0.0)
    failing, taken = failing_first(error_of("SQLITE_FULL"), History.append)
    monkeypatch.setattr(History, "append", failing)
    live = Live(Config(collector=CollectorSection(data_dir=tmp_path)), None, None, None)  # type: ignore[arg-type]
    telemetry = Telemetry()
    live.start()
    delivery = ended(HistoryDelivery(live, filled(database, "history"), telemetry))
    live.stop()
    assert [given[1].sequence for given in taken] == [1, 2, 3, 4]
    assert (telemetry.get("history_failed"), delivery.state, delivery.problem()) == (0, "ok", "")
    assert len(live.recent_reports) == REPORTS


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_alerts_go_on_after_an_error(error: BaseException, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, taken = failing_first(error, AlertTracker.evaluate)
    monkeypatch.setattr(AlertTracker, "evaluate", failing)
    telemetry = Telemetry()
    delivery = ended(AlertWorker(Config(), database, filled(database, "alerts"), telemetry))
    assert [given[1].sequence for given in taken] == [2, 3, 4]
    assert telemetry.get("alerts_failed", type(error).__name__) == 1
    assert type(error).__name__ in delivery.problem()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_observers_go_on_after_an_error(error: BaseException, database: Database) -> None:
    failing, taken = failing_first(error)
    telemetry = Telemetry()
    delivery = ended(ObserverDelivery(failing, filled(database, "observers"), telemetry))
    assert [report.sequence for (report,) in taken] == [2, 3, 4]
    assert telemetry.get("observers_failed", type(error).__name__) == 1
    assert type(error).__name__ in delivery.problem()


def test_an_observer_that_exits_costs_the_others_nothing() -> None:
    seen: list[Report] = []

    class Exits:
        @hookimpl
        def window_closed(self, report: Report) -> None:
            raise SystemExit(1)

    class Sees:
        @hookimpl
        def window_closed(self, report: Report) -> None:
            seen.append(report)

    registry = Registry()
    for name, each in (("first", Exits()), ("sees", Sees()), ("last", Exits())):
        registry.register(each, name)
    for sequence in (1, 2):
        registry.announce(Report(sequence, "m", "", Window(0, 60), []))
    assert [report.sequence for report in seen] == [1, 2]


@pytest.mark.parametrize("step", ["open", "write", "close"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sink_that_raises_anything_is_tried_again(
    error: BaseException, step: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_WAIT", 0.01)
    written: list[int] = []

    class Sink(SinkBase):
        name = "sink"

        def write(self, report: Report) -> None:
            written.append(report.sequence)

    sink, telemetry = Sink(), Telemetry()
    failing, _ = failing_first(error, getattr(sink, step))
    monkeypatch.setattr(sink, step, failing)
    letters = DeadLetters(database, telemetry, rows=10, keep=60.0)
    ended(SinkDelivery(sink, filled(database, "sink"), letters, telemetry))
    assert written == [1, 2, 3, 4]
    assert telemetry.get("sink_errors", "sink") == 1
    assert telemetry.get("sink_failed") == 0
