"""Alerts from reports, messages from alerts: reads the outbox as a sink does and keeps its state in the database."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from zmon.contract import Report
from zmon_collector.alerts import store
from zmon_collector.alerts.alert_list import OPEN, Alert
from zmon_collector.alerts.notifier import NotificationQueues, Notifier, Post, because, message_of, post
from zmon_collector.alerts.rules import AlertEvent, AlertTracker
from zmon_collector.alerts.series_state import SERIES
from zmon_collector.clock import system_time
from zmon_collector.config import Config
from zmon_collector.config.alerting import rules
from zmon_collector.delivery.dispatch import OwnReader
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

TICK = 5.0  # seconds between checks for models without data


class AlertWorker(OwnReader):
    """The thread that applies alert rules to reports and queues notifications.

    Parameters
    ----------
    config : Config
    database : Database
        Stores state and queues, written together after each report.
    send : callable
        Sends one message; tests replace it.
    wall : callable
        Returns the time of the collector's clock.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        outbox: Outbox,
        telemetry: Telemetry,
        send: Post = post,
        *,
        wall: Callable[[], float] = system_time,
    ) -> None:
        super().__init__("alerts", "alert rules fail on reports, which are skipped", outbox, telemetry)
        self._database = database
        self._config = config
        self._wall = wall
        self._lock = threading.Lock()
        self._tracker = AlertTracker(rules(config.alerts))
        self._notifications = NotificationQueues(config.notify)
        self._notifier = Notifier(self._notifications, self._lock, self._save, telemetry, send, wall=wall)
        self._origin = ""
        self._unsaved = False  # all is kept in the form of an earlier release

    def link_to(self, page_url: str) -> None:
        """Let messages link to the live page at this address."""
        self._notifier.page_url = page_url

    def load(self, connection: sqlite3.Connection) -> None:
        """Restore the state of the last run."""
        self._origin = connection.execute("SELECT hex(name) FROM store").fetchone()[0].lower()
        kept = store.load(connection, self._telemetry)
        self._unsaved = kept.earlier
        try:
            self._tracker = AlertTracker(rules(self._config.alerts), kept.tracker)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("the stored state of alerts is damaged and was reset: %s", error)
        for target, number, message in kept.messages:
            self._notifications.restore(target, number, message)

    def start(self) -> None:
        self.reload(self._config)  # rules may have changed while no collector ran
        super().start()
        self._notifier.start()

    def join(self, timeout: float) -> bool:
        ended = super().join(timeout)
        self._notifier.stop(timeout)
        return ended

    def threads(self) -> list[SupervisedThread]:
        return [self.thread, self._notifier.thread]

    def reload(self, config: Config) -> None:
        """Replace rules and targets. Alerts of a rule whose name remains stay open."""
        with self._lock:
            self._config = config
            self._notifications.replace_targets(config.notify)
            self._announce(self._tracker.replace_rules(rules(config.alerts), self._wall()))
        self._save()

    def entries(self) -> list[Alert]:
        """Return all alerts that are kept, the newest first."""
        with self._lock:
            return [{**alert, "members": dict(alert["members"])} for alert in reversed(self._tracker.alerts)]

    def problem(self) -> str:
        left_out = list(self._tracker.left_out.values())
        problems = [super().problem(), *self._notifier.problems()]
        if left_out:
            problems.append(
                f"the alert rules watch more than {SERIES:,} series: {sum(left_out):,} series of {len(left_out):,} "
                "models are left out; narrow the rules"
            )
        if self._tracker.refused:
            problems.append(f"more than {OPEN:,} alerts were open: {self._tracker.refused:,} times one did not open")
        return "; ".join(filter(None, problems))

    def _run(self) -> None:
        next_check = time.monotonic() + TICK
        while not self._stop.is_set():
            self.thread.beat()
            report = self._outbox.wait_for_next(self.name, TICK)
            if isinstance(report, Report):
                self._deliver(report)
                self._outbox.mark_done(self.name, report.sequence)
            elif self._outbox.ended:
                break
            if time.monotonic() >= next_check:  # reports of other models may arrive without a pause
                self._guarded(self._check_silence)
                next_check = time.monotonic() + TICK

    def _check_silence(self) -> None:
        with self._lock:
            changed = self._announce(self._tracker.advance(self._wall()))
        if changed:
            self._save()

    def _read(self, report: Report) -> None:
        with self._lock:
            self._announce(self._tracker.evaluate(report, self._wall()))
        self._save()

    def _announce(self, events: list[AlertEvent]) -> bool:
        """Count, log and queue events; return whether there were any."""
        for event in events:
            self._telemetry.count("alerts", event.kind)
            level = logging.WARNING if event.kind == "opened" else logging.INFO
            text = event.alert["text"] + because(event.alert)
            log.log(level, "alert %s (%s): %s", event.kind, event.alert["severity"], text)
            for target in self._notifications.enqueue(message_of(event, self._origin)):
                self._telemetry.count("alerts_dropped", target)
        return bool(events)

    def _save(self) -> None:
        """Store what has changed of alerts and queues together."""
        with self._lock:
            changes = self._tracker.changes(everything=self._unsaved)
            messages = self._notifications.changes(everything=self._unsaved)
            store.save(changes, messages, self._database)
            self._tracker.note_saved()
            self._notifications.note_saved()
            self._unsaved = False
