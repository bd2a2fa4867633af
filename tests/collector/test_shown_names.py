"""Where texts of peers leave the process: none steers a terminal, forges a line, or becomes markup or a formula.

Names are checked as they arrive. An older folder, a target's answer or a plugin may hold others, so every output is
held to it as well; the log is in test_log_lines.py, and the page itself in tests/collector/dashboard.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from zmon_collector.alerts.notifier import message_of, request_body
from zmon_collector.alerts.rules import AlertEvent
from zmon_collector.dashboard.html_report import html_of
from zmon_collector.dashboard.prometheus import exposition
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.web.exports import csv_pieces
from zmon_collector.health import HealthReport
from zmon_plugins.sinks.console import Console

from tests.support.frameworks import require
from zmon import Point, Report, Value, Window, notebook

HOSTILE = {
    "an escape sequence": "\x1b[2Jm",
    "a line": "m\n2026-01-01 00:00:00 ERROR zmon.collector: forged",
    "another direction": "m\u202egpj.exe",
    "an element": "<img src=x onerror=alert(1)>",
    "an attribute": "\" onmouseover=\"alert(1)\" x='",
    "the end of a script": "</script><script>alert(1)</script>",
    "a mention": "<!channel> <https://evil.example|click>",
    "a formula": "=HYPERLINK(\"https://evil.example\")",
    "a label": 'm"} 1\nzmon_up 0\n{x="',
    "markdown": "[click](javascript:alert(1)) `code` **bold**",
}  # fmt: skip
hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def report_of(name: str) -> Report:
    values = [
        Value("buffer_count", 3.0),
        Value("feature_value", 1.0, feat_name=name, stat="mean"),
        Value("feature_count", 2.0, feat_name=name, category=name),
        Value("prediction_count", 2.0, class_name=name),
        Value("rows_rejected", 1.0, reason=name),
    ]
    points = [Point(agent, value) for agent in (None, name) for value in values]
    return Report(1, name, name, Window(0, 60), points, {})


@hostile
def test_the_console_prints_a_line_for_each_point(name: str) -> None:
    out = io.StringIO()
    Console(agents=True, stream=out).write(report_of(name))
    lines = out.getvalue().split("\n")[:-1]
    assert len(lines) == len(report_of(name).points)
    assert all(line.isprintable() for line in lines)


@hostile
def test_a_notification_has_no_markup_of_a_name(name: str) -> None:
    alert = {
        "id": 1,
        "model": name,
        "version": name,
        "severity": "warning",
        "text": f"accuracy of {name} fell",
        "why": name,
    }
    message = message_of(AlertEvent("opened", alert), "store")
    said = request_body("slack", message, "http://page:8787")["text"]
    own = said.removesuffix(said[said.rindex(" <http://page:8787/") :])
    assert said.isprintable()
    assert "<" not in own
    assert ">" not in own
    assert request_body("webhook", message, "")["text"].isprintable()


@hostile
def test_a_table_has_a_line_for_each_point_and_no_formula(name: str) -> None:
    ts = TimeSeries({"model": name, "what": "accuracy"}, np.array([60]), np.array([0.5]))
    header, row = csv.reader(io.StringIO(b"".join(csv_pieces([ts])).decode(), newline=""))
    assert len(row) == len(header)
    assert not row[header.index("model")].startswith(("=", "+", "-", "@", "\t", "\n"))


@hostile
def test_labels_of_counters_and_series_are_escaped(name: str) -> None:
    health = HealthReport(counters={f"rejected{{{name}}}": 3})
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(exposition(health, [report_of(name)]).decode()):
        found.setdefault(family.name, []).extend(family.samples)
    assert "zmon_up" in found or found
    assert all(sample.value != 0 or sample.name != "zmon_up" for sample in found.get("zmon_up", []))
    labels = {value for samples in found.values() for sample in samples for value in sample.labels.values()}
    assert name in labels


@hostile
def test_the_report_and_the_notebook_show_names_as_text(name: str) -> None:
    pandas = require("pandas")
    require("plotly")
    measures: list[dict[str, str]] = [
        {"what": "buffer_count"},
        {"what": "feature_value", "feat_name": name, "stat": "mean"},
        {"what": "prediction_count", "class_name": name},
        {"what": "prediction_freq", "class_name": name},
        {"what": "max_prediction_proba", "stat": "mean"},
        {"what": "rows_rejected", "reason": name, "agent_id": name},
    ]
    of_model = {"model": name, "model_version": name}
    times, values = np.array([60, 120]), np.array([0.5, 0.6])
    html = html_of([TimeSeries({**of_model, **names}, times, values) for names in measures], name)
    for markup in ("<img src=x", "<script>alert", '" onmouseover="alert', "<!channel>"):
        assert markup not in html
    keys = dict.fromkeys(("agent_id", "feat_name", "class_name", "reason", "stat"), "")
    rows = [
        {**keys, **of_model, **names, "time": pandas.Timestamp(start, unit="s", tz="UTC"), "value": 0.5}
        for names in measures
        for start in (60, 120)
    ]
    view = notebook.ModelView(pandas.DataFrame(rows))
    texts = [text for panel in view for text in _texts(figure_of(view, panel))]
    assert texts
    assert not [text for text in texts if "<img" in text or "<script" in text or "<!channel" in text]


def figure_of(view: notebook.ModelView, panel: str) -> Any:
    figure = view.figure(panel)
    return {} if figure is None else figure.to_dict()


def _texts(value: Any) -> list[str]:
    """Return all strings in plain data."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
