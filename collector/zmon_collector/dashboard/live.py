"""The state of a running collector for the page and the CLI: history, overview, open windows, health."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zmon.contract import Point, Report, RowCounts, Window
from zmon.reference import Profile
from zmon_collector.alerts.alert_list import Alert
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.clock import system_time
from zmon_collector.compute.details import Details
from zmon_collector.compute.engine import Engine
from zmon_collector.config import Config
from zmon_collector.dashboard.batch_tap import BatchTap
from zmon_collector.dashboard.history_worker import HistoryWorker
from zmon_collector.dashboard.overview import Overview
from zmon_collector.dashboard.overview_restore import OverviewRestore
from zmon_collector.dashboard.plugin_series import Declarations
from zmon_collector.delivery.dispatch import OwnReader
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.health import HealthReport
from zmon_collector.ingest.answers import Detail
from zmon_collector.storage.store_file import name_of
from zmon_collector.telemetry import Telemetry

HISTORY = "history.sqlite"  # in the data folder
FULL_WAIT = 1.0  # seconds between tries while the disk is full
PREVIEW_EVERY = 1.0  # seconds between two previews; a quarter of a window if that is shorter
PREVIEW_SHARE = 0.05  # of a core for copying open windows; computing on them costs about as much again
HEALTH_KEPT = 900  # health reports, one a second: a quarter of an hour
REPORTS_KEPT = 64  # newest reports, for `zmon tap`
TAP_POINTS = 5000  # points of a report that `zmon tap` may see
ANSWER_POINTS = 10_000  # points in one answer


class RecentReport(NamedTuple):
    """A report for `zmon tap`, with as many points as it may see, and how many it has beyond these."""

    report: Report
    left_out: int


class Live:
    """Everything for people who look at a running collector.

    Parameters
    ----------
    config : Config
    engine : Engine
        Computes open windows for viewers, and has the reference of each model.
    alert_worker : AlertWorker
    declared : Declarations
        What metrics declare of their series.
    details_of : callable
        Returns why rows of a (model, version) were rejected or degraded, newest first. Any thread may call it.
    wall : callable
        Returns the time of the collector's clock.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        alert_worker: AlertWorker,
        declared: Declarations,
        details_of: Callable[[tuple[str, str]], Sequence[Detail]] = lambda _: (),
        *,
        wall: Callable[[], float] = system_time,
    ) -> None:
        web = config.web
        self.config = config
        self.wall = wall
        self.history = HistoryWorker(config.collector.data_dir / HISTORY, web.keep, web.history_bytes, wall)
        self.overview = Overview()
        self._restore = OverviewRestore(self.history, self.overview)
        self.declared = declared
        self.details_of = details_of
        self.health = HealthReport()
        self.health_history: deque[dict[str, Any]] = deque(maxlen=HEALTH_KEPT)  # newest last
        self._recent: deque[RecentReport] = deque(maxlen=REPORTS_KEPT)
        self.batch_tap = BatchTap()
        self.partials: dict[tuple[str, str, int], Report] = {}  # open windows of watched models, by start
        self._engine = engine
        self._alert_worker = alert_worker
        self._listeners: list[Callable[[str], None]] = []
        self._watched: frozenset[str] = frozenset()  # models with viewers
        self._preview_at = 0.0

    def start(self) -> None:
        """Open the history. Nothing is read of it: `turn` restores the overview, while windows close."""
        self.history.start()

    def turn(self, mono: float) -> None:
        """Do what is due, on the collector's thread: part of the overview, previews of open windows."""
        self._restore.turn(mono)
        self.refresh_previews(mono)

    def stop(self, timeout: float = 10.0) -> bool:
        """Close the history, after the last report; return False when that takes longer."""
        return self.history.stop(timeout)

    # --- what is new -------------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` for everything new, with the model's name, or "" for the collector's health."""
        self._listeners.append(listener)

    def watch(self, models: frozenset[str]) -> None:
        """Keep previews of the open windows of these models, and of no others."""
        self._watched = models
        for key in [key for key in self.partials.copy() if key[0] not in models]:
            self.partials.pop(key, None)

    def record(self, report: Report) -> None:
        """Record the report of a closed window and notify viewers."""
        wall = self.wall()
        if all(recent.report.sequence != report.sequence for recent in self._recent):  # it may come twice
            points = report.points[:TAP_POINTS]
            left_out = len(report.points) - len(points)
            self._recent.append(RecentReport(replace(report, points=points, details={}), left_out))
        try:
            self.history.append(report, wall)  # first: what is restored of a model has all windows that are recorded
        finally:  # a window that cannot be stored is shown all the same
            self.overview.record(report, wall)
            self._show_closed(report)

    def _show_closed(self, report: Report) -> None:
        """Replace previews up to a closed window."""
        for preview in self.open_windows(report.model, report.version):
            if preview.window.start <= report.window.start:
                self.partials.pop((report.model, report.version, preview.window.start), None)
        self._notify(report.model)

    def record_health(self, health: HealthReport, mono: float) -> None:
        """Record the collector's health and notify viewers."""
        self.health = health
        self.health_history.append({"time": self.wall(), "mono": mono, **health.as_dict()})
        self._notify("")

    def refresh_previews(self, mono: float) -> None:
        """Compute the open windows of watched models again, if it is time."""
        if self._watched and mono >= self._preview_at:
            started = time.thread_time()
            self._engine.preview(self._watched, self._record_partial)
            every = min(PREVIEW_EVERY, self.config.collector.window / 4)  # short windows fill in a few previews
            self._preview_at = mono + max(every, (time.thread_time() - started) / PREVIEW_SHARE)

    def _record_partial(
        self,
        model: tuple[str, str],
        window: Window,
        points: list[Point],
        rows: Mapping[str, RowCounts],
        details: Details,
    ) -> None:
        """Show what an open window holds so far, until it closes. It is not stored."""
        if points:
            self.partials[*model, window.start] = Report(0, *model, window, points, rows, details=details)
            self._notify(model[0])

    def _notify(self, model: str) -> None:
        for listener in self._listeners:
            listener(model)

    # --- what is there -----------------------------------------------------------------------------------------------

    @property
    def recent_reports(self) -> list[Report]:
        """The newest reports, oldest first, with the points that `zmon tap` may see."""
        return [recent.report for recent in list(self._recent)]

    def alerts(self) -> list[Alert]:
        """Return all alerts that are remembered, the newest first."""
        return self._alert_worker.entries()

    def reference(self, model: tuple[str, str]) -> Profile | None:
        """Return the profile that the newest windows of a model are measured against."""
        return self._engine.references.current(model)

    def open_windows(self, model: str, version: str) -> list[Report]:
        """Return previews of a watched model's open windows, oldest first: two while one waits for late rows."""
        reports = list(self.partials.values())
        of_model = [report for report in reports if (report.model, report.version) == (model, version)]
        return sorted(of_model, key=lambda report: report.window.start)

    def answer(self, question: object) -> dict[str, Any]:
        """Answer what `zmon top` and `zmon tap` request over the admin socket."""
        if question == "overview":
            now = self.wall()
            return {"models": self.overview.view(now), "now": now}
        if isinstance(question, str) and question.startswith("reports "):
            return {"reports": self._newer(int(question.removeprefix("reports ") or 0))}
        if isinstance(question, str) and question.startswith("batches "):
            return self.batch_tap.read(int(question.removeprefix("batches ") or 0), time.monotonic())
        questions = "'health', 'plugins', 'overview', 'reports N' and 'batches N'"
        return {"error": f"unknown question {question!r:.40}; use one of {questions}"}

    def _newer(self, sequence: int) -> list[dict[str, Any]]:
        """Return reports after one, oldest first, as many as an answer holds."""
        newer: list[dict[str, Any]] = []
        for recent in list(self._recent):
            room = sum(len(plain["points"]) for plain in newer) < ANSWER_POINTS
            if recent.report.sequence > sequence and room:
                newer.append(_plain(recent))
        return newer


