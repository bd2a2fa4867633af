"""Predictions of a regression, and their errors over the rows that have a target.

================= ======= ==================================================== =================================
series            keys    definition (e = prediction − target, t the target)   left out when
================= ======= ==================================================== =================================
prediction_value  stat    statistics over all rows                             no rows
target_value      stat    statistics over the rows with a target               no targets
mae               –       mean |e|                                             no targets
rmse              –       √ mean e²                                            no targets
bias              –       mean e                                               no targets
r2                –       1 − Σe² / Σ(t − mean t)²                             the targets do not vary
mape              –       mean |e / t| over targets that are not 0             no such targets
================= ======= ==================================================== =================================

mae, rmse and mape (a share, not per cent) are at least 0, r2 at most 1. Definitions: scikit-learn's. Moments and
extremes are over all rows, quantiles over the window's row sample. A target that is not a finite number is ignored.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(task="regression")
>>> ctx = Context("prices", "", None, schema, Window(0, 60))
>>> batch = Batch(schema, {"predictions": np.array([2.0, 4.0, 9.0]), "labels": np.array([1.0, 5.0, np.nan])})
>>> metric = Regression()
>>> acc = metric.update(metric.create(ctx), batch, ctx)
>>> [(v.what, round(v.value, 3)) for v in metric.result(acc, ctx) if not v.stat]
[('mae', 1.0), ('rmse', 1.0), ('bias', 0.0), ('r2', 0.75), ('mape', 0.6)]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import stats

Parts = dict[str, stats.Moments]
_VALUES = "statistics over all rows"
_TARGETS = "statistics over the rows with a target"


class Regression:
    """Scores of a regression. Accumulator: moments of predictions, of (target, e, |e|), and of |e / t|."""

    name = "regression"
    task = "regression"
    late_labels = True  # late targets are scored, too
    needs = frozenset({"predictions"})
    series = (
        Series("prediction_value", _VALUES, stats=("mean", "median", "iqr"), preset="minimal"),
        Series("prediction_value", _VALUES, stats=("std", "range", "q25", "q50", "q75")),
        Series("prediction_value", _VALUES, stats=stats.FURTHER, preset="full"),
        Series("target_value", _TARGETS, stats=stats.CLASSIC),
        Series("target_value", _TARGETS, stats=stats.FURTHER, preset="full"),
        Series("mae", "mean |prediction − target|", preset="minimal"),
        Series("rmse", "√ mean (prediction − target)²", preset="minimal"),
        Series("bias", "mean (prediction − target)"),
        Series("r2", "1 − Σe² / Σ(t − mean t)²"),
        Series("mape", "mean |e / t| over targets that are not 0"),
    )

    def create(self, ctx: Context) -> Parts:
        return {"predictions": stats.empty(1), "pairs": stats.empty(3), "shares": stats.empty(1)}

    def update(self, acc: Parts, batch: Batch, ctx: Context) -> Parts:
        predictions = batch.predictions.astype(np.float64)
        new = {}
        if "label_outcomes" not in batch.columns:  # rows of the window, not late targets
            new["predictions"] = stats.of(predictions[:, np.newaxis])
        if "labels" in batch.columns:
            target = batch.labels.astype(np.float64)
            finite = np.flatnonzero(np.isfinite(target))
            target = target[finite]
            with np.errstate(over="ignore"):  # infinite results are left out
                error = predictions[finite] - target
                varied = target != 0
                share = np.abs(error[varied] / target[varied])
            if len(finite):
                new["pairs"] = stats.of(np.column_stack([target, error, np.abs(error)]))
            if len(share):
                new["shares"] = stats.of(share[:, np.newaxis])
        return {part: stats.merge(acc[part], new[part]) if part in new else acc[part] for part in acc}

    def merge(self, left: Parts, right: Parts) -> Parts:
        return {part: stats.merge(left[part], right[part]) for part in left}

    def result(self, acc: Parts, ctx: Context) -> Iterable[Value]:
        for what, part, column in (
            ("prediction_value", "predictions", "predictions"),
            ("target_value", "pairs", "labels"),
        ):
            quantiles: dict[str, Array] = {}
            if ctx.sample is not None and column in ctx.sample.columns:
                quantiles = stats.quantiles(ctx.sample.raw()[column].astype(np.float64)[:, np.newaxis])
            first = {name: values[:1] for name, values in acc[part].items()}
            for stat, value in stats.describe(first, quantiles)[0]:
                yield Value(what, value, stat=stat)
        yield from (value for value in _scores(acc) if math.isfinite(value.value))


def _scores(acc: Parts) -> Iterator[Value]:
    n = int(acc["pairs"]["n"][0])
    if not n:
        return
    _, bias, mae = acc["pairs"]["mean"].tolist()
    target_m2, error_m2, _ = acc["pairs"]["m2"].tolist()
    with np.errstate(over="ignore"):
        square = error_m2 / n + bias * bias
    yield Value("mae", mae)
    yield Value("rmse", math.sqrt(square))
    yield Value("bias", bias)
    if acc["pairs"]["min"][0] < acc["pairs"]["max"][0] and target_m2 > 0:
        yield Value("r2", 1.0 - n * square / target_m2)
    if acc["shares"]["n"][0]:
        yield Value("mape", float(acc["shares"]["mean"][0]))


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Regression())
