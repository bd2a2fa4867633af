"""A plugin's series appear on the page of their model by themselves, and in the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import cli
from zmon_collector.config import Config
from zmon_collector.config.sections import WebSection

from tests.support.frameworks import require
from tests.support.pages import get, shown
from tests.support.reports import window
from tests.support.waiting import until
from zmon import Context, Point, Series, Value
from zmon.hooks import hookimpl

PAGE = Config(web=WebSection(bind="127.0.0.1:0"))


class Spread:
    """The width of each class's probabilities, and the rows it saw."""

    name = "spread"
    needs = frozenset({"probabilities"})
    series = (Series("class_width", "largest less smallest probability of a class", ("class_name",)),)

    def create(self, ctx: Context) -> dict[str, Any]:
        return {"low": np.inf, "high": -np.inf, "rows": 0}

    def update(self, acc: dict[str, Any], batch: Any, ctx: Context) -> dict[str, Any]:
        p = batch.probabilities
        return self.merge(acc, {"low": p.min(axis=0), "high": p.max(axis=0), "rows": len(p)})

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return {
            "low": np.minimum(left["low"], right["low"]),
            "high": np.maximum(left["high"], right["high"]),
            "rows": left["rows"] + right["rows"],
        }

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        yield Value("seen_rows", acc["rows"])  # not declared
        for name, width in zip(ctx.schema.classes, np.atleast_1d(acc["high"] - acc["low"]), strict=False):
            yield Value("class_width", float(width), class_name=name)


class Plugin:
    @hookimpl
    def register_metrics(self, register: Any, options: Any) -> None:
        register(Spread())


def panels(collector: Any, **params: str) -> dict[str, Any]:
    url = f"{collector.service.site.url}api/v1/view"
    view = get(url, params={"view": "model", "model": "m", "range": "all", **params}).json()
    return {panel["id"]: panel for panel in view["panels"] if panel["id"].startswith("plugin")}


def test_a_plugins_series_show_on_the_page_and_in_the_report(collect: Any, tmp_path: Path) -> None:
    start = 1_700_000_040
    collector = collect(plugins={"widths": Plugin()}, config=PAGE, window=60)
    rng = np.random.default_rng(0)
    for agent in ("a", "b"):
        with collector.publisher("m", classes=["no", "yes"], agent_id=agent) as publisher:
            publisher.publish(rng.dirichlet([1, 1], 50), timestamps=start + 1.0)
            assert publisher.flush(60)
    collector.close_windows()
    charts = until(lambda: panels(collector), what="the charts of the plugin")
    assert list(charts) == ["plugin:class_width", "plugin:seen_rows"]
    width = charts["plugin:class_width"]
    assert width["title"] == "spread: class_width"
    assert width["note"] == "largest less smallest probability of a class"
    assert [trace["name"] for trace in width["figure"]["data"]] == ["no", "yes"]
    assert charts["plugin:seen_rows"]["title"] == "seen_rows"
    assert charts["plugin:seen_rows"]["figure"]["data"][0]["y"] == [100]
    assert panels(collector, agent="b")["plugin:seen_rows"]["figure"]["data"][0]["y"] == [50]
    (past,) = {panel["empty"] for panel in panels(collector, to="1000").values() if panel["figure"] is None}
    assert past.startswith("No values in this range")
    collector.stop()
    require("pandas")
    out = tmp_path / "report.html"
    done = CliRunner().invoke(cli, ["report", str(collector.folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "<h3>class_width</h3><p>Series of a plugin</p>" in out.read_text()


def test_a_measure_too_large_for_a_chart_costs_the_view_nothing(collect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = collect(config=PAGE, window=60)
    for i in range(3):
        report = window(i + 1, 10 * i)
        points = [*report.points, *(Point(None, Value("lift", 1.0, feat_name=f"f{k}")) for k in range(1000))]
        shown(collector, type(report)(report.sequence, "m", "", report.window, points))
    monkeypatch.setattr("zmon_collector.dashboard.history_queries.MOST_VALUES", 2000)
    assert panels(collector)["plugin:lift"]["figure"] is None
    monkeypatch.undo()
    again = panels(collector, to="100")  # another view: the first one is rendered already
    assert len(again["plugin:lift"]["figure"]["data"]) == 10
