"""Metrics of labels that came later: laws and oracles, and what the others make of such a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zmon_collector.compute.accumulate import StepProgress, accumulate
from zmon_collector.storage import label_join
from zmon_plugins.metrics.late_labels import OUTCOMES, LabelDelay, LateLabelOutcomes

from tests.plugins.oracles import stats
from tests.support.metrics import METRICS
from zmon import Batch, Context, Schema, Window
from zmon.testing import check_metric

SCHEMA = Schema(classes=("no", "yes"))
CTX = Context("m", "", "a", SCHEMA, Window(0, 60))


def late(random: np.random.Generator, rows: int, whole: bool = False) -> Batch:
    p = random.random(rows)
    delays = random.exponential(3600e9, rows)
    return Batch(
        SCHEMA,
        {
            "label_outcomes": np.zeros(rows, dtype=np.int8),
            "probabilities": np.column_stack([1 - p, p]),
            "predictions": (p > 0.5).astype(np.int64),
            "labels": random.integers(0, 2, rows),
            "label_delays": (delays // 60e9 * 60e9 if whole else delays).astype(np.int64),
            "label_own": random.random(rows) < 0.5,
        },
    )


def test_outcomes_have_one_order() -> None:
    assert [OUTCOMES[getattr(label_join, name.upper())] for name in OUTCOMES] == list(OUTCOMES)


@pytest.mark.parametrize("metric", [LateLabelOutcomes(), LabelDelay()], ids=["outcomes", "delay"])
def test_laws(metric: Any) -> None:
    random = np.random.default_rng(1)
    check_metric(metric, [late(random, n) for n in (40, 1, 25)], CTX)
    check_metric(metric, [late(random, 3000) for _ in range(3)], CTX)


@pytest.mark.parametrize(("rows", "tolerance"), [(1, 1e-9), (40, 1e-9), (4000, 1e-9), (20_000, 0.008)])
def test_delays_equal_numpy(rows: int, tolerance: float) -> None:
    batch = late(np.random.default_rng(2), rows)
    metric = LabelDelay()
    found = {v.stat: v.value for v in metric.result(metric.update(metric.create(CTX), batch, CTX), CTX)}
    expected = stats(batch.raw()["label_delays"] / 1e9)
    assert found.keys() == expected.keys()
    for stat, value in expected.items():
        exact = stat in ("mean", "std", "min", "max", "range")
        assert found[stat] == pytest.approx(value, rel=1e-9 if exact else tolerance), stat


def test_only_metrics_of_labels_see_late_ones() -> None:
    seen = accumulate(
        list(METRICS.values()), [late(np.random.default_rng(3), 9)], dict.fromkeys(METRICS, CTX), StepProgress()
    )
    assert set(seen.accumulators) == {"performance", "scores", "calibration", "ranking", "labels"}


def test_counts_of_a_release_with_fewer_outcomes_merge() -> None:
    metric, earlier = LateLabelOutcomes(), np.arange(5)
    now = np.ones(len(OUTCOMES), dtype=np.int64)
    assert (
        metric.merge(earlier.copy(), now).tolist() == metric.merge(now.copy(), earlier).tolist() == [1, 2, 3, 4, 5, 1]
    )
    ctx = Context("m", "", "a", Schema(), Window(0, 60))
    assert [value.value for value in metric.result(earlier, ctx)] == [1, 2, 3, 4]
