"""/metrics: the collector's own health and the newest window of each model, in Prometheus' text format.

Every answer is built from the last look at the collector, so a series whose source is gone disappears.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zmon.contract import DIMENSIONS, Point, Report, target_type
from zmon_collector.health import GAUGES, HealthReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERIES = 2000  # of models, in one answer
POINTS = 100_000  # of all models, in memory
STALE = 5  # windows; a model that has closed none for so long, and at least STALE_LEAST seconds, is not shown
STALE_LEAST = 600.0
NAMES = ("model", "model_version", "agent_id", *DIMENSIONS)

_SINK_COUNTERS = {"sink_written", "sink_errors", "sink_failed", "outbox_dropped", "samples_refused", "refused_dropped"}
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_]")


class _NewestReport(NamedTuple):
    report: Report
    recorded: float  # monotonic
    sequences: frozenset[int]
    left_out: int


class NewestReports:
    """The newest window of each (model, version), until it is stale.

    Models share the room for points: each has as many as one page shows, while there are few models.
    """

    def __init__(self) -> None:
        self._reports: dict[tuple[str, str], _NewestReport] = {}

    def record(self, report: Report) -> None:
        """Keep a report, unless that of a later window is kept. Another one of the same window adds its counts."""
        key = (report.model, report.version)
        points, sequences, left_out = report.points, frozenset({report.sequence}), 0
        kept = self._reports.get(key)
        if kept is not None:
            same = kept.report.window.start == report.window.start
            if kept.report.window.start > report.window.start or (same and report.sequence in kept.sequences):
                return
            if same:
                points, sequences = _joined(kept.report.points, points), kept.sequences | sequences
                left_out = kept.left_out
        most = max(1, min(SERIES, POINTS // max(1, len(self._reports))))
        shown = sorted(points, key=lambda point: point.agent_id is not None)[:most]  # rollups first
        left_out += len(points) - len(shown)
        report = replace(report, points=shown, details={})
        self._reports[key] = _NewestReport(report, time.monotonic(), sequences, left_out)

    @property
    def left_out(self) -> int:
        """Series that are left out because there is no room."""
        return sum(kept.left_out for kept in list(self._reports.values()))

    def reports(self) -> list[Report]:
        """Return the reports that are not stale, and forget the others."""
        now = time.monotonic()
        for key, kept in list(self._reports.items()):
            window = kept.report.window
            if now - kept.recorded > max(STALE_LEAST, STALE * (window.end - window.start)):
                self._reports.pop(key, None)
        return [kept.report for kept in list(self._reports.values())]


def _joined(earlier: Sequence[Point], later: Sequence[Point]) -> list[Point]:
    """Return the points of two reports of a window: counters are added, other series are those of the later one."""
    by_series = {(point.agent_id, point.value._replace(value=0.0)): point for point in earlier}
    for agent, value in later:
        series = (agent, value._replace(value=0.0))
        if series in by_series and target_type(value) == "counter":
            value = value._replace(value=value.value + by_series[series].value.value)
        by_series[series] = Point(agent, value)
    return list(by_series.values())


def _health_families(health: HealthReport) -> Iterator[Metric]:
    """Yield the collector's own series."""
    yield GaugeMetricFamily("zmon_up", "1 while the collector answers", 1)
    yield GaugeMetricFamily("zmon_problems", "problems an operator should look at", len(health.problems))
    for name, text in GAUGES.items():
        yield GaugeMetricFamily(f"zmon_{name}", text, getattr(health, name))
    yield GaugeMetricFamily("zmon_outbox_reports", "reports that wait for a sink", health.outbox)
    yield GaugeMetricFamily("zmon_models", "models times versions", len(health.models))
    behind = GaugeMetricFamily("zmon_sink_behind", "reports that wait for this sink", labels=["sink"])
    works = GaugeMetricFamily("zmon_sink_ok", "1 while the sink delivers, 0 while it fails", labels=["sink"])
    refused = GaugeMetricFamily("zmon_sink_refused_samples", "samples set aside (zmon outbox ls)", labels=["sink"])
    for sink, state in health.sinks.items():
        behind.add_metric([sink], health.behind.get(sink, 0))
        works.add_metric([sink], state == "ok")
        refused.add_metric([sink], health.aside.get(sink, 0))
    yield from (behind, works, refused)
    metrics = GaugeMetricFamily(
        "zmon_metric_ok", "1 while the metric runs, 0 when disabled or stuck for a model", labels=["metric"]
    )
    seconds = CounterMetricFamily("zmon_metric_seconds", "time spent in the metric", labels=["metric"])
    plugins = GaugeMetricFamily("zmon_plugin_quarantined", "plugins that cannot be used", labels=["plugin"])
    for row in health.plugins:
        if row["kind"] == "metric":
            metrics.add_metric([row["name"]], row["state"] == "ok")
            seconds.add_metric([row["name"]], row["seconds"])
        elif row["state"] == "quarantined":
            plugins.add_metric([row["plugin"]], 1)
    yield from (metrics, seconds, plugins)
    yield from _counters(health.counters)


