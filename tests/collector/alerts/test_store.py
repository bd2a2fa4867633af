"""What alerts keep on disk: a report writes its model's row, damage costs one row, messages are kept one by one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from zmon_collector.alerts import notifier, store
from zmon_collector.alerts.notifier import Answer, NotificationQueues, Notifier
from zmon_collector.alerts.rules import AlertTracker
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.config.alerting import AlertRule, NotifySection
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database
from zmon_collector.storage.sealed import SealedTable
from zmon_collector.telemetry import Telemetry

from zmon import Point, RowCounts, Value, Window
from zmon.state import pack_state

DRIFT = AlertRule("drift", what="feature_drift", feat_name="*", stat="psi", above=0.25, windows=2)
LEARNT = AlertRule("learnt", what="feature_drift", feat_name="*", stat="psi", sigma=4.0)
CONFIG = Config(alerts=(DRIFT, LEARNT), notify={"ops": NotifySection(url_env="HOOK")})


class Run:
    """A run of the alerts' reader over windows that close beforehand; its notifications fail."""

    def __init__(self, database: Database, config: Config = CONFIG) -> None:
        self.database, self.telemetry = database, Telemetry()
        self.box = Outbox(database, self.telemetry, limit=2**30, keep=1e9, first=1)
        database.call(lambda connection: self.box.load(connection, ["alerts"]))
        self.worker = AlertWorker(config, database, self.box, self.telemetry, lambda *_: 503)
        database.call(self.worker.load)

    def windows(self, model: str, value: float, numbers: range, features: int = 3) -> Run:
        for number in numbers:
            points = [
                Point(None, Value("feature_drift", value, feat_name=f"f{i}", stat="psi")) for i in range(features)
            ]
            window = Window(60 * number, 60 * number + 60)
            closed = ClosedWindow((model, ""), window, number, points, {"pod": RowCounts(500)}, {}, {})
            write, written = self.box.prepare(closed, {})
            written(self.database.call(write))
        return self

    def end(self) -> list[tuple[str, str]]:
        """Handle all windows; return the alerts by model, the newest first."""
        self.box.end()
        self.worker.start()
        assert self.worker.join(60)
        assert self.database.wait(60)
        return [(alert["model"], alert["state"]) for alert in self.worker.entries()]


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = database.call(lambda connection: connection.execute(query).fetchall())
    return found


def kept_now(database: Database) -> store.KeptAlerts:
    """What another run would find."""
    kept: store.KeptAlerts = database.call(lambda connection: store.load(connection, Telemetry()))
    return kept


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[Sequence[Any]]]:
    """The rows of models, of one write after the other."""
    writes: list[list[Sequence[Any]]] = []
    write = SealedTable.write

    def noted(self: SealedTable, some: Iterable[Sequence[Any]], connection: sqlite3.Connection) -> None:
        some = list(some)
        if self is store.MODELS and some:
            writes.append(some)
        write(self, some, connection)

    monkeypatch.setattr(SealedTable, "write", noted)
    return writes


def test_a_report_writes_the_row_of_its_model_alone(database: Database, written: list[list[Sequence[Any]]]) -> None:
    run = Run(database)
    for model in ("a", "b", "c"):
        run.windows(model, 0.1, range(4))
    assert run.end() == []
    assert [[row[0] for row in each] for each in written] == [["a"]] * 4 + [["b"]] * 4 + [["c"]] * 4
    written.clear()
    Run(database).windows("b", 0.1, range(4, 7)).end()
    names = [sorted(row[0] for row in each) for each in written]
    assert names == [["a", "b", "c"], ["b"], ["b"]], "a start writes all: it skips the time without a collector"


def test_what_a_report_writes_does_not_grow_with_the_models(
    database: Database, written: list[list[Sequence[Any]]]
) -> None:
    run = Run(database)
    for model in range(100):
        run.windows(f"m{model:03}", 0.1, range(1), features=20)
    run.end()
    sizes = [sum(len(row[-1]) for row in each) for each in written]
    assert len(sizes) == 100
    assert max(sizes) < 1.1 * min(sizes)


def test_a_damaged_row_costs_only_its_own_model_alert_or_message(database: Database) -> None:
    run = Run(database)
    for model in ("a", "b"):
        run.windows(model, 0.9, range(2))
    assert run.end() == [("b", "firing"), ("a", "firing")]
    assert [row[0] for row in rows(database, "SELECT count(*) FROM alert_messages")] == [2]

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE alert_models SET data = substr(data, 1, 40) || x'ff' WHERE model = 'a'")
        connection.execute("UPDATE alert_entries SET data = x'81' WHERE id = 2")
        connection.execute("UPDATE alert_messages SET number = number + 7 WHERE number = 1")
        connection.execute("UPDATE alerts SET data = x'c1' WHERE name = 'shared'")

    database.call(damage)
    again = Run(database)
    again.windows("a", 0.9, range(2, 3)).windows("b", 0.9, range(2, 3))
    assert again.end() == [("b", "firing"), ("a", "firing")], "the alert of b opened again, that of a went on"
    assert again.telemetry.get("state_rows_damaged") == 4
    assert [alert["id"] for alert in again.worker.entries()] == [2, 1]
    last = Run(database)
    assert last.end() == [("b", "firing"), ("a", "firing")]
    assert last.telemetry.get("state_rows_damaged") == 0


