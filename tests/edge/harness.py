"""Arguments in, points out: real publishers and one real collector in this process, shared by all tests of this folder.

Every example has a model of its own. Its rows lie in one day of 2023, which closes once its publishers have said
goodbye, so an example takes tens of milliseconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from zmon_collector.config import parse
from zmon_collector.loading import load_plugins
from zmon_collector.service import Service
from zmon_collector.windows.window import Now, Tally

import zmon
from tests.support.waiting import PATIENCE, until
from zmon import Report, RowCounts, Stats
from zmon.hooks import hookimpl

DAY = 86_400
OLD = 1_700_006_400.0  # noon of 2023-11-15: far from both ends of its window
CONFIG: dict[str, Any] = {
    "collector": {"window": "1d", "idle": "60s", "max_wait": "10m"},
    "metrics": {"preset": "full"},
    "limits": {"models": 100_000, "streams": 100_000},
    "web": {"enabled": False},
    "sinks": {"anodot_file": {"enabled": False}},
    "plugins": {"categories": {"max_categories": 1000}},
}

Key = tuple[tuple[str, str], ...]


def key(what: str, **names: str) -> Key:
    """Return the key of a series, as in `Outcome.points`."""
    return tuple(sorted({"what": what, **names}.items()))


@dataclass
class Outcome:
    """What became of one example.

    Attributes
    ----------
    points : dict
        Values of the rollup, by the names that tell series apart, of the window that `OLD` lies in.
    windows : dict
        The same for all windows with rows, by their start.
    rows, lost, late, sampled_out : int
        Rows of all agents, as the collector counted them.
    rejected, degraded : Counter
        Rows by reason, as the collector's reports have them.
    stats : list of Stats
        The publishers' last statistics.
    log : list of str
        Lines that publishers logged about this model.
    """

    points: dict[Key, float] = field(default_factory=dict)
    windows: dict[int, dict[Key, float]] = field(default_factory=dict)
    rows: int = 0
    lost: int = 0
    late: int = 0
    sampled_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    stats: list[Stats] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __getitem__(self, what: str) -> float:
        """Return the value of a series without names."""
        return self.points[key(what)]

    def get(self, what: str, **names: str) -> float | None:
        """Return the value of a series, None if it has none."""
        return self.points.get(key(what, **names))

    def feature(self, name: str, stat: str = "mean") -> float | None:
        """Return a statistic of a numeric feature, None if it has none."""
        return self.get("feature_value", feat_name=name, stat=stat)

    def categories(self, name: str) -> dict[str, float]:
        """Return the counts of a categorical feature."""
        return {
            names["category"]: value
            for names, value in ((dict(each), value) for each, value in self.points.items())
            if names["what"] == "feature_count" and names.get("feat_name") == name
        }

    def features(self) -> set[str]:
        """Return the names of all features that have a series."""
        return {
            names["feat_name"]
            for names in map(dict, self.points)
            if "feat_name" in names and names["what"].startswith("feature_")
        }

    def confusion(self) -> dict[tuple[str, str], float]:
        """Return the counts above 0, by label and predicted class."""
        return {
            (names["class_name"], names["predicted"]): value
            for names, value in ((dict(each), value) for each, value in self.points.items())
            if names["what"] == "confusion_count" and value
        }


class Reports:
    """A plugin that keeps reports by model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[Report]] = {}

    @hookimpl
    def window_closed(self, report: Report) -> None:
        with self._lock:
            self._kept.setdefault(report.model, []).append(report)

    def of(self, model: str) -> list[Report]:
        """Return the reports of a model, in order."""
        with self._lock:
            return list(self._kept.get(model, ()))


class Log(logging.Handler):
    """Warnings and errors of publishers, or of the collector."""

    def __init__(self, *, collector: bool = False) -> None:
        super().__init__(logging.WARNING)
        self._collector = collector
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("zmon.collector") == self._collector:
            self.lines.append(record.getMessage())


