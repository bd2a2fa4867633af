"""What people look at, behind one object: the history, the board, the page and its API."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from zmon.contract import Point, Report, RowCounts, Window
from zmon.reference import Profile
from zmon_collector.compute.details import Details
from zmon_collector.config import Config
from zmon_collector.dashboard import history_queries
from zmon_collector.dashboard.batch_tap import BatchTap
from zmon_collector.dashboard.history import History
from zmon_collector.dashboard.overview import KEPT, MEASURES, Overview
from zmon_collector.dashboard.plugin_series import Declarations
from zmon_collector.delivery.dispatch import Delivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")
T = TypeVar("T")

LOOK_EVERY = 1.0  # seconds between two looks at the collector's own health
PREVIEW_SHARE = 0.05  # of a core for copying open windows; computing on them costs about as much again
BEATS = 900  # looks kept: a quarter of an hour
TAPPED = 64  # newest reports kept for `zmon tap`
TAP_POINTS = 5000  # points of a report that `zmon tap` may see
ANSWERED = 10_000  # points in one answer


class HistoryWorker:
    """The history and the one thread that uses it."""

    def __init__(self, path: Path, keep: float, limit: int) -> None:
        self.history = History(path, keep, limit)
        self._thread = ThreadPoolExecutor(1, "zmon-history")

    def start(self) -> None:
        self._thread.submit(self.history.open).result()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Ask a function of recall.py; the answer comes from the history's thread."""
        return self._thread.submit(self.history.read, query)

    def timed(self, query: Callable[[sqlite3.Connection], T]) -> Future[tuple[T, float]]:
        """The same, with the seconds of a core that it took."""

        def run() -> tuple[T, float]:
            started = time.thread_time()
            return self.history.read(query), time.thread_time() - started

        return self._thread.submit(run)

    def read_bytes(self) -> int:
        """Bytes the history uses."""
        return self._thread.submit(lambda: self.history.nbytes).result()

    def append(self, report: Report, wall: float) -> None:
        self._thread.submit(self.history.append, report, wall).result()

    def restate(self, make: Callable[[], list[Report]], done: Callable[[], None]) -> None:
        """Compute restated windows on the history's thread and keep them; `done` is called whatever happens."""

        def work() -> None:
            try:
                for report in make():
                    self.history.append(report, time.time())
            except Exception as error:  # noqa: BLE001 - a metric may raise anything; the files are not affected
                log.error("a window cannot be restated: %s: %s", type(error).__name__, error)
            finally:
                done()

        self._thread.submit(work)

    def stop(self) -> None:
        self._thread.submit(self.history.close)
        self._thread.shutdown(wait=True)


class HistoryDelivery(Delivery):
    """Reports into the history and onto the board; then whoever looks is told."""

    def __init__(self, live: Live, outbox: Outbox, telemetry: Telemetry) -> None:
        super().__init__("history", outbox, telemetry)
        self._live = live

    def _deliver(self, report: Report) -> bool:
        try:
            self._live.take(report)
            self.state = "ok"
        except sqlite3.Error as error:  # disk full: the page lacks a window, the files do not
            if self.state == "ok":
                log.error("the history cannot keep report %d: %s; the files are not affected", report.sequence, error)
            self.state = "failing"
            self._telemetry.count("history_failed")
        return True


