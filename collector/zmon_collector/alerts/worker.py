"""Turn reports into alerts, and alerts into messages: reads the outbox as a sink does, keeps state in the database."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial

from zmon.contract import Report
from zmon.state import pack_state, unpack_state
from zmon_collector.alerts.notifier import NotificationQueues, Notifier, Post, because, message_of, post
from zmon_collector.alerts.rules import Alert, AlertEvent, AlertTracker
from zmon_collector.config import Config
from zmon_collector.config.alerting import rules
from zmon_collector.delivery.dispatch import Delivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

TICK = 5.0  # seconds between looks for models without data
FAILING = 600.0  # seconds without an error before all is well again: one model's errors show among others' reports


class AlertWorker(Delivery):
    """The alerts' thread.

    Parameters
    ----------
    config : Config
    database : Database
        Holds state and queues, written together after each report.
    send : callable
        Sends one message.
    """

    def __init__(
        self, config: Config, database: Database, outbox: Outbox, telemetry: Telemetry, send: Post = post
    ) -> None:
        super().__init__("alerts", outbox, telemetry)
        self._database = database
        self._config = config
        self._lock = threading.Lock()
        self._alerts = AlertTracker(rules(config.alerts))
        self._notifications = NotificationQueues(config.notify)
        self._sender = Notifier(self._notifications, self._lock, self._save, telemetry, send)
        self._origin = ""
        self._logged: set[str] = set()  # kinds of errors
        self._failed_at = 0.0

    def link_to(self, page_url: str) -> None:
        """Let messages link to the live page at this address."""
        self._sender.page_url = page_url

    def load(self, connection: sqlite3.Connection) -> None:
        """Go on where the last run ended."""
        self._origin = connection.execute("SELECT hex(name) FROM store").fetchone()[0].lower()
        row = connection.execute("SELECT data FROM alerts WHERE name = 'state'").fetchone()
        if row is None:
            return
        try:
            kept = unpack_state(row[0])
            self._alerts = AlertTracker(rules(self._config.alerts), kept["alerts"])
            self._notifications.queues.update(NotificationQueues(self._config.notify, kept["queues"]).queues)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("the alerts' state is damaged and begins anew: %s", error)

    def start(self) -> None:
        self.reload(self._config)  # rules may have changed while nothing ran
        super().start()
        self._sender.start()

    def join(self, timeout: float) -> bool:
        ended = super().join(timeout)
        self._sender.stop(timeout)
        return ended

    def reload(self, config: Config) -> None:
        """Other rules and targets; what is open under a rule of the same name stays open."""
        with self._lock:
            self._config = config
            self._notifications.replace_targets(config.notify)
            self._tell(self._alerts.replace_rules(rules(config.alerts), time.time()))
        self._save()

    def entries(self) -> list[Alert]:
        """All alerts that are remembered, the newest first."""
        with self._lock:
            return [{**each, "members": dict(each["members"])} for each in reversed(self._alerts.alerts)]

    def _run(self) -> None:
        look = time.monotonic() + TICK
        while not self._stop.is_set():
            report = self._outbox.wait(self.name, TICK)
            if isinstance(report, Report):
                self._guarded(partial(self._deliver, report))
                self._outbox.done(self.name, report.sequence)
            elif self._outbox.ended:
                break
            if time.monotonic() >= look:  # also while other models' reports come without a pause
                self._guarded(self._look)
                look = time.monotonic() + TICK

    def problem(self) -> str:
        return f"alerts fail on reports, which are passed over: {self.error}" if self.error else ""

    def _guarded(self, call: Callable[[], object]) -> None:
        """Whatever goes wrong with a report, those of other models must not wait behind it."""
        try:
            call()
        except Exception as error:
            kind = type(error).__name__
            if kind not in self._logged:
                self._logged.add(kind)
                log.exception("alerts fail on a report and pass it over; more of this kind are counted only")
            self._telemetry.count("alerts_failed", kind)
            self.state, self.error = "failing", f"{kind}: {error}"
            self._failed_at = time.monotonic()
        else:
            if self.error and time.monotonic() - self._failed_at >= FAILING:
                self.state, self.error = "ok", ""

    def _look(self) -> None:
        with self._lock:
            message = self._tell(self._alerts.advance(time.time()))
        if message:
            self._save()

    def _deliver(self, report: Report) -> bool:
        with self._lock:
            self._tell(self._alerts.evaluate(report, time.time()))
        self._save()
        return True

    def _tell(self, events: list[AlertEvent]) -> bool:
        for event in events:
            self._telemetry.count("alerts", event.kind)
            level = logging.WARNING if event.kind == "opened" else logging.INFO
            text = event.alert["text"] + because(event.alert)
            log.log(level, "alert %s (%s): %s", event.kind, event.alert["severity"], text)
            self._notifications.enqueue(message_of(event, self._origin))
        return bool(events)

    def _save(self) -> None:
        """State and queues together: an alert that has opened will be sent, whatever happens to the process."""
        with self._lock:
            data = pack_state({"alerts": self._alerts.state(), "queues": self._notifications.queues})
        self._database.submit(lambda connection: _write(data, connection))


def _write(data: bytes, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO alerts (name, data) VALUES ('state', ?)", (data,))
