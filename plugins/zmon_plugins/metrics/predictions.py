"""Predicted classes, and the model's confidence.

========================== =============== ======================================================= =============
series                     keys            definition (p: a row's probabilities, k classes)        range
========================== =============== ======================================================= =============
prediction_count           class_name      rows with that predicted class: argmax p; binary:       0 …
                                           class 1 when p[1] > threshold
prediction_freq            class_name      prediction_count / rows                                 [0, 1]
max_prediction_proba       stat            max p                                                   [0, 1]
spread12_prediction_proba  stat            highest minus second highest p; 0 on a tie              [0, 1]
prediction_entropy         stat            −Σ p ln p / ln k (Shannon, 1948)                        [0, 1]
class_proba                class_name,     mean of p over the rows                                 [0, 1]
                           stat = mean
========================== =============== ======================================================= =============

Moments and extremes are over all rows, quantiles over the window's row sample. Source of the first four: the earlier
MLWatcher agent.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> batch = Batch(schema, {"probabilities": np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])})
>>> metric = PredictedClasses()
>>> acc = metric.update(metric.create(ctx), batch, ctx)
>>> [(v.what, v.class_name, round(v.value, 3)) for v in metric.result(acc, ctx)]
... # doctest: +NORMALIZE_WHITESPACE
[('prediction_count', 'no', 2), ('prediction_freq', 'no', 0.667),
 ('prediction_count', 'yes', 1), ('prediction_freq', 'yes', 0.333)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import stats

MEASURES = ("max_prediction_proba", "spread12_prediction_proba", "prediction_entropy")
_TINY = np.finfo(np.float64).tiny
_SURE = ("mean", "median", "iqr")
_HIGHEST = "highest probability of each row"
_LEAD = "highest minus second highest probability; 0 on a tie"
_ENTROPY = "−Σ p ln p / ln k of each row"


class PredictedClasses:
    """Counts and shares of the predicted classes. Accumulator: (n_classes,) counts."""

    name = "predicted_classes"
    task = "classification"
    needs = frozenset({"predicted"})
    series = (
        Series("prediction_count", "rows whose predicted class it is", ("class_name",)),
        Series("prediction_freq", "share of the rows whose predicted class it is", ("class_name",), preset="minimal"),
    )

    def create(self, ctx: Context) -> Array:
        return np.zeros(len(ctx.schema.classes), dtype=np.int64)

    def update(self, acc: Array, batch: Batch, ctx: Context) -> Array:
        acc += np.bincount(batch.predicted, minlength=len(acc))
        return acc

    def merge(self, left: Array, right: Array) -> Array:
        left += right
        return left

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        rows = int(acc.sum())
        for name, count in zip(ctx.schema.classes, acc.tolist(), strict=True):
            yield Value("prediction_count", count, class_name=name)
            if rows:
                yield Value("prediction_freq", count / rows, class_name=name)


class Confidence:
    """The model's confidence. Accumulator: moments of the three measures, and of each class's probability."""

    name = "confidence"
    task = "classification"
    needs = frozenset({"probabilities"})
    series = (
        Series("max_prediction_proba", _HIGHEST, stats=_SURE, preset="minimal"),
        Series("max_prediction_proba", _HIGHEST, stats=tuple(stat for stat in stats.CLASSIC if stat not in _SURE)),
        Series("max_prediction_proba", _HIGHEST, stats=stats.FURTHER, preset="full"),
        Series("spread12_prediction_proba", _LEAD, stats=stats.CLASSIC),
        Series("spread12_prediction_proba", _LEAD, stats=stats.FURTHER, preset="full"),
        Series("prediction_entropy", _ENTROPY, stats=("mean",)),
        Series("prediction_entropy", _ENTROPY, (), tuple(stat for stat in stats.STATS if stat != "mean"), "full"),
        Series("class_proba", "mean probability of the class", ("class_name",), ("mean",), "full"),
    )

    def create(self, ctx: Context) -> dict[str, stats.Moments]:
        return {"measures": stats.empty(len(MEASURES)), "classes": stats.empty(len(ctx.schema.classes))}

    def update(self, acc: dict[str, stats.Moments], batch: Batch, ctx: Context) -> dict[str, stats.Moments]:
        p = batch.probabilities.astype(np.float64)
        return self.merge(acc, {"measures": stats.of(measures(p)), "classes": stats.of(p)})

    def merge(self, left: dict[str, stats.Moments], right: dict[str, stats.Moments]) -> dict[str, stats.Moments]:
        return {part: stats.merge(left[part], right[part]) for part in left}

    def result(self, acc: dict[str, stats.Moments], ctx: Context) -> Iterable[Value]:
        quantiles: dict[str, Array] = {}
        if ctx.sample is not None and "probabilities" in ctx.sample.columns:
            p = ctx.sample.probabilities.astype(np.float64)
            quantiles = stats.quantiles(measures(p[~np.isnan(p[:, 0])]))  # rows without probabilities are NaN
        for what, described in zip(MEASURES, stats.describe(acc["measures"], quantiles), strict=True):
            for stat, value in described:
                yield Value(what, value, stat=stat)
        for i, name in enumerate(ctx.schema.classes):
            if acc["classes"]["n"][i]:
                yield Value("class_proba", float(acc["classes"]["mean"][i]), class_name=name, stat="mean")


def measures(p: Array) -> Array:
    """Return an (n, 3) array of the highest probability, its lead over the second, and the normalised entropy."""
    by_class = np.ascontiguousarray(p.T)  # one pass over all rows per class is faster than one over classes per row
    highest, second = np.maximum(by_class[0], by_class[1]), np.minimum(by_class[0], by_class[1])
    for one in by_class[2:]:
        np.maximum(second, np.minimum(highest, one), out=second)
        np.maximum(highest, one, out=highest)
    surprise = np.log(np.maximum(by_class, _TINY))  # 0 ln 0 is 0
    entropy = (0.0 - (by_class * surprise).sum(axis=0)) / np.log(len(by_class))
    return np.column_stack([highest, highest - second, entropy])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(PredictedClasses())
    register(Confidence())
