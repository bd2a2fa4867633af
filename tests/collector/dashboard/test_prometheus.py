"""/metrics: parsed back by Prometheus' own parser, complete, bounded, and what the dashboard asks for is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from zmon_collector.dashboard import prometheus
from zmon_collector.dashboard.prometheus import NewestReports, exposition
from zmon_collector.health import HealthReport

from tests.support.collectors import Collector
from tests.support.waiting import until
from zmon.contract import Point, Report, Value, Window

OLD = 1_000_000_020
DASHBOARD = Path(__file__).parents[3] / "examples/grafana/dashboard.json"


@pytest.fixture
def collector(collect: Callable[..., Collector]) -> Collector:
    running = collect(grace=0.0)
    chance = np.random.default_rng(0)
    publishers = [running.publisher(classes=["a b", "c"], agent_id=f"pod-{i}") for i in range(2)]
    for publisher in publishers:
        for window in range(3):
            p = chance.dirichlet((1, 1), 20)
            publisher.publish(p, inputs=chance.normal(size=(20, 2)), labels=p.argmax(1), timestamps=OLD + 60 * window)
    for publisher in publishers:
        assert publisher.flush(60)
        publisher.close()
    running.close_windows()
    until(lambda: len(running.files()) >= 3, what="windows to close")
    until(lambda: [r.window.start for r in running.service.metrics_page.newest.reports()] == [OLD // 60 * 60 + 120])
    until(lambda: not any(running.service.outbox.behind().values()), what="the sinks to be done")
    return running


def scrape(collector: Collector, **options: Any) -> list[Sample]:
    text = exposition(collector.service.health(), collector.service.metrics_page.newest.reports(), **options).decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_health_and_the_newest_window(collector: Collector) -> None:
    samples = scrape(collector)
    assert value(samples, "zmon_up") == 1
    assert value(samples, "zmon_problems") == 0
    assert value(samples, "zmon_rows_total") == 120
    assert value(samples, "zmon_sink_ok", sink="anodot_file") == 1
    assert value(samples, "zmon_sink_behind", sink="anodot_file") == 0
    assert value(samples, "zmon_sink_written_total", sink="anodot_file") == 3
    assert value(samples, "zmon_model_buffer_count", model="model", agent_id="") == 40
    assert value(samples, "zmon_model_accuracy", agent_id="pod-1", class_name="") == 1.0
    written = {
        p["properties"].get("class_name"): p["value"]
        for p in json.loads(collector.files()[-1].read_text())
        if p["properties"]["what"] == "prediction_freq" and "agent_id" not in p["properties"]
    }
    assert value(samples, "zmon_model_prediction_freq", agent_id="", class_name="a b") == written["a_b"]
    names = [(s.name, tuple(sorted(s.labels.items()))) for s in samples]
    assert len(set(names)) == len(names), "each series once"


def test_series_are_bounded_rollups_first(collector: Collector) -> None:
    samples = scrape(collector, series=7)
    shown = [s for s in samples if s.name.startswith("zmon_model_")]
    assert len(shown) == 7
    assert all(s.labels["agent_id"] == "" for s in shown)
    assert value(samples, "zmon_series_left_out") > 50
    assert not [s for s in scrape(collector, series=0) if s.name.startswith("zmon_model_")]


def test_stale_series_disappear(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(prometheus.time, "monotonic", lambda: now[0])
    newest = NewestReports()
    for sequence, start, version in ((1, 0, "1"), (2, 60, "2"), (3, 0, "2")):
        newest.record(Report(sequence, "m", version, Window(start, start + 60), [Point(None, Value("accuracy", 0.5))]))
    assert {(r.version, r.window.start) for r in newest.reports()} == {("1", 0), ("2", 60)}
    now[0] += 500
    newest.record(Report(4, "m", "2", Window(120, 180), []))
    now[0] += 200
    assert [r.version for r in newest.reports()] == ["2"]


def test_two_reports_of_a_window_are_one_and_each_counts_once() -> None:
    def report(sequence: int, *values: Value) -> Report:
        return Report(sequence, "m", "", Window(0, 60), [Point("pod", value) for value in values])

    first, second = report(1, Value("accuracy", 0.5), Value("rows_late", 2)), report(2, Value("rows_late", 3))
    for order in ((first, first, second, first, second), (second, second, first)):
        newest = NewestReports()
        for each in order:
            newest.record(each)
        (shown,) = newest.reports()
        assert {point.value.what: point.value.value for point in shown.points} == {"accuracy": 0.5, "rows_late": 5}


def test_models_share_the_room_for_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "POINTS", 1000)
    newest = NewestReports()
    for start in (0, 60):
        for model in range(100):
            points = [Point("pod", Value("feature_value", 1.0, feat_name=f"f{i}")) for i in range(50)]
            points.append(Point(None, Value("accuracy", 0.5)))
            newest.record(Report(1 + model + start, f"m{model}", "", Window(start, start + 60), points))
    kept = newest.reports()
    assert len(kept) == 100
    assert all(report.points[0].value.what == "accuracy" for report in kept), "rollups first"
    assert sum(len(report.points) for report in kept) == 1000
    assert newest.left_out == 100 * 51 - 1000
    shown = exposition(HealthReport(), kept, 700, newest.left_out).decode()
    (left_out,) = [line for line in shown.splitlines() if line.startswith("zmon_series_left_out ")]
    assert float(left_out.split()[1]) == 100 * 51 - 700


def test_a_metric_that_fails_and_a_plugin_that_cannot_be_used_show(collect: Callable[..., Collector]) -> None:
    class Broken:
        def register_metrics(self, register: Any, options: Any) -> None: ...

    running = collect(plugins={"odd": Broken()}, folder="second")
    running.service.registry._quarantine("odd", "no good")
    samples = scrape(running)
    assert value(samples, "zmon_plugin_quarantined", plugin="odd") == 1
    assert value(samples, "zmon_problems") == 1
    assert value(samples, "zmon_metric_ok", metric="confidence") == 1


# --- the dashboard ------------------------------------------------------------------------------------------------


def queries() -> Iterator[str]:
    overview = json.loads(DASHBOARD.read_text())
    for panel in overview["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for variable in overview["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


SELECTOR = re.compile(r"\b(zmon_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"')


def matching(samples: list[Sample], name: str, matchers: str) -> list[Sample]:
    found = [s for s in samples if s.name == name]
    for label, operator, text in MATCHER.findall(matchers or ""):
        assert all(label in s.labels for s in found), f"{name} has no label {label}"
        if operator == "=~":
            assert text.startswith("$")
        else:
            found = [s for s in found if (s.labels[label] == text) == (operator == "=")]
    return found


def test_every_query_of_the_dashboard_finds_something(collector: Collector) -> None:
    samples = scrape(collector)
    asked = list(queries())
    assert len(asked) > 20
    for query in asked:
        selectors = SELECTOR.findall(query)
        assert selectors, query
        for name, matchers in selectors:
            assert matching(samples, name, matchers), f"{query}: nothing is exposed for it"


def test_the_dashboard_is_one() -> None:
    overview = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in overview["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in overview["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", []):
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in (*prometheus.NAMES, "sink", "metric")
