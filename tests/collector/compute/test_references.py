"""Reference profiles in a real collector: from a file, learned, swapped by reload, refused when they do not fit."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.config import Config, parse
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.config.sections import ModelSection, WebSection

import zmon
from tests.support.waiting import until
from zmon.errors import ConfigurationError
from zmon.reference import Profile

START = 1_600_000_020  # a minute in 2020
CLASSES = ["no", "yes"]
FEATURES = ["age", "income"]


def rows(n: int, seed: int, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.dirichlet((1, 2), n), random.normal(mean, 1, (n, 2))


def profile(features: list[str] = FEATURES) -> Profile:
    random = np.random.default_rng(0)
    p, inputs = rows(5000, 0)
    return zmon.profile(p, inputs, (random.random(5000) < p[:, 1]).astype(int), classes=CLASSES, features=features)


def config(**model: Any) -> Config:
    return replace(Config(web=WebSection(enabled=False)), models={"fraud": ModelSection(**model)})


def serve(collector: Any, windows: dict[int, float], agent: str = "a") -> None:
    """Windows by number, each with the mean of its inputs."""
    with collector.publisher("fraud", agent_id=agent, classes=CLASSES, features=FEATURES) as publisher:
        for number, mean in windows.items():
            publisher.publish(*rows(400, number, mean), timestamps=START + 60 * number)
            assert publisher.flush(60)


def series(collector: Any, what: str, **names: str) -> dict[int, float]:
    """The rollup's values by number of the window."""
    return {
        (point["timestamp"] - START // 60 * 60) // 60: point["value"]
        for point in collector.points()
        if (own := point["properties"])["what"] == what
        and "agent_id" not in own
        and {"stat": "", **own}.items() >= {"stat": "", **names}.items()
    }


def test_drift_against_a_file_and_estimates_beside_it(collect: Any, tmp_path: Path) -> None:
    profile().save(tmp_path / "fraud.zmon")
    collector = collect(config=config(reference=tmp_path / "fraud.zmon"))
    serve(collector, {0: 0.0, 1: 0.0, 2: 2.0, 3: 0.0})
    collector.stop()
    assert series(collector, "drifted_feature_freq") == {0: 0, 1: 0, 2: 1, 3: 0}
    psi = series(collector, "feature_drift", feat_name="age", stat="psi")
    assert psi[2] > 2 and max(psi[0], psi[1], psi[3]) < 0.1
    assert series(collector, "prediction_drifted") == dict.fromkeys(range(4), 0)
    estimated = series(collector, "estimated_accuracy")
    assert set(estimated) == set(range(4))
    assert all(0.6 < value < 0.9 for value in estimated.values())
    names = {point["properties"].get("stat") for point in collector.points()
             if point["properties"]["what"] == "feature_drift"}  # fmt: skip
    assert names == {"psi"}, "the default preset has psi only"


def test_the_first_windows_become_the_reference_and_stay_it_after_a_restart(collect: Any) -> None:
    collector = collect(config=config(reference_windows=3, preset="full"), idle=1.0)
    serve(collector, dict.fromkeys(range(3), 0.0))
    until(lambda: len(collector.files()) == 3, what="the windows that are learned from")
    serve(collector, {3: 0.0, 4: 2.0})
    collector.stop()
    again = collect(config=config(reference_windows=3, preset="full"))
    serve(again, {5: 0.0, 6: 2.0})
    again.stop()
    assert series(again, "drifted_feature_freq") == {3: 0, 4: 1, 5: 0, 6: 1}
    assert series(again, "reference_rows") == dict.fromkeys((3, 4, 5, 6), 1200)


def test_reload_swaps_the_profile_and_refuses_one_that_does_not_fit(collect: Any, tmp_path: Path) -> None:
    path = tmp_path / "fraud.zmon"
    profile().save(path)
    own = config(reference=path)
    collector = collect(config=own, idle=1.0)
    collector.service.reloader.read = lambda: own
    serve(collector, {0: 0.0})
    until(lambda: len(collector.files()) == 1, what="the first window")
    profile(["age", "salary"]).save(path)
    with pytest.raises(ConfigurationError, match="'salary' is missing"):
        collector.service.reloader.reload()
    p, inputs = rows(5000, 0, 2.0)
    zmon.profile(p, inputs, classes=CLASSES, features=FEATURES).save(path)
    collector.service.reloader.reload()
    serve(collector, {1: 0.0, 2: 2.0})
    collector.stop()
    assert series(collector, "drifted_feature_freq") == {0: 0, 1: 1, 2: 0}


def test_a_profile_that_does_not_fit_costs_its_drift_and_says_so_once(
    collect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile(["age", "salary"]).save(tmp_path / "fraud.zmon")
    with caplog.at_level(logging.ERROR, "zmon.collector"):
        collector = collect(config=config(reference=tmp_path / "fraud.zmon"))
        serve(collector, {0: 0.0, 1: 0.0})
        collector.stop()
    said = [record.message for record in caplog.records if "is not used" in record.message]
    assert len(said) == 1 and "'salary' is missing" in said[0] and "'fraud'" in said[0]
    assert series(collector, "drifted_feature_freq") == {}
    assert series(collector, "buffer_count") == {0: 400, 1: 400}
    assert collector.registry.metrics["drift"].errors == 0


def test_a_file_that_is_no_profile_refuses_the_start(collect: Any, tmp_path: Path) -> None:
    path = tmp_path / "fraud.zmon"
    path.write_bytes(b"no profile")
    with pytest.raises(ConfigurationError, match=r"\[models.fraud\] reference: .* is not a reference profile"):
        collect(config=config(reference=path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        collect(config=config(reference=tmp_path / "gone.zmon"))


def test_the_broken_replica_is_named_within_two_windows(collect: Any) -> None:
    collector = collect(config=config())
    publishers = [collector.publisher("fraud", agent_id=f"pod-{i}", classes=CLASSES) for i in range(5)]
    for window in range(4):
        for i, publisher in enumerate(publishers):
            p, _ = rows(300, 10 * window + i)
            publisher.publish(p[:, ::-1] if i == 3 and window >= 2 else p, timestamps=START + 60 * window)
            assert publisher.flush(60)
    for publisher in publishers:
        publisher.close()
    collector.stop()
    named = [
        (point["timestamp"] - START // 60 * 60) // 60
        for point in collector.points()
        if point["properties"]["what"] == "replica_stands_out" and point["value"]
    ]
    who = {point["properties"]["agent_id"] for point in collector.points()
           if point["properties"]["what"] == "replica_stands_out" and point["value"]}  # fmt: skip
    assert named == [2, 3] and who == {"pod-3"}


def test_the_keys_of_the_configuration() -> None:
    found = parse({"metrics": {"reference_windows": 20}, "models": {"a": {"reference": "a.zmon"}}})
    assert "reference_windows" not in ModelPolicy(found, "a").options("reference", "reference")
    assert ModelPolicy(found, "b").options("reference", "reference")["reference_windows"] == 20
    with pytest.raises(ConfigurationError, match="whole number from 0"):
        parse({"metrics": {"reference_windows": -1}})
