"""What `zmon validate` counts and refuses: the estimate is what a window emits, and a quota is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli import quota as cli_quota
from zmon_collector.cli import validate
from zmon_collector.config import Config, parse
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.config.series_selection import SeriesSelection
from zmon_collector.plugins import Registry

from tests.collector.config.test_series_selection import METRICS
from tests.support.tables import START, mixed
from zmon.contract import Report
from zmon.errors import ConfigurationError

EXPECT = {"agents": 2, "features": 19, "classes": 3, "categorical": 10, "categories": 4, "segments": 0}


class Api:
    """A sink with a quota."""

    name = "api"
    samples_per_second = 2000
    agents = "health"

    def open(self) -> None: ...
    def write(self, report: Report) -> None: ...
    def close(self) -> None: ...


def load(selection: SeriesSelection, **expect: int) -> cli_quota.SampleLoad:
    policy = ModelPolicy(Config(), "m")
    return cli_quota.load(
        list(METRICS.values()), selection, {**EXPECT, **expect}, lambda metric: policy.options(metric.name, metric.name)
    )


@pytest.mark.parametrize("preset", ["minimal", "default", "full"])
def test_the_estimate_is_near_what_a_window_emits_and_not_below(preset: str, collect: Any) -> None:
    rows, frame = mixed(400, 2)
    frame = frame.drop(columns=["essay", "code"])
    collector = collect(config=parse({"metrics": {"preset": preset, "segment_preset": preset}}))
    with collector.publisher("m", classes=rows.classes, agent_id="a") as publisher:
        zones = np.random.default_rng(0).choice(["east", "west"], rows.n).tolist()
        publisher.publish(
            rows.probabilities, frame, np.arange(rows.n) % 3, timestamps=START + 1, segments={"zone": zones}
        )
        assert publisher.flush(60)
    collector.stop()
    points = [point for point in collector.points() if "agent_id" not in point["properties"]]
    # A column has 2 to 5 categories.
    estimate = load(SeriesSelection(preset, preset), features=18, categorical=9, categories=3, segments=2).rollup
    assert len(points) <= estimate + 9 * 2 * 2
    assert len(points) >= 0.75 * estimate


def test_features_and_agents_by_default_fit_a_vendors_quota() -> None:
    found = load(SeriesSelection(), features=784, categorical=0, classes=10)
    assert 784 * 10 < found.rollup < 784 * 10 + 200
    assert found.health < 30
    assert found.total(50, "health") < 2000 * 60 / 10
    assert found.total(50, "all") > 2000 * 60


def test_a_reference_adds_its_drift() -> None:
    without, measured = (load(SeriesSelection(), features=784, classes=10, reference=each) for each in (0, 1))
    assert 784 < measured.rollup - without.rollup < 784 + 30
    assert measured.health == without.health
    assert ModelPolicy(parse({"models": {"a": {"reference": "a.zmon"}}}), "a").expected["reference"] == 1
    assert ModelPolicy(parse({}), "a").expected["reference"] == 0


def test_selections_lower_the_estimate() -> None:
    whole = load(SeriesSelection("full"), classes=10).rollup
    assert load(SeriesSelection("full", classes=("a", "b")), classes=10).rollup < whole
    assert load(SeriesSelection("full", features=("x",))).rollup < whole
    assert load(SeriesSelection("full", stats=("mean",))).rollup < whole
    assert load(SeriesSelection("full", drop=("*",))).rollup == 0
    assert load(SeriesSelection("minimal", add=("mcc",))).rollup == load(SeriesSelection("minimal")).rollup + 1
    assert load(SeriesSelection(), segments=5).rollup > load(SeriesSelection()).rollup
    assert load(SeriesSelection(), segments=500).rollup == load(SeriesSelection(), segments=1000).rollup


def test_a_regression_has_its_own_series() -> None:
    found = load(SeriesSelection("minimal"), classes=0, features=0)
    assert found.rollup == 6 + 3 + 2 + 1  # rows; prediction_value; mae and rmse; replica_stands_out


@pytest.mark.parametrize(
    ("table", "quota"),
    [
        ({}, ("health", 2000)),
        ({"agents": "all"}, ("all", 2000)),
        ({"samples_per_second": 50}, ("health", 50)),
    ],
)
def test_a_sinks_table_wins_over_its_own_quota(table: Any, quota: Any) -> None:
    assert cli_quota.quota(Api(), table) == quota


def test_a_sink_without_a_quota_sends_everything() -> None:
    sink = Api()
    sink.samples_per_second = None  # type: ignore[assignment]
    sink.agents = "all"
    assert cli_quota.quota(sink, {}) == ("all", None)


# --- the command --------------------------------------------------------------------------------------------------


def run(path: Path, text: str) -> tuple[int, str]:
    path.write_text(text)
    result = CliRunner().invoke(validate.validate, [str(path)])
    if isinstance(result.exception, ConfigurationError):
        return 2, str(result.exception)
    return result.exit_code, result.output


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry in which the sink `api` is registered."""
    inner = validate.load_quietly

    def loaded(config: Config) -> Registry:
        kept = {name: table for name, table in config.sinks.items() if name != "api"}
        registry = inner(Config(config.collector, config.metrics, config.limits, config.models, config.plugins, kept))
        registry.sinks["api"] = Api()
        return registry

    monkeypatch.setattr(validate, "load_quietly", loaded)