class Live:
    """Everything for people who look at a running collector.

    Parameters
    ----------
    config : Config
    outbox : Outbox
        Reports are read from it like a sink does.
    telemetry : Telemetry
    plugins : callable
        How each plugin fares, see `Registry.table`.
    metrics : callable
        The text of /metrics.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        telemetry: Telemetry,
        plugins: Callable[[], list[dict[str, Any]]] = list,
        metrics: Callable[[], bytes] = bytes,
    ) -> None:
        web = config.web
        self.config = config
        self.memory = HistoryWorker(config.collector.data_dir / "history.sqlite", web.keep, web.history_bytes)
        self.overview = Overview()
        self.beats: deque[dict[str, Any]] = deque(maxlen=BEATS)  # the collector's health, newest last
        self.tapped: deque[Report] = deque(maxlen=TAPPED)
        self.batch_tap = BatchTap()
        self.ready = False
        self.deliveries: list[Delivery] = [HistoryDelivery(self, outbox, telemetry)]
        self.changed: list[Callable[[str], None]] = []  # told of what is new: a model's name, or "" for health
        self.plugins = plugins
        self.metrics = metrics
        self.alerts: Callable[[], list[dict[str, Any]]] = list  # with their history, the newest first
        self.reference: Callable[[tuple[str, str]], Profile | None] = lambda model: None  # what it is measured against
        self.declared: Declarations = {}  # what metrics declare of their series
        self.page: Any = None
        self._probes: Any = None
        self.watched: frozenset[str] = frozenset()  # models that somebody looks at
        self.partials: dict[tuple[str, str, int], Report] = {}  # open windows of those, by start, as far as they are
        self._looked = self._preview_at = 0.0

    def start(self) -> None:
        """Open the history and remember how the models fared."""
        self.memory.start()
        for known in self.memory.read(history_queries.list_models).result():
            query = history_queries.PointQuery(
                known.model,
                known.version,
                agents=None,
                what=sorted({what for what, _ in MEASURES}),
                stat=sorted({stat for _, stat in MEASURES}),
                start=known.newest - KEPT * known.period,
            )
            lines = self.memory.read(lambda db, query=query: history_queries.read_series(db, query)).result()  # type: ignore[misc]
            self.overview.restore(known.model, known.version, lines, known.period, float(known.newest + known.period))
        self._serve()
        self.ready = True

    def _serve(self) -> None:
        """The page, and the probes."""
        from zmon_collector.dashboard.web.site import probe_server, site  # only who shows a page pays for a web server

        web, health = self.config.web, self.config.health
        if web.enabled:
            self.page = site(self)
            self.page.start()
            log.info("live page on %s", self.page.url)
        if health.bind is not None:
            self._probes = probe_server(self, health.bind)
            self._probes.start()

    def leave(self) -> None:
        """Send viewers away: they are not to wait for sinks that take their time at the end."""
        self.ready = False
        for server in (self.page, self._probes):
            if server is not None:
                server.stop()

    def stop(self) -> None:
        """After the last report: the history is closed."""
        self.memory.stop()

    def take(self, report: Report) -> None:
        """A window has closed: remember it and tell."""
        wall = time.time()
        self.overview.record(report, wall)
        self.tapped.append(report)
        self.memory.append(report, wall)
        for partial in self.open(report.model, report.version):
            if partial.window.start <= report.window.start:
                del self.partials[report.model, report.version, partial.window.start]
        self._tell(report.model)

    def turn(self, mono: float, health: Callable[[], Mapping[str, Any]], preview: Callable[..., None]) -> None:
        """Called by the collector's thread at every turn: looks at its health and at open windows now and again."""
        if mono - self._looked >= LOOK_EVERY:
            self._looked = mono
            self.beats.append({"time": time.time(), "mono": mono, **health()})
            self._tell("")
        if self.watched and mono >= self._preview_at:
            started = time.thread_time()
            preview(self.watched, self._take_partial)
            every = min(LOOK_EVERY, self.config.collector.window / 4)  # short windows are filled in a few looks
            self._preview_at = mono + max(every, (time.thread_time() - started) / PREVIEW_SHARE)

    def _take_partial(
        self,
        model: tuple[str, str],
        window: Window,
        points: list[Point],
        rows: Mapping[str, RowCounts],
        details: Details,
    ) -> None:
        """What an open window holds so far; shown until it closes, and kept nowhere."""
        if points:
            self.partials[*model, window.start] = Report(0, *model, window, points, rows, details=details)
            self._tell(model[0])

    def open(self, model: str, version: str) -> list[Report]:
        """What the open windows of a watched model hold so far, the oldest first: two while one waits for late rows."""
        found = [each for each in list(self.partials.values()) if (each.model, each.version) == (model, version)]
        return sorted(found, key=lambda each: each.window.start)

    def answer(self, ask: object) -> dict[str, Any]:
        """What `zmon top` and `zmon tap` ask over the admin socket."""
        if ask == "overview":
            return {"models": self.overview.view(time.time()), "now": time.time()}
        if isinstance(ask, str) and ask.startswith("reports "):
            return {"reports": self._newer(int(ask.removeprefix("reports ") or 0))}
        if isinstance(ask, str) and ask.startswith("batches "):
            return self.batch_tap.read(int(ask.removeprefix("batches ") or 0), time.monotonic())
        known = "'health', 'plugins', 'overview', 'reports N' and 'batches N'"
        return {"error": f"unknown question {ask!r:.40}; known are {known}"}

    def _newer(self, sequence: int) -> list[dict[str, Any]]:
        """Reports after one, oldest first, as many as an answer holds."""
        found: list[dict[str, Any]] = []
        for report in list(self.tapped):
            if report.sequence > sequence and sum(len(each["points"]) for each in found) < ANSWERED:
                found.append(_plain(report))
        return found

    @property
    def url(self) -> str:
        """Where the page is; empty when there is none."""
        return self.page.url if self.page is not None else ""

    def _tell(self, model: str) -> None:
        for tell in self.changed:
            tell(model)


def _plain(report: Report) -> dict[str, Any]:
    points = report.points[:TAP_POINTS]
    return {
        "sequence": report.sequence,
        "start": report.window.start,
        "end": report.window.end,
        "points": [[report.properties(point), point.value.value] for point in points],
        "left_out": len(report.points) - len(points),
    }
