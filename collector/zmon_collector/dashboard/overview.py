"""How each model and replica fares, from the newest windows: what the overview and `zmon top` show. Pure."""

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
ENOUGH = 6  # windows before a change is called one
FLOOR = 0.03  # change of a share that some hundred rows may show by chance
DEVIATIONS = 5.0
DRIFTED = 0.3  # share of features over their threshold
SILENT_PERIODS = 2.5  # windows without rows, beyond SILENT_EXTRA
SILENT_EXTRA = 15.0  # seconds: idle and the longest grace
FORGET = 86400.0  # seconds after which a silent replica is no longer listed

# What a row shows, by (what, stat); without further names.
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
}
ADDED = ("lost", "late", "rejected")


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """One window of one replica, or of all together."""

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


@dataclass(slots=True)
class RecentWindows:
    """The newest windows of one replica; `heard` is when the last one with rows came, on the collector's clock."""

    rows: deque[WindowSummary] = field(default_factory=lambda: deque(maxlen=KEPT))
    last_seen: float = 0.0

    def append(self, row: WindowSummary, last_seen: float) -> None:
        if self.rows and row.start == self.rows[-1].start:  # counts that came in a report of their own
            last = self.rows[-1]
            row = replace(last, **{name: getattr(last, name) + getattr(row, name) for name in (*ADDED, "rows")})
            self.rows[-1] = row
        elif not self.rows or row.start > self.rows[-1].start:
            self.rows.append(row)
        if row.rows:
            self.last_seen = max(self.last_seen, last_seen)


class Overview:
    """Keeps the newest windows of all models; `view` says how they fare."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str], dict[str, RecentWindows]] = {}

    def record(self, report: Report, wall: float) -> None:
        """A window has closed."""
        period = report.window.end - report.window.start
        found: dict[str, dict[str, Any]] = {"": {}}
        for agent, value in report.points:
            name = MEASURES.get((value.what, value.stat))
            if name and not (value.class_name or value.feat_name or value.segment_name):
                own = found.setdefault(agent or "", {})
                own[name] = own.get(name, 0) + value.value if name in ADDED else value.value
        for name in ADDED:  # the rollup says of its rows what its replicas say together
            found[""][name] = sum(own.get(name, 0) for agent, own in found.items() if agent)
        model = (report.model, report.version)
        tracks = self._tracks[model] = self._tracks.pop(model, {})  # the last now; the first is silent for longest
        for agent, own in found.items():
            tracks.setdefault(agent, RecentWindows()).append(WindowSummary(report.window.start, period, **own), wall)
        for agent in [each for each, track in tracks.items() if each and wall - track.last_seen >= FORGET]:
            del tracks[agent]
        while len(self._tracks) > MODELS:
            del self._tracks[next(iter(self._tracks))]

    def restore(self, model: str, version: str, series: Iterable[TimeSeries], period: int, last_seen: float) -> None:
        """What the history remembers of a model, after a start."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for ts in series:
            name = MEASURES.get((ts.get("what"), ts.get("stat")))
            if name and not (ts.get("class_name") or ts.get("feat_name") or ts.get("segment_name")):
                for start, value in zip(ts.times.tolist(), ts.values.tolist(), strict=True):
                    own = found.setdefault(ts.get("agent_id"), {}).setdefault(start, {})
                    own[name] = own.get(name, 0) + int(value) if name in (*ADDED, "rows") else value
        tracks = self._tracks.setdefault((model, version), {})
        for agent, rows in found.items():
            for start in sorted(rows):
                tracks.setdefault(agent, RecentWindows()).append(WindowSummary(start, period, **rows[start]), last_seen)

    def view(self, wall: float, alerts: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Every model with its replicas, the newest first; plain data."""
        open_alerts = [each for each in alerts if each.get("state") == "firing"]
        found = []
        for (model, version), tracks in self._tracks.items():
            own = [each for each in open_alerts if (each.get("model"), each.get("version", "")) == (model, version)]
            agents = {agent: track for agent, track in tracks.items() if agent}
            entry = {"model": model, "version": version, **_said(tracks.get("", RecentWindows()), wall, bool(own))}
            entry["alerts"] = len(own)
            entry["agents"] = [
                {"agent": agent, **_said(track, wall, False)}
                for agent, track in sorted(agents.items())
                if wall - track.last_seen < FORGET
            ]
            found.append(entry)
        return sorted(found, key=lambda each: (-each["newest"], each["model"], each["version"]))


def _said(track: RecentWindows, wall: float, alerted: bool) -> dict[str, Any]:
    rows = list(track.rows)
    last = next((row for row in reversed(rows) if row.rows), rows[-1] if rows else WindowSummary(0, 1))
    recent = rows[-KEPT:]
    issued = sum(row.rows + row.lost + row.rejected for row in recent)
    gone = {name: sum(getattr(row, name) for row in recent) for name in ADDED}
    return {
        "state": _state(track, last, wall, alerted),
        "newest": last.start,
        "period": last.period,
        "heard": track.last_seen,
        "rows": last.rows,
        "rows_per_second": last.rows / last.period,
        "confidence": last.confidence,
        "accuracy": last.accuracy,
        "estimated": last.estimated,
        "error": last.error,
        "drifted": last.drifted,
        **gone,
        "loss": (gone["lost"] + gone["rejected"]) / issued if issued else 0.0,
        "trend": {
            "rows_per_second": [row.rows / row.period for row in recent],
            "confidence": [row.confidence for row in recent],
            "accuracy": [row.estimated if row.accuracy is None else row.accuracy for row in recent],
        },
    }


def _state(track: RecentWindows, last: WindowSummary, wall: float, alerted: bool) -> str:
    """silent: no rows for long. drifting: drift was found, or confidence or accuracy left its range. degraded: rows
    of the newest window were lost, late or rejected. Else ok."""
    if wall - track.last_seen > SILENT_PERIODS * last.period + SILENT_EXTRA:
        return "silent"
    if alerted or (last.drifted or 0.0) >= DRIFTED or any(_moved(track, name) for name in ("confidence", "accuracy")):
        return "drifting"
    newest = track.rows[-1]
    return "degraded" if newest.lost or newest.late or newest.rejected else "ok"


def _moved(track: RecentWindows, name: str) -> bool:
    """The newest value lies far below or above the median window, in median absolute deviations."""
    values = np.array([value for row in track.rows if (value := getattr(row, name)) is not None])
    if len(values) < ENOUGH:
        return False
    distance = np.abs(values - np.median(values))
    spread = max(FLOOR, 1.4826 * float(np.median(distance)))
    return bool(distance[-1] > DEVIATIONS * spread)
