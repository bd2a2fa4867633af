"""Numeric inputs of the model, column by column.

===================== ================ =======================================================================
series                keys             definition
===================== ================ =======================================================================
feature_value         feat_name, stat  statistics over the column's finite values
feature_missing_freq  feat_name        NaN rows / rows, in [0, 1]
feature_inf_count     feat_name        rows that are +∞ or −∞
===================== ================ =======================================================================

Moments and extremes are over all rows, quantiles over the window's row sample, both in float64 whatever the input's
type. A column without a finite value has no feature_value.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("a", "b"), features=("age",), kinds=("numeric",))
>>> batch = Batch(schema, {"inputs": np.array([[30.0], [50.0], [np.nan], [np.inf]])})
>>> ctx = Context("fraud", "", None, schema, Window(0, 60), sample=batch)
>>> metric = NumericFeatures()
>>> values = {(v.what, v.stat): v.value for v in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx)}
>>> values["feature_value", "mean"], values["feature_missing_freq", ""], values["feature_inf_count", ""]
(40.0, 0.25, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import stats


class NumericFeatures:
    """Statistics of numeric columns. Accumulator: moments, and counts of rows, missing and infinite values."""

    name = "numeric_features"
    needs = frozenset({"inputs"})
    series = (
        Series("feature_value", "statistics over the column's finite values", ("feat_name",), stats.CLASSIC),
        Series("feature_value", "statistics over the column's finite values", ("feat_name",), stats.FURTHER, "full"),
        Series("feature_missing_freq", "share of rows that are NaN or None", ("feat_name",)),
        Series("feature_inf_count", "rows that are +∞ or −∞", ("feat_name",)),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        columns = len(ctx.schema.numeric)
        zeros = np.zeros(columns, dtype=np.int64)
        return {"moments": stats.empty(columns), "rows": 0, "missing": zeros, "infinite": zeros.copy()}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        moments, missing, infinite = stats.tally(batch.inputs)
        new = {"moments": moments, "rows": batch.rows, "missing": missing, "infinite": infinite}
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        left["moments"] = stats.merge(left["moments"], right["moments"])
        for count in ("rows", "missing", "infinite"):
            left[count] = left[count] + right[count]
        return left

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        quantiles: dict[str, Array] = {}
        if ctx.sample is not None and "inputs" in ctx.sample.columns:
            quantiles = stats.quantiles(ctx.sample.inputs)
        described = stats.describe(acc["moments"], quantiles)
        missing, infinite = acc["missing"].tolist(), acc["infinite"].tolist()
        for i, (name, by_stat) in enumerate(zip(ctx.schema.numeric, described, strict=True)):
            for stat, value in by_stat:
                yield Value("feature_value", value, feat_name=name, stat=stat)
            if acc["rows"]:
                yield Value("feature_missing_freq", missing[i] / acc["rows"], feat_name=name)
                yield Value("feature_inf_count", infinite[i], feat_name=name)


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(NumericFeatures())