class HistoryDelivery(OwnReader):
    """A reader of the outbox that shows every report to people."""

    def __init__(self, live: Live, outbox: Outbox, telemetry: Telemetry) -> None:
        trouble = "the page's history misses windows, sinks are not affected"
        super().__init__("history", trouble, outbox, telemetry)
        self._live = live
        self._is_full = False  # the disk, at the last try

    def _deliver(self, report: Report) -> bool:
        """Handle a report; while the disk is full it waits, as it does for the file sink."""
        while not self._stop.is_set():
            self._is_full = False
            super()._deliver(report)
            if not self._is_full:
                return True
            self._pause(FULL_WAIT)
        return False

    def _read(self, report: Report) -> None:
        try:
            self._live.record(report)  # again after a full disk, which changes nothing that is recorded
        except sqlite3.OperationalError as error:
            self._is_full = name_of(error) == "SQLITE_FULL"
            if not self._is_full:
                raise

    def _count(self, kind: str) -> None:
        self._telemetry.count("history_failed")


def _plain(recent: RecentReport) -> dict[str, Any]:
    report = recent.report
    return {
        "sequence": report.sequence,
        "start": report.window.start,
        "end": report.window.end,
        "points": [[report.properties(point), point.value.value] for point in report.points],
        "left_out": recent.left_out,
    }
