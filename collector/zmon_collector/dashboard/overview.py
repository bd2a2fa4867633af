"""The state of every model and replica by its newest windows, for the overview and `zmon top`. No clock, no files."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from zmon.contract import Report
from zmon_collector.dashboard.timeseries import TimeSeries

MODELS = 2000  # versions of models that are kept
KEPT = 60  # windows of each replica
REPORTS = 4 * KEPT  # reports of a model that are recognised when they are delivered again
ENOUGH = 6  # windows before a change can be detected
FLOOR = 0.03  # change of a share that a few hundred rows can show by chance
DEVIATIONS = 5.0
DRIFTED = 0.3  # share of features over their threshold
SILENT_PERIODS = 2.5  # windows without rows, beyond SILENT_EXTRA
SILENT_EXTRA = 15.0  # seconds: idle and the longest grace
FORGET = 86400.0  # seconds after which a silent replica is no longer listed
FORGET_MODEL = 8 * FORGET  # the same of a model, by when its last window was recorded: a weekly job stays

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
    """The newest windows of one replica or of the rollup, oldest first.

    `last_seen` is when the last window with rows arrived, on the collector's clock.
    """

    rows: deque[WindowSummary] = field(default_factory=lambda: deque(maxlen=KEPT))
    last_seen: float = 0.0

    def append(self, row: WindowSummary, last_seen: float) -> None:
        """Append a window that is newer; add the counts of one that is there already."""
        if not self.rows or row.start > self.rows[-1].start:
            self.rows.append(row)
        else:  # counts that arrive later, in a report of their own
            for i, earlier in enumerate(self.rows):
                if earlier.start == row.start:
                    self.rows[i] = _added(earlier, row)
                    break
        if row.rows:
            self.last_seen = max(self.last_seen, last_seen)

    def restore(self, rows: Iterable[WindowSummary]) -> None:
        """Take in windows of the history: they are complete, and may be older than those that are there."""
        known = {row.start: row for row in (*self.rows, *rows)}
        self.rows = deque((known[start] for start in sorted(known)), maxlen=KEPT)
        self.last_seen = max([self.last_seen, *(float(row.start + row.period) for row in self.rows if row.rows)])


@dataclass(slots=True)
class ModelWindows:
    """What is kept of a model: windows by replica, "" for the rollup, and which reports they come from."""

    agents: dict[str, RecentWindows] = field(default_factory=dict)
    reports: OrderedDict[tuple[int, int], None] = field(default_factory=OrderedDict)  # by (start, sequence)
    recorded: float | None = None  # when its last window was recorded; None: by an earlier run

    def note(self, reports: Iterable[tuple[int, int]]) -> bool:
        """Note reports; return whether any was unknown."""
        before = len(self.reports)
        self.reports.update(dict.fromkeys(reports))
        changed = len(self.reports) > before
        while len(self.reports) > REPORTS:
            self.reports.popitem(last=False)
        return changed


class Overview:
    """Keeps the newest windows of all models; `view` returns their state. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[str, str], ModelWindows] = OrderedDict()  # the first is silent for longest

    @property
    def full(self) -> bool:
        """Whether a further model would displace one."""
        return len(self._models) >= MODELS

    def record(self, report: Report, wall: float) -> None:
        """Record a closed window. A report that was recorded before, or restored, changes nothing."""
        period = report.window.end - report.window.start
        measures: dict[str, dict[str, Any]] = {"": {}}
        for agent, value in report.points:
            name = MEASURES.get((value.what, value.stat))
            if name and not (value.class_name or value.feat_name or value.segment_name):
                by_name = measures.setdefault(agent or "", {})
                by_name[name] = by_name.get(name, 0) + value.value if name in COUNTS else value.value
        _sum_counts(measures[""], [by_name for agent, by_name in measures.items() if agent])
        key = (report.model, report.version)
        with self._lock:
            model = self._models.setdefault(key, ModelWindows())
            self._models.move_to_end(key)
            if not model.note([(report.window.start, report.sequence)]):
                return
            for agent, by_name in measures.items():
                summary = WindowSummary(report.window.start, period, **by_name)
                model.agents.setdefault(agent, RecentWindows()).append(summary, wall)
            for agent in [agent for agent, recent in model.agents.items() if wall - recent.last_seen >= FORGET]:
                if agent:
                    del model.agents[agent]
            model.recorded = wall
            self._forget_silent(wall)

    def _forget_silent(self, wall: float) -> None:
        """Forget models that have recorded nothing for long, and those beyond the bound."""
        while self._models:
            silent = next(iter(self._models.values()))  # for longest
            if silent.recorded is None:
                silent.recorded = wall  # it was restored
            if len(self._models) <= MODELS and wall - silent.recorded < FORGET_MODEL:
                break
            self._models.popitem(last=False)

    def restore(
        self,
        model: str,
        version: str,
        series: Iterable[TimeSeries],
        period: int,
        reports: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Add what the history has of a model, which may have closed windows meanwhile.

        Parameters
        ----------
        model, version : str
        series : iterable of TimeSeries
        period : int
            Seconds of a window.
        reports : sequence of tuple
            (start, sequence) of the reports that `series` come from.
        """
        windows: dict[str, dict[int, dict[str, Any]]] = {}
        for ts in series:
            name = MEASURES.get((ts.get("what"), ts.get("stat")))
            if name and not (ts.get("class_name") or ts.get("feat_name") or ts.get("segment_name")):
                for start, value in zip(ts.times.tolist(), ts.values.tolist(), strict=True):
                    by_name = windows.setdefault(ts.get("agent_id"), {}).setdefault(start, {})
                    by_name[name] = by_name.get(name, 0) + int(value) if name in (*COUNTS, "rows") else value
        of_all = windows.setdefault("", {})
        for start in {start for by_start in windows.values() for start in by_start}:
            _sum_counts(of_all.setdefault(start, {}), [windows[agent].get(start, {}) for agent in windows if agent])
        key = (model, version)
        with self._lock:
            if key not in self._models:
                self._models[key] = ModelWindows()
                self._models.move_to_end(key, last=False)  # models that have closed windows since are newer
            kept = self._models[key]
            kept.note(reports)
            for agent, by_start in windows.items():
                restored = (WindowSummary(start, period, **by_name) for start, by_name in by_start.items())
                kept.agents.setdefault(agent, RecentWindows()).restore(restored)

    def view(self, wall: float, alerts: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Return every model with its replicas as plain data, the newest first."""
        firing = Counter(
            (alert.get("model"), alert.get("version", "")) for alert in alerts if alert.get("state") == "firing"
        )
        with self._lock:  # copies: windows close while this works
            models = [
                (key, [(agent, list(recent.rows), recent.last_seen) for agent, recent in sorted(model.agents.items())])
                for key, model in self._models.items()
            ]
        entries = []
        for (model, version), agents in models:
            count = firing[model, version]
            of_all = next(((rows, seen) for agent, rows, seen in agents if not agent), ([], 0.0))
            entry: dict[str, Any] = {"model": model, "version": version}
            entry |= _summary(*of_all, wall, alerted=bool(count))
            entry["alerts"] = count
            entry["agents"] = [
                {"agent": agent, **_summary(rows, last_seen, wall, alerted=False)}
                for agent, rows, last_seen in agents
                if agent and wall - last_seen < FORGET
            ]
            entries.append(entry)
        return sorted(entries, key=lambda entry: (-entry["newest"], entry["model"], entry["version"]))


def _sum_counts(of_all: dict[str, Any], of_agents: Sequence[dict[str, Any]]) -> None:
    """Sum the counts of replicas: the rollup has none of its own."""
    for name in COUNTS:
        of_all[name] = sum(by_name.get(name, 0) for by_name in of_agents)


def _added(earlier: WindowSummary, later: WindowSummary) -> WindowSummary:
    """Return a window with the counts of two reports, and each other measure of the report that has it."""
    counts = {name: getattr(earlier, name) + getattr(later, name) for name in (*COUNTS, "rows")}
    measures = ((key.name, getattr(later, key.name)) for key in fields(later) if key.name not in counts)
    return replace(earlier, **counts, **{name: value for name, value in measures if value is not None})


def _summary(rows: list[WindowSummary], last_seen: float, wall: float, *, alerted: bool) -> dict[str, Any]:
    last = next((row for row in reversed(rows) if row.rows), rows[-1] if rows else WindowSummary(0, 1))
    issued = sum(row.rows + row.lost + row.rejected for row in rows)
    gone = {name: sum(getattr(row, name) for row in rows) for name in COUNTS}
    return {
        "state": _state(rows, last, last_seen, wall, alerted=alerted),
        "newest": last.start,
        "period": last.period,
        "heard": last_seen,
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


def _state(rows: list[WindowSummary], last: WindowSummary, last_seen: float, wall: float, *, alerted: bool) -> str:
    """Return the state in one word.

    silent: no rows for long. drifting: drift was detected, or confidence or accuracy left its range. degraded: rows of
    the newest window were lost, late, rejected or degraded. ok: none of these.
    """
    if wall - last_seen > SILENT_PERIODS * last.period + SILENT_EXTRA:
        return "silent"
    if alerted or (last.drifted or 0.0) >= DRIFTED or any(_moved(rows, name) for name in ("confidence", "accuracy")):
        return "drifting"
    return "degraded" if any(getattr(row, name) for row in rows[-1:] for name in COUNTS) else "ok"


def _moved(rows: list[WindowSummary], name: str) -> bool:
    """Return whether the newest value lies far from the median window, in median absolute deviations."""
    values = np.array([value for row in rows if (value := getattr(row, name)) is not None])
    if len(values) < ENOUGH:
        return False
    distance = np.abs(values - np.median(values))
    spread = max(FLOOR, 1.4826 * float(np.median(distance)))
    return bool(distance[-1] > DEVIATIONS * spread)
