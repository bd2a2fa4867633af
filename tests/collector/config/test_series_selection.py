"""What is emitted: presets, and what is added, dropped and narrowed on top of them, per model."""

from __future__ import annotations

from typing import Any

import pytest
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.series_selection import SeriesSelection, unknown
from zmon_collector.plugins import Registry

from zmon.contract import Metric, Value


def metrics() -> dict[str, Metric[Any]]:
    registry = Registry()
    registry.load()
    return {name: state.metric for name, state in registry.metrics.items()}


METRICS = metrics()
ACCURACY = ("performance", Value("accuracy", 1.0))
OF_CLASS = ("performance", Value("accuracy", 1.0, class_name="fraud"))
MCC = ("performance", Value("mcc", 1.0))
MEAN = ("numeric_features", Value("feature_value", 1.0, feat_name="amount", stat="mean"))
Q99 = ("numeric_features", Value("feature_value", 1.0, feat_name="amount", stat="q99"))
MACRO = ("performance", Value("f1", 1.0, stat="macro"))
UNDECLARED = ("performance", Value("something_else", 1.0))
SEGMENT = ("performance", Value("accuracy", 1.0, segment_name="country", segment_value="de"))
SEGMENT_CLASS = ("performance", Value("recall", 1.0, "fraud", segment_name="country", segment_value="de"))
ALL = (ACCURACY, OF_CLASS, MCC, MEAN, Q99, MACRO, UNDECLARED, SEGMENT, SEGMENT_CLASS)


@pytest.mark.parametrize(
    ("table", "emitted"),
    [
        ({"preset": "minimal"}, (ACCURACY, MACRO, UNDECLARED, SEGMENT)),
        ({}, (ACCURACY, OF_CLASS, MEAN, MACRO, UNDECLARED, SEGMENT)),
        ({"preset": "full"}, (ACCURACY, OF_CLASS, MCC, MEAN, Q99, MACRO, UNDECLARED, SEGMENT)),
        ({"preset": "minimal", "segment_preset": "full"}, (ACCURACY, MACRO, UNDECLARED, SEGMENT, SEGMENT_CLASS)),
        ({"preset": "minimal", "add": ["mcc"]}, (ACCURACY, MCC, MACRO, UNDECLARED, SEGMENT)),
        ({"preset": "minimal", "add": ["feature_value:q*"]}, (ACCURACY, Q99, MACRO, UNDECLARED, SEGMENT)),
        ({"drop": ["acc*", "something*"]}, (MEAN, MACRO)),
        ({"drop": ["feature_value:mean"]}, (ACCURACY, OF_CLASS, MACRO, UNDECLARED, SEGMENT)),
        ({"stats": ["q99"]}, (ACCURACY, OF_CLASS, Q99, MACRO, UNDECLARED, SEGMENT)),
        ({"classes": ["ok*"]}, (ACCURACY, MEAN, MACRO, UNDECLARED, SEGMENT)),
        ({"features": ["x_*", "am?unt"]}, (ACCURACY, OF_CLASS, MEAN, MACRO, UNDECLARED, SEGMENT)),
        ({"features": ["x_*"]}, (ACCURACY, OF_CLASS, MACRO, UNDECLARED, SEGMENT)),
    ],
)
def test_what_is_emitted(table: dict[str, Any], emitted: tuple[Any, ...]) -> None:
    for config in (parse({"metrics": table}), parse({"metrics": {"preset": "full"}, "models": {"m": table}})):
        if config.models and "preset" not in table:
            continue
        policy = PolicyStore(config).of("m")
        for _ in range(2):
            assert tuple(each for each in ALL if policy.emits(METRICS[each[0]], each[1])) == emitted


def test_a_model_has_its_own_selection() -> None:
    config = parse({"metrics": {"drop": ["mcc"], "preset": "full"}, "models": {"fraud": {"drop": []}}})
    policies = PolicyStore(config)
    assert policies.of("fraud").emits(METRICS["performance"], MCC[1])
    assert not policies.of("other").emits(METRICS["performance"], MCC[1])


def test_patterns_that_fit_nothing_are_named() -> None:
    selection = SeriesSelection(add=("mccc", "feature_value:q42", "roc_auc:macro"), drop=("rows_*",))
    assert unknown(selection, list(METRICS.values())) == ["mccc", "feature_value:q42"]