class Model:
    """One model of an example, and its publishers. Rows without timestamps get one in the past."""

    def __init__(self, edge: Edge, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self._edge = edge
        self.publishers: list[zmon.Publisher] = []
        self.publisher = self.join(agent_id="a", **options)

    def join(self, **options: Any) -> zmon.Publisher:
        """Return a further publisher of this model."""
        service = self._edge.service.receiver
        publisher = zmon.Publisher(self.name, collector=service.data, control=service.control, **options)
        self.publishers.append(publisher)
        return publisher

    def publish(self, *arguments: Any, publisher: zmon.Publisher | None = None, **named: Any) -> None:
        """Publish a batch, in the past unless `timestamps` is given (None for the present)."""
        named.setdefault("timestamps", OLD)
        (publisher or self.publisher).publish(*arguments, **named)

    def publish_labels(self, ids: Any, labels: Any, publisher: zmon.Publisher | None = None) -> None:
        """Publish late labels."""
        (publisher or self.publisher).publish_labels(ids, labels, OLD)

    def flush(self) -> None:
        """Wait until everything so far is acknowledged."""
        for publisher in self.publishers:
            assert publisher.flush(PATIENCE), publisher.stats

    def end(self) -> Outcome:
        """Deliver everything, end the publishers, and return what became of the rows once it is reported."""
        self.flush()
        stats = [publisher.stats for publisher in self.publishers]
        for publisher in self.publishers:
            publisher.close(PATIENCE)
        arrived = sum(
            each.acknowledged + sum(each.rejected.values()) + each.sampled_out - each.labels for each in stats
        )
        found = Outcome(stats=stats)

        def complete() -> bool:
            return sum(map(_accounted, self._counts())) >= arrived

        until(complete, what=f"{arrived} rows in reports of {stats}")
        for rows in self._counts():
            found.rows += rows.received
            found.lost += rows.lost
            found.late += rows.late
            found.sampled_out += rows.sampled_out
            found.rejected.update(rows.rejected)
            found.degraded.update(rows.degraded)
        for report in self._edge.reports.of(self.name):
            if not report.version and any(rows.received for rows in report.rows.values()):  # else of a variant
                assert report.window.start not in found.windows, "a window closed before all rows had arrived"
                found.windows[report.window.start] = _points(report)
        found.points = found.windows.get(int(OLD) // DAY * DAY, {})
        found.log = [line for line in self._edge.log.lines if self.name in line]
        return found

    def _counts(self) -> list[RowCounts | Tally]:
        """Return the row counts of all reports, and those that no window has taken yet, as of a model without rows."""
        known = self._edge.service.ingestor.models.get((self.name, ""))
        waiting = [] if known is None else list(known.windows.unplaced.values())
        return [rows for report in self._edge.reports.of(self.name) for rows in report.rows.values()] + waiting


def _accounted(rows: RowCounts | Tally) -> int:
    return rows.received + rows.lost + rows.late + rows.sampled_out + sum(rows.rejected.values())


def _points(report: Report) -> dict[Key, float]:
    return {
        tuple(sorted((name, value) for name, value in report.properties(point).items() if name != "model")): float(
            point.value.value
        )
        for point in report.points
        if point.agent_id is None
    }


class AheadService(Service):
    """A collector whose clock is two days ahead: windows of today have ended."""

    def _now(self) -> Now:
        return Now(time.time() + 2 * DAY, time.monotonic())


class Edge:
    """The collector, and models to publish to it."""

    def __init__(self, folder: Path) -> None:
        self._numbers = count()
        self.reports = Reports()
        self.log, self.collector_log = Log(), Log(collector=True)
        config = parse(
            {**CONFIG, "collector": {**CONFIG["collector"], "bind": f"ipc://{folder}/s", "data_dir": str(folder / "d")}}
        )
        registry = load_plugins(config)
        registry.register(self.reports, "edge")
        self.service = AheadService(config, registry)
        for log in (self.log, self.collector_log):
            logging.getLogger("zmon").addHandler(log)
        self.service.start()
        self.service.started -= DAY  # there is no earlier run whose publishers it would wait for
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        self._thread.start()

    def model(self, **options: Any) -> Model:
        """Return a model that nobody has published to, with one publisher."""
        return Model(self, f"edge-{next(self._numbers)}", options)

    @property
    def refused_messages(self) -> int:
        """Number of messages that the collector could not use."""
        counts = self.service.telemetry.snapshot()
        return sum(n for name, n in counts.items() if name.startswith("rejected_messages"))

    def stop(self) -> None:
        """End the collector."""
        for log in (self.log, self.collector_log):
            logging.getLogger("zmon").removeHandler(log)
        self.service.stop()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the collector does not stop"
