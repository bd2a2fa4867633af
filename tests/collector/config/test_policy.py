"""What the configuration says of one model, and the store that a reload swaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.references import References
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore

import zmon
from zmon import Schema
from zmon.errors import ConfigurationError

SCHEMA = Schema(classes=("no", "yes"), features=("age",), kinds=("numeric",))


def save_profile(path: Path, feature: str = "age") -> Path:
    random = np.random.default_rng(0)
    p = random.dirichlet((1, 2), 500)
    labels = (random.random(500) < p[:, 1]).astype(int)
    zmon.profile(p, random.normal(size=(500, 1)), labels, classes=["no", "yes"], features=[feature]).save(path)
    return path


def test_a_policy_is_the_same_object_until_a_reload() -> None:
    policies = PolicyStore(parse({"models": {"fraud": {"window": "10s"}}}))
    before = policies.of("fraud")
    assert policies.of("fraud") is before
    policies.replace(parse({"models": {"fraud": {"window": "20s", "drop": ["mcc"], "sample_rows": 7}}}))
    after = policies.of("fraud")
    assert (before.rules.period, after.rules.period) == (10, 20)
    assert (before.selection.drop, after.selection.drop) == ((), ("mcc",))
    assert after.sample_rows == 7 != before.sample_rows


def test_a_reload_that_is_not_valid_changes_nothing(tmp_path: Path) -> None:
    policies = PolicyStore(parse({}))
    before = policies.of("fraud")
    (tmp_path / "bad.zmon").write_bytes(b"nothing of the kind")
    for name in ("bad.zmon", "absent.zmon"):
        with pytest.raises(ConfigurationError, match=r"\[models.fraud\] reference"):
            policies.replace(parse({"models": {"fraud": {"reference": str(tmp_path / name)}}}))
    other = save_profile(tmp_path / "other.zmon", feature="income")
    with pytest.raises(ConfigurationError, match=r"\[models.fraud\] reference"):
        policies.replace(parse({"models": {"fraud": {"reference": str(other)}}}), [("fraud", SCHEMA)])
    assert policies.of("fraud") is before


def test_the_reference_is_that_of_the_newest_configuration(tmp_path: Path) -> None:
    path = save_profile(tmp_path / "fraud.zmon")
    policies = PolicyStore(parse({"models": {"fraud": {"reference": str(path)}}}))
    references, model = References(policies, MetricMemory()), ("fraud", "1")
    first = references.of(model, SCHEMA)
    assert first is not None and references.of(model, SCHEMA) is first is references.current(model)
    policies.replace(parse({"models": {"fraud": {"reference": str(path)}}}))
    assert references.of(model, SCHEMA) is not first  # read again: the file may have changed
    policies.replace(parse({}))
    assert references.of(model, SCHEMA) is references.current(model) is None


def test_a_forgotten_model_gets_its_policy_anew() -> None:
    policies = PolicyStore(parse({}))
    before = policies.of("fraud")
    policies.forget("fraud")
    policies.forget("never seen")
    assert policies.of("fraud") is not before and policies.of("fraud") == before