def test_the_state_of_an_earlier_release_goes_on_in_rows(database: Database) -> None:
    Run(database).windows("a", 0.9, range(2)).windows("b", 0.1, range(1)).end()
    tracker = AlertTracker([DRIFT, LEARNT], kept_now(database).tracker)
    queues = {"ops": [{"key": "k1", "severity": "info"}, {"key": "k2", "severity": "info"}], "gone": [{"key": "k3"}]}
    kept = pack_state({"alerts": tracker.state(), "queues": queues})

    def write_earlier(connection: sqlite3.Connection) -> None:
        for table in ("alerts", "alert_models", "alert_entries", "alert_messages"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("INSERT INTO alerts (name, data) VALUES ('state', ?)", (kept,))

    database.call(write_earlier)
    again = Run(database)
    assert again.windows("b", 0.9, range(1, 3)).end() == [("b", "firing"), ("a", "firing")]
    assert rows(database, "SELECT name FROM alerts") == [("shared",)]
    assert rows(database, "SELECT model FROM alert_models") == [("a",), ("b",)]
    assert rows(database, "SELECT id FROM alert_entries") == [(1,), (2,)]
    assert [row[0] for row in rows(database, "SELECT target FROM alert_messages")] == ["ops"] * 3
    last = Run(database)
    assert last.end() == [("b", "firing"), ("a", "firing")]
    assert [each["key"] for _, _, each in kept_now(database).messages][:2] == ["k1", "k2"]


@pytest.mark.parametrize("data", [b"", b"\xc1", pack_state({"alerts": 7, "queues": {}}), pack_state([1])])
def test_a_damaged_state_of_an_earlier_release_is_counted_and_replaced(data: bytes, database: Database) -> None:
    database.call(lambda c: c.execute("INSERT INTO alerts (name, data) VALUES ('state', ?)", (data,)))
    run = Run(database)
    assert run.windows("a", 0.9, range(2)).end() == [("a", "firing")]
    assert run.telemetry.get("state_rows_damaged", "alerts") == 1
    assert rows(database, "SELECT name FROM alerts") == [("shared",)]


# --- messages -------------------------------------------------------------------------------------------------------


def message(number: int) -> dict[str, Any]:
    return {"key": f"k{number}", "severity": "info", "event": "opened", "model": "m", "version": "", "text": "t"}


def test_a_target_that_is_down_loses_its_oldest_messages_and_that_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "QUEUED", 3)
    run = Run(database)
    for model in "abcde":
        run.windows(model, 0.9, range(2))
    run.end()
    assert run.telemetry.get("alerts_dropped", "ops") == 2
    assert rows(database, "SELECT target, number FROM alert_messages") == [("ops", 3), ("ops", 4), ("ops", 5)]
    assert [each["model"] for _, _, each in kept_now(database).messages] == ["c", "d", "e"]


def test_a_sent_message_writes_only_its_own_row() -> None:
    queues = NotificationQueues({"ops": NotifySection(), "all": NotifySection()})
    for number in range(100):
        queues.enqueue(message(number))
    queues.note_saved()
    sender = Notifier(queues, threading.Lock(), lambda: None, Telemetry(), lambda *_: Answer(200))
    for thread in sender.turn(0.0):
        thread.join()
    assert queues.changes() == ([], [("ops", 1), ("all", 2)])
    queues.note_saved()
    assert queues.changes() == ([], [])


def test_what_comes_and_goes_between_two_saves_is_not_written() -> None:
    queues = NotificationQueues({"ops": NotifySection()})
    queues.enqueue(message(1))
    queues.enqueue(message(2))
    queues.remove("ops", message(1))
    assert queues.changes().added == [("ops", 2, message(2))]


def test_targets_that_change_while_a_message_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = NotificationQueues({"ops": NotifySection(url_env="OLD"), "gone": NotifySection()})
    queues.enqueue(message(1))
    sent: list[str] = []

    def send(target: NotifySection, content: Any) -> Answer:
        if not sent:
            queues.replace_targets({"ops": NotifySection(url_env="NEW"), "new": NotifySection()})
            queues.enqueue(message(2))
        sent.append(target.url_env)
        return Answer(200 if target.url_env == "NEW" else 503)

    sender = Notifier(queues, threading.Lock(), lambda: None, Telemetry(), send)
    for second in range(10):
        for thread in sender.turn(float(second)):
            thread.join()
    assert sent[0] == "OLD"
    assert "NEW" in sent[1:]
    assert [each.message["key"] for each in queues.queues["new"]] == ["k2"]
    assert not queues.queues["ops"]
    assert ("gone", 2) in queues.changes().removed
    assert sender.problems() == ["[notify.new] takes no alerts (status 503), 1 are queued"]


def test_a_target_whose_address_changed_is_tried_at_once() -> None:
    queues = NotificationQueues({"ops": NotifySection(url_env="OLD"), "same": NotifySection()})
    queues.enqueue(message(1))
    for _ in range(9):
        for name in queues.targets:
            queues.postpone(name, 0.0)
    assert queues.due(10.0) == []
    queues.replace_targets({"ops": NotifySection(url_env="NEW"), "same": NotifySection()})
    assert [name for name, _ in queues.due(10.0)] == ["ops"]
