"""The state of every model and replica by its newest windows, for the overview and `zmon top`. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zmon.contract import Report
from zmon_collector.dashboard.timeseries import TimeSeries

MODELS = 2000  # versions of models that are kept
KEPT = 60  # windows of each replica
ENOUGH = 6  # windows before a change can be detected
FLOOR = 0.03  # change of a share that a few hundred rows can show by chance
DEVIATIONS = 5.0
DRIFTED = 0.3  # share of features over their threshold
SILENT_PERIODS = 2.5  # windows without rows, beyond SILENT_EXTRA
SILENT_EXTRA = 15.0  # seconds: idle and the longest grace
FORGET = 86400.0  # seconds after which a silent replica is no longer listed

# Names of the shown measures, by (what, stat); only series without further names.
MEASURES = {
    ("buffer_count", ""): "rows",
    ("max_prediction_proba", "mean"): "confidence",
    ("accuracy", ""): "accuracy",
    ("estimated_accuracy", ""): "estimated",
    ("drifted_feature_freq", ""): "drifted",
    ("mae", ""): "error",
    ("rows_lost", ""): "lost",
    ("rows_late", ""): "late",
    ("rows_rejected", ""): "rejected",
    ("rows_degraded", ""): "degraded",
}
COUNTS = ("lost", "late", "rejected", "degraded")


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """The measures of one window, of one replica or of the rollup."""

    start: int
    period: int
    rows: int = 0
    confidence: float | None = None
    accuracy: float | None = None
    estimated: float | None = None
    drifted: float | None = None
    error: float | None = None
    lost: int = 0
    late: int = 0
    rejected: int = 0
    degraded: int = 0


@dataclass(slots=True)
class RecentWindows:
    """The newest windows of one replica or of the rollup.

    `last_seen` is when the last window with rows arrived, on the collector's clock.
    """

    rows: deque[WindowSummary] = field(default_factory=lambda: deque(maxlen=KEPT))
    last_seen: float = 0.0

    def append(self, row: WindowSummary, last_seen: float) -> None:
        """Append a window that is newer; add the counts of one that is there already."""
        if self.rows and row.start == self.rows[-1].start:  # counts that arrive later, in a report of their own
            last = self.rows[-1]
            row = replace(last, **{name: getattr(last, name) + getattr(row, name) for name in (*COUNTS, "rows")})
            self.rows[-1] = row
        elif not self.rows or row.start > self.rows[-1].start:
            self.rows.append(row)
        if row.rows:
            self.last_seen = max(self.last_seen, last_seen)


class Overview:
    """Keeps the newest windows of all models; `view` returns their state."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], dict[str, RecentWindows]] = {}

    def record(self, report: Report, wall: float) -> None:
        """Record a closed window."""
        period = report.window.end - report.window.start
        measures: dict[str, dict[str, Any]] = {"": {}}
        for agent, value in report.points:
            name = MEASURES.get((value.what, value.stat))
            if name and not (value.class_name or value.feat_name or value.segment_name):
                by_name = measures.setdefault(agent or "", {})
                by_name[name] = by_name.get(name, 0) + value.value if name in COUNTS else value.value
        for name in COUNTS:  # the rollup has no such counts of its own
            measures[""][name] = sum(by_name.get(name, 0) for agent, by_name in measures.items() if agent)
        model = (report.model, report.version)
        agents = self._models[model] = self._models.pop(model, {})  # moved to the end: the first is silent for longest
        for agent, by_name in measures.items():
            agents.setdefault(agent, RecentWindows()).append(
                WindowSummary(report.window.start, period, **by_name), wall
            )
        for agent in [agent for agent, recent in agents.items() if agent and wall - recent.last_seen >= FORGET]:
            del agents[agent]
        while len(self._models) > MODELS:
            del self._models[next(iter(self._models))]

    def restore(self, model: str, version: str, series: Iterable[TimeSeries], period: int, last_seen: float) -> None:
        """Restore a model from the series of the history, after a start."""
        windows: dict[str, dict[int, dict[str, Any]]] = {}
        for ts in series:
            name = MEASURES.get((ts.get("what"), ts.get("stat")))
            if name and not (ts.get("class_name") or ts.get("feat_name") or ts.get("segment_name")):
                for start, value in zip(ts.times.tolist(), ts.values.tolist(), strict=True):
                    by_name = windows.setdefault(ts.get("agent_id"), {}).setdefault(start, {})
                    by_name[name] = by_name.get(name, 0) + int(value) if name in (*COUNTS, "rows") else value
        agents = self._models.setdefault((model, version), {})
        for agent, by_start in windows.items():
            recent = agents.setdefault(agent, RecentWindows())
            for start in sorted(by_start):
                recent.append(WindowSummary(start, period, **by_start[start]), last_seen)

    def view(self, wall: float, alerts: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Return every model with its replicas as plain data, the newest first."""
        firing = [alert for alert in alerts if alert.get("state") == "firing"]
        entries = []
        for (model, version), agents in self._models.items():
            count = sum((alert.get("model"), alert.get("version", "")) == (model, version) for alert in firing)
            entry: dict[str, Any] = {"model": model, "version": version}
            entry |= _summary(agents.get("", RecentWindows()), wall, alerted=bool(count))
            entry["alerts"] = count
            entry["agents"] = [
                {"agent": agent, **_summary(recent, wall, alerted=False)}
                for agent, recent in sorted(agents.items())
                if agent and wall - recent.last_seen < FORGET
            ]
            entries.append(entry)
        return sorted(entries, key=lambda entry: (-entry["newest"], entry["model"], entry["version"]))


def _summary(recent: RecentWindows, wall: float, *, alerted: bool) -> dict[str, Any]:
    rows = list(recent.rows)
    last = next((row for row in reversed(rows) if row.rows), rows[-1] if rows else WindowSummary(0, 1))
    issued = sum(row.rows + row.lost + row.rejected for row in rows)
    gone = {name: sum(getattr(row, name) for row in rows) for name in COUNTS}
    return {
        "state": _state(recent, last, wall, alerted),
        "newest": last.start,
        "period": last.period,
        "heard": recent.last_seen,
        "rows": last.rows,
        "rows_per_second": last.rows / last.period,
        **{name: getattr(last, name) for name in ("confidence", "accuracy", "estimated", "error", "drifted")},
        **gone,
        "loss": (gone["lost"] + gone["rejected"]) / issued if issued else 0.0,
        "trend": {
            "rows_per_second": [row.rows / row.period for row in rows],
            "confidence": [row.confidence for row in rows],
            "accuracy": [row.estimated if row.accuracy is None else row.accuracy for row in rows],
        },
    }


def _state(recent: RecentWindows, last: WindowSummary, wall: float, alerted: bool) -> str:
    """Return the state in one word.

    silent: no rows for long. drifting: drift was detected, or confidence or accuracy left its range. degraded: rows of
    the newest window were lost, late, rejected or degraded. ok: none of these.
    """
    if wall - recent.last_seen > SILENT_PERIODS * last.period + SILENT_EXTRA:
        return "silent"
    if alerted or (last.drifted or 0.0) >= DRIFTED or any(_moved(recent, name) for name in ("confidence", "accuracy")):
        return "drifting"
    newest = recent.rows[-1]
    return "degraded" if any(getattr(newest, name) for name in COUNTS) else "ok"


def _moved(recent: RecentWindows, name: str) -> bool:
    """Return whether the newest value lies far from the median window, in median absolute deviations."""
    values = np.array([value for row in recent.rows if (value := getattr(row, name)) is not None])
    if len(values) < ENOUGH:
        return False
    distance = np.abs(values - np.median(values))
    spread = max(FLOOR, 1.4826 * float(np.median(distance)))
    return bool(distance[-1] > DEVIATIONS * spread)