def _counters(counters: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the families of counters named ``name`` or ``name{label}``, as `Telemetry.snapshot` names them."""
    labelled = {key.partition("{")[0] for key in counters if "{" in key}
    families: dict[str, CounterMetricFamily] = {}
    for key, count in counters.items():
        name, _, label = key.partition("{")
        if name not in families:
            labels = [("sink" if name in _SINK_COUNTERS else "reason")] if name in labelled else []
            families[name] = CounterMetricFamily(
                f"zmon_{_ILLEGAL.sub('_', name)}", name.replace("_", " "), labels=labels
            )
        families[name].add_metric([label.removesuffix("}")] if name in labelled else [], count)
    yield from families.values()


def _model_families(reports: Sequence[Report], limit: int, left_out: int) -> Iterator[Metric]:
    """Yield series of the newest windows: rollups first, then agents, so that only detail is beyond the bound."""
    ends = GaugeMetricFamily(
        "zmon_window_end_seconds", "end of the newest closed window, epoch", labels=["model", "model_version"]
    )
    for report in reports:
        ends.add_metric([report.model, report.version], report.window.end)
    yield ends
    left_out += max(0, sum(len(report.points) for report in reports) - limit)
    yield GaugeMetricFamily("zmon_series_left_out", "series beyond the bound of this page", left_out)
    rollups_first = (
        (report, point)
        for of_agents in (False, True)
        for report in reports
        for point in report.points
        if (point.agent_id is not None) == of_agents
    )
    families: dict[str, GaugeMetricFamily] = {}
    for report, point in islice(rollups_first, limit):
        what = point.value.what
        name = f"zmon_model_{_ILLEGAL.sub('_', what)}"
        if name not in families:
            families[name] = GaugeMetricFamily(name, f"{what} of the newest closed window", labels=NAMES)
        names = report.properties(point)
        families[name].add_metric([names.get(key, "") for key in NAMES], float(point.value.value))
    yield from families.values()


class _Families(Collector):
    """Families of a registry, collected once for each scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(health: HealthReport, reports: Sequence[Report], series: int = SERIES, left_out: int = 0) -> bytes:
    """Return the text of /metrics, of type `CONTENT_TYPE`.

    Parameters
    ----------
    health : HealthReport
    reports : sequence of Report
        The newest window of each model.
    series : int
        The most series of models to show; 0 shows the collector's own health only.
    left_out : int
        Series that the reports lack, for want of room.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(_health_families(health)))
    if series:
        registry.register(_Families(_model_families(reports, series, left_out)))
    return generate_latest(registry)


class MetricsPage:
    """/metrics as of the last look: health and windows of the same moment. Read from any thread."""

    def __init__(self, series: int) -> None:
        self.newest = NewestReports()
        self._series = series
        self._shown: tuple[HealthReport, Sequence[Report], int] = (HealthReport(), (), 0)
        self._lock = threading.Lock()
        self._text: tuple[object, bytes] = (None, b"")  # of which look it is

    def update(self, health: HealthReport) -> None:
        """Show this health from now on, and the newest windows as they are now."""
        self._shown = (health, self.newest.reports(), self.newest.left_out)

    def text(self) -> bytes:
        """Return the text for a scrape, which is written once however many come until the next look."""
        with self._lock:
            shown = self._shown
            if self._text[0] is not shown:
                health, reports, left_out = shown
                self._text = shown, exposition(health, reports, self._series, left_out)
            return self._text[1]
