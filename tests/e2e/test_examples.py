"""Every example runs as its README says, and what it publishes arrives."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.collectors import Collector
from tests.support.frameworks import require

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BATCHES = "15"
TABLE = (EXAMPLES / "README.md").read_text()
SCENARIOS = ("good", "inverted", "unbalanced")
SERVED_ELSEWHERE = {"fastapi", "flask"}  # tests/servers
INSTALLED_ELSEWHERE = {
    "metric_plugin",
    "sink_plugin",
    "deploy",
    "grafana",
}  # test_processes.py, test_deploy.py, test_prometheus.py


def run(line: str, collector: Collector, *more: str) -> str:
    """Run an example's command in a process; what it printed."""
    environment = {**os.environ, "ZMON_COLLECTOR": collector.data, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:], *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "zmon" not in done.stderr, done.stderr
    return done.stdout


def readme(example: str) -> str:
    """The one command of an example's README."""
    lines = re.findall(r"^    (python .*)$", (EXAMPLES / example / "README.md").read_text(), re.M)
    assert len(lines) == 1, f"{example}: one command, not {lines}"
    return str(lines[0])


def test_every_example_is_in_the_table_and_has_a_readme() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(re.findall(r"\]\((\w+)/README\.md\)", TABLE))
    for folder in folders:
        assert (EXAMPLES / folder / "README.md").exists()
        assert folder in SERVED_ELSEWHERE | INSTALLED_ELSEWHERE | {"notebook"} or readme(folder) in TABLE


@pytest.mark.parametrize("example", ["dropin", "regression", "canary", "agents", "tabular"])
def test_a_service(example: str, collect: Callable[..., Collector]) -> None:
    require("pandas")
    collector = collect(window=3600)
    said = run(readme(example), collector, BATCHES)
    collector.stop()
    published = sum(int(rows) for rows in re.findall(r"(\d+)(?: rows| of version 2)", said))
    assert published > 0, said
    assert collector.counts("buffer_count", agent_id=None, segment_name=None) == published
    points = collector.points()
    versions = {point["properties"].get("model_version") for point in points}
    assert versions == ({"1", "2"} if example == "canary" else {None})
    if example == "agents":
        accuracy = {
            point["properties"].get("agent_id"): point["value"]
            for point in points
            if point["properties"]["what"] == "accuracy" and "class_name" not in point["properties"]
        }
        assert accuracy["replica-2"] < accuracy[None] < accuracy["replica-0"]
    if example == "dropin":
        names = {point["properties"].get("feat_name") for point in points}
        assert {"petal_length_(cm)", "sepal_width_(cm)"} <= names, names
        assert {"setosa", "virginica"} <= {point["properties"].get("class_name") for point in points}
    if example == "tabular":
        mixed_columns_and_segments(points, published)


def mixed_columns_and_segments(points: list[dict[str, Any]], rows: int) -> None:
    """What the rollup says of each kind of column, of gaps, and of each channel."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for point in points:
        names = point["properties"]
        if "agent_id" not in names:
            key = tuple(names[name] for name in ("feat_name", "category", "segment_value", "stat") if name in names)
            found.setdefault(names["what"], {})[key] = point["value"]
    assert found["feature_value"]["amount", "mean"] > 1000
    assert found["feature_freq"]["returning", "True"] == pytest.approx(0.4, abs=0.15)
    assert found["feature_freq"]["employment", "employed"] > 0.4
    assert found["feature_missing_freq"]["income",] == pytest.approx(0.15, abs=0.1)
    assert found["feature_missing_freq"]["employment",] == pytest.approx(0.1, abs=0.1)
    assert found["feature_missing_freq"]["amount",] == 0
    channels = ("app", "web", "branch")
    assert sum(found["buffer_count"][channel,] for channel in channels) == rows
    assert all(found["accuracy"][channel,] > 0.5 for channel in channels), found["accuracy"]


def test_the_api_sink_against_the_stand_in() -> None:
    """It has a collector and a target of its own."""
    done = subprocess.run(
        [sys.executable, *shlex.split(readme("anodot"))[1:], BATCHES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "status 503" in done.stderr, "the sink says that it tries again"
    rows, requests, accepted, refused = (
        int(re.search(pattern, done.stdout)[1])  # type: ignore[index]
        for pattern in (r"(\d+) rows", r"(\d+) requests", r"(\d+) samples", r"(\d+) refused")
    )
    assert requests >= 2
    assert refused == 0 < accepted
    counted = re.findall(r"'buffer_count'.*'value': (\d+)", done.stdout)
    assert sum(map(int, counted)) == rows > 0, done.stdout


def test_the_batch_job(collect: Callable[..., Collector]) -> None:
    require("pandas")
    collector = collect(window=3600)
    said = run(readme("batch"), collector)
    collector.stop()
    assert said == "269 rows published, 269 acknowledged\n"
    assert collector.counts("buffer_count", agent_id="nightly") == 269
    assert len(collector.files()) in (12, 13), "an hour each, half a day long"


def test_labels_that_come_later(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    said = run(readme("late_labels"), collector, BATCHES)
    collector.stop()
    published, labels = (int(re.search(rf"(\d+) {what} published", said)[1]) for what in ("rows", "labels"))  # type: ignore[index]
    assert labels == published + 11
    assert collector.counts("late_label_count", agent_id=None, reason="joined") == published
    assert collector.counts("late_label_count", agent_id=None, reason="duplicate") == 10
    scores = [p["value"] for p in collector.points() if p["properties"]["what"] == "accuracy"]
    assert min(scores) > 0.8


def test_tensorflow_in_three_scenarios(collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    """One as its README says, the others in this process, which has TensorFlow loaded already."""
    require("tensorflow")
    collector = collect(window=3600)
    monkeypatch.setenv("ZMON_COLLECTOR", collector.data)
    line = readme("tensorflow_digits")
    run(line, collector, BATCHES)
    serve = runpy.run_path(str(EXAMPLES / "tensorflow_digits/serve.py"))
    assert serve["SCENARIOS"] == SCENARIOS
    for scenario in set(SCENARIOS) - set(line.split()):
        serve["main"](scenario, int(BATCHES))
    collector.stop()
    found: dict[tuple[str, str], float] = {}
    for point in collector.points():
        names = point["properties"]
        if names.get("stat", "mean") == "mean" and "agent_id" in names:
            found[names["agent_id"], f"{names['what']} {names.get('class_name', '')}".strip()] = point["value"]
    accuracy = {scenario: found[scenario, "accuracy"] for scenario in SCENARIOS}
    assert accuracy["inverted"] < accuracy["unbalanced"] < accuracy["good"]
    assert found["inverted", "accuracy"] < 0.3 < 0.85 < found["good", "accuracy"]

    def odd(scenario: str) -> float:
        return sum(found[scenario, f"prediction_freq {digit}"] for digit in (1, 3, 5, 7, 9))

    assert odd("unbalanced") > odd("good") + 0.1


def test_the_notebook(collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    require("pandas")
    collector = collect(window=3600)
    monkeypatch.setenv("ZMON_COLLECTOR", collector.data)
    cells = json.loads((EXAMPLES / "notebook/watch.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for source in (*code[:2], *code[1:]):  # the second one is run twice, as people do
        exec(compile(source, "watch.ipynb", "exec"), names)
    assert names["publisher"].stats.published == 50
    collector.stop()
    assert collector.counts("buffer_count", agent_id="notebook") == 50
