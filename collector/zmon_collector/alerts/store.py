"""What alerts keep in the database: a row for each model, alert and queued message, so that a report writes its own.

A damaged row costs the model, alert or message that it holds.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from zmon.state import pack_state, unpack_state
from zmon_collector.alerts.notifier import MessageChanges, Notification
from zmon_collector.alerts.rules import AlertChanges
from zmon_collector.storage.database import Database
from zmon_collector.storage.sealed import DamagedRows, SealedTable
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

SHARED = SealedTable("alerts", "name, data")
MODELS = SealedTable("alert_models", "model, version, data")
ALERTS = SealedTable("alert_entries", "id, data")
MESSAGES = SealedTable("alert_messages", "target, number, data")
EARLIER = "state"  # the row in which earlier releases kept all there is


class KeptAlerts(NamedTuple):
    """What an earlier run left."""

    tracker: dict[str, Any]  # as `AlertTracker.state` gives it; empty: nothing
    messages: Sequence[tuple[str, int, Notification]]
    earlier: bool  # in the form of an earlier release: all of it must be written again


def load(connection: sqlite3.Connection, telemetry: Telemetry) -> KeptAlerts:
    """Read what an earlier run left; what is damaged is left out and counted."""
    damaged: DamagedRows = {}
    shared = dict(SHARED.read(_shared, damaged, connection))
    models = MODELS.read(_model, damaged, connection)
    alerts = ALERTS.read(_alert, damaged, connection, "ORDER BY id")
    messages = MESSAGES.read(_message, damaged, connection, "ORDER BY number")
    for table, rows in damaged.items():
        telemetry.count("state_rows_damaged", table, len(rows))
    earlier = shared.get(EARLIER)
    if earlier is not None:
        queued = [(target, message) for target, queue in earlier["queues"].items() for message in queue]
        numbered = [(target, number, message) for number, (target, message) in enumerate(queued, 1)]
        return KeptAlerts(earlier["alerts"], numbered, earlier=True)
    tracker = {
        **shared.get("shared", {}),
        "alerts": alerts,
        "models": [[*key, kept["model"]] for key, kept in models],
        "series": [[rule, *key, member, state] for key, kept in models for rule, member, state in kept["series"]],
    }
    return KeptAlerts(tracker if any(tracker.values()) else {}, messages, earlier=False)


def save(changes: AlertChanges, messages: MessageChanges, database: Database) -> None:
    """Write changes of alerts and messages in one transaction: an open alert is notified whatever happens.

    They are packed at once, since they change again.
    """
    shared = [("shared", pack_state(changes.shared))]
    models = [(*key, pack_state(kept)) for key, kept in changes.models.items() if kept is not None]
    alerts = [(number, pack_state(alert)) for number, alert in changes.alerts.items() if alert is not None]
    queued = [(target, number, pack_state(message)) for target, number, message in messages.added]
    gone_models = [key for key, kept in changes.models.items() if kept is None]
    gone_alerts = [(number,) for number, alert in changes.alerts.items() if alert is None]
    gone_messages = list(messages.removed)

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM alerts WHERE name = ?", (EARLIER,))
        SHARED.write(shared, connection)
        MODELS.write(models, connection)
        ALERTS.write(alerts, connection)
        MESSAGES.write(queued, connection)
        connection.executemany("DELETE FROM alert_models WHERE model = ? AND version = ?", gone_models)
        connection.executemany("DELETE FROM alert_entries WHERE id = ?", gone_alerts)
        connection.executemany("DELETE FROM alert_messages WHERE target = ? AND number = ?", gone_messages)

    database.submit(write)


def _shared(name: str, data: bytes) -> tuple[str, dict[str, Any]]:
    kept = unpack_state(data)
    if name == EARLIER:
        return name, {"alerts": dict(kept["alerts"]), "queues": dict(kept["queues"])}
    return name, dict(kept)


def _model(model: str, version: str, data: bytes) -> tuple[tuple[str, str], dict[str, Any]]:
    kept = unpack_state(data)
    return (model, version), {"model": dict(kept["model"]), "series": [list(each) for each in kept["series"]]}


def _alert(number: int, data: bytes) -> dict[str, Any]:
    alert = dict(unpack_state(data))
    if alert["id"] != number or not isinstance(alert["members"], dict):
        raise ValueError("it is not an alert")
    return alert


def _message(target: str, number: int, data: bytes) -> tuple[str, int, Notification]:
    return target, number, dict(unpack_state(data))
