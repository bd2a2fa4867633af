"""zmon.notebook, and the notebook of the examples on every kind of written files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_plugins.sinks.anodot_file import AnodotFile

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.reports import window
from zmon import MissingExtraError, Point, Report, Value, Window, notebook

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "examples/analysis.ipynb"
CITY = {"Rome": (0.6, 0.1), "Oslo": (0.4, 0.9)}  # shares before and after


def write(folder: Path, reports: Iterable[Report]) -> Path:
    sink = AnodotFile(folder / "anodot", 1e9)
    sink.open()
    for report in reports:
        sink.write(report)
    return folder


def with_values(reports: Iterable[Report], *values: Any) -> list[Report]:
    """The reports with further values of the rollup; each value is given for a window's number."""
    return [
        Report(r.sequence, r.model, r.version, r.window, [*r.points, *(Point(None, make(i)) for make in values)])
        for i, r in enumerate(reports)
    ]


def windows(**names: Any) -> list[Report]:
    return [window(i + 1, 1_700_000_000 + 10 * i, confidence=0.4 if i > 3 else 0.9, **names) for i in range(6)]


def city(i: int, category: str) -> Value:
    return Value("feature_freq", CITY[category][i > 3], feat_name="city", category=category)


MIXED = (
    lambda i: Value("feature_drift", 0.9 if i > 3 else 0.0, feat_name="city", stat="psi"),
    lambda i: Value("feature_drift", 0.1, feat_name="age", stat="psi"),
    lambda i: city(i, "Rome"),
    lambda i: city(i, "Oslo"),
)


def regression() -> list[Report]:
    reports = []
    for i in range(6):
        values = [Value(what, 0.5 + i) for what in ("mae", "rmse", "bias", "buffer_count")]
        values += [Value("feature_value", float(i), feat_name="size", stat=stat) for stat in ("mean", "std", "median")]
        start = 1_700_000_000 + 10 * i
        reports.append(Report(i + 1, "price", "", Window(start, start + 10), [Point(None, value) for value in values]))
    return reports


CASES = {
    "numeric": windows(),
    "mixed, a categorical column moved most": with_values(windows(), *MIXED),
    "only categorical": with_values(windows(features=()), *MIXED[::2], MIXED[3]),
    "a column that moved most without values": with_values(windows(features=()), MIXED[0]),
    "no features": windows(features=()),
    "regression": regression(),
    "one window": windows()[:1],
    "several models and versions": [
        Report(10 * k + r.sequence, model, version, r.window, r.points)
        for k, (model, version) in enumerate((("a", ""), ("a", "2"), ("b", "")))
        for r in windows()
    ],
    "an empty folder": [],
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures that were shown."""
    shown: list[Any] = []
    monkeypatch.setattr(require("plotly.graph_objects").Figure, "show", lambda figure: shown.append(figure))
    require("pandas")
    return shown


@pytest.mark.parametrize("case", CASES)
def test_the_notebook_runs_on(case: str, tmp_path: Path, figures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_DATA", str(write(tmp_path, CASES[case])))
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    titles = [figure.layout.title.text for figure in figures]
    assert bool(titles) == bool(CASES[case])
    moved = [title for title in titles if "which moved most" in title]
    if case.startswith("mixed") or case == "only categorical":
        assert moved == ["city, which moved most (0.90)"]
        (chart,) = (figure for figure in figures if figure.layout.title.text == moved[0])
        assert {trace.name: list(trace.y) for trace in chart.data} == {
            name: [before] * 4 + [after] * 2 for name, (before, after) in CITY.items()
        }
    else:
        assert len(moved) == (case in ("numeric", "regression", "one window", "several models and versions"))


def test_a_view_is_of_one_model_and_version(tmp_path: Path, figures: list[Any]) -> None:
    points = zmon.read_points(write(tmp_path, CASES["several models and versions"]))
    view = notebook.ModelView(points)
    assert (view.model, view.version, set(view.points.model)) == ("a", "", {"a"})
    view = notebook.ModelView(points, "a", version="2")
    assert set(view.points.model_version) == {"2"}
    assert [trace.name for trace in view.figure("version_accuracy").data] == ["no version", "2"]
    assert {"classes", "confidence", "replica_rows"} <= set(view)
    assert view.figure("calibration") is None
    assert view.feature("nothing") is None
    with pytest.raises(KeyError):
        view.figure("nothing")
    with pytest.raises(ValueError, match=r"no points of 'b' '2'; the table has 'a' '', 'a' '2', 'b' ''"):
        notebook.ModelView(points, "b", version="2")


def test_an_empty_panel_says_why(tmp_path: Path, figures: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    view = notebook.ModelView(zmon.read_points(write(tmp_path, [])))
    view.show("movement")
    assert figures == []
    assert "No inputs yet" in capsys.readouterr().out
    assert view.movers() == []


def test_a_feature_is_drawn_from_all_rows_not_from_a_segment(tmp_path: Path, figures: list[Any]) -> None:
    def of_segment(i: int) -> Value:
        return Value("feature_value", 99.0, feat_name="age", stat="mean", segment_name="land", segment_value="at")

    view = notebook.ModelView(zmon.read_points(write(tmp_path, with_values(windows(), of_segment))))
    mean = next(trace for trace in view.feature("age").data if trace.name == "mean")
    assert set(mean.y) == {0.0}


def test_points_of_a_collector_with_mixed_columns(collect: Any, tmp_path: Path, figures: list[Any]) -> None:
    """From publish to the chart of a categorical column, with the names that the collector writes."""
    collector: Collector = collect(window=60)
    rng = np.random.default_rng(0)
    city = np.where(rng.random(200) < 0.7, "Rome", "Oslo")
    inputs = require("pandas").DataFrame({"age": rng.normal(40, 9, 200), "city": city})
    with collector.publisher("m", classes=["no", "yes"]) as publisher:
        publisher.publish(rng.dirichlet([1, 1], 200), inputs=inputs, timestamps=1_700_000_040.0)
        assert publisher.flush(60)
    collector.stop()
    view = notebook.ModelView(zmon.read_points(collector.folder))
    shares = {trace.name: trace.y[0] for trace in view.feature("city").data}
    assert shares == {name: pytest.approx((city == name).mean()) for name in ("Rome", "Oslo")}
    assert "median" in {trace.name for trace in view.feature("age").data}


def test_without_the_collector_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmon_collector.jobs.demo.run", None)
    with pytest.raises(MissingExtraError, match=r'pip install "zmon-agent\[notebook\]"'):
        notebook.demo()


def test_the_demo_is_run_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    monkeypatch.setattr("zmon_collector.jobs.demo.run.run_demo", lambda *given: runs.append(given))
    assert notebook.demo(tmp_path / "demo") == tmp_path / "demo"
    ((plan, folder),) = runs
    assert (plan.windows, plan.inverted, plan.replay, folder) == (30, range(12, 22), True, tmp_path / "demo")


def test_the_notebook_runs_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = require("nbformat"), require("nbclient")
    monkeypatch.setenv("ZMON_DATA", str(write(tmp_path, CASES["numeric"])))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    done = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown_figures = {
        cell["id"]: output["data"]["application/vnd.plotly.v1+json"]
        for cell in done.cells
        for output in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    }
    assert {"classes", "rows", "movement", "movers", "confidence", "quality", "by-class"} <= shown_figures.keys()
    mean = next(t for t in shown_figures["confidence"]["data"] if t["name"] == "mean confidence")["y"]
    assert mean == [0.9] * 4 + [0.4] * 2