MODEL = "[models.digits.expect]\nagents = 50\nfeatures = 784\nclasses = 10\n"


def test_it_prints_what_a_window_emits_per_sink(tmp_path: Path, api: None) -> None:
    code, output = run(tmp_path / "zmon.toml", MODEL + "[sinks.api]\n[sinks.anodot_file]\n")
    assert code == 0
    assert "digits: windows of 60 s, expecting agents 50, features 784, classes 10" in output
    assert "api: " in output
    assert "agents = health; quota 2,000/s" in output
    assert "anodot_file: " in output
    assert "agents = all; no quota" in output


def test_it_refuses_more_than_a_quota_carries(tmp_path: Path, api: None) -> None:
    code, output = run(tmp_path / "zmon.toml", MODEL + '[sinks.api]\nagents = "all"\n')
    assert code == 2
    assert "sink 'api': a window of 'digits' emits up to" in output
    assert "carry 120,000 in 60 s" in output
    assert 'agents = "health"' in output
    assert "[models.digits]" in output
    code, output = run(
        tmp_path / "zmon.toml", MODEL + '[models.digits]\nstats = ["mean"]\n[sinks.api]\nagents = "all"\n'
    )
    assert code == 2, "a table stands twice"
    narrow = MODEL.replace("[models.digits.expect]", '[models.digits]\npreset = "minimal"\n[models.digits.expect]')
    assert run(tmp_path / "zmon.toml", narrow + '[sinks.api]\nagents = "all"\n')[0] == 0


def test_models_share_a_sinks_quota(tmp_path: Path, api: None) -> None:
    models = "".join(MODEL.replace("digits", f"m{i}") for i in range(20))
    code, output = run(tmp_path / "zmon.toml", models + "[sinks.api]\n")
    assert code == 2
    assert "20 models together" in output


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[metrics]\nadd = ["mccc"]\n', "[metrics] add, drop: 'mccc' matches no series"),
        ('[models.a]\ndrop = ["feature_value:q42"]\n', "[models.a] add, drop: 'feature_value:q42'"),
        ("[metrics.expect]\nagent = 5\n", "unknown key 'agent'"),
        ("[models.a.expect]\nagents = -5\n", "not a whole number"),
    ],
)
def test_wrong_expectations_are_refused(tmp_path: Path, text: str, error: str) -> None:
    code, output = run(tmp_path / "zmon.toml", text)
    assert code == 2
    assert error in output


def test_without_models_the_common_expectations_hold(tmp_path: Path) -> None:
    code, output = run(tmp_path / "zmon.toml", "[metrics.expect]\nfeatures = 5\n")
    assert code == 0
    assert "any model: windows of 60 s, expecting agents 10, features 5" in output
