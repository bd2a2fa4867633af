"""Inputs in which nearly every row has a value of its own, such as ids of customers: counted, and not named.

===================== ========= =========================================================
series                keys      definition
===================== ========= =========================================================
feature_unique        feat_name distinct values
feature_missing_freq  feat_name rows without a value / rows, in [0, 1]
feature_length        feat_name characters of the values: ``mean``, ``min``, ``max``
===================== ========= =========================================================

Publishers send hashes of 64 bits and lengths of such columns (docs/publisher.md). Up to ``tracked`` (option, default
2048) distinct values per column feature_unique is exact. With more, the smallest hashes are kept, which are the same
however the rows are split, and feature_unique is the estimate K / h of Bar-Yossef et al. (2002), where K hashes are
kept and h is the smallest omitted one as a share of the range. Its standard error is 1 / √K, 2.2 % by default.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("a", "b"), features=("customer",), kinds=("categorical",), hashed=("customer",))
>>> hashes = np.array([[11], [5], [11], [0]], dtype=np.uint64)
>>> batch = Batch(schema, {"hashes": hashes, "lengths": np.array([[36], [30], [36], [-1]], dtype=np.int16)})
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> metric = HashedFeatures()
>>> [(v.what, v.stat, v.value) for v in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx)]
... # doctest: +NORMALIZE_WHITESPACE
[('feature_unique', '', 2), ('feature_missing_freq', '', 0.25), ('feature_length', 'mean', 34.0),
 ('feature_length', 'min', 30.0), ('feature_length', 'max', 36.0)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import stats

TOP = 2**64 - 1  # initial bound: no hash has been left out
STATS = ("mean", "min", "max")
Distinct = dict[str, Any]  # of one column: the smallest hashes in ascending order, all below `bound`


class HashedFeatures:
    """Counts of distinct and missing values. Accumulator: rows, moments of lengths, distinct hashes by column."""

    name = "hashed_features"
    needs = frozenset({"hashes", "lengths"})
    series = (
        Series("feature_unique", "distinct values; beyond `tracked` an estimate", ("feat_name",)),
        Series("feature_missing_freq", "share of rows without a value", ("feat_name",)),
        Series("feature_length", "characters of the values", ("feat_name",), STATS),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        columns = len(ctx.schema.hashed)
        empty = np.empty(0, dtype=np.uint64)
        return {
            "rows": 0,
            "tracked": int(ctx.options.get("tracked", 2048)),
            "lengths": stats.empty(columns),
            "columns": [{"hashes": empty, "bound": TOP} for _ in range(columns)],
        }

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        present = batch.lengths >= 0
        moments, _, _ = stats.tally(np.where(present, batch.lengths, np.nan))
        columns = [
            {"hashes": np.unique(hashes[given]), "bound": TOP}
            for hashes, given in zip(batch.hashes.T, present.T, strict=True)
        ]
        new = {"rows": batch.rows, "tracked": acc["tracked"], "lengths": moments, "columns": columns}
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        tracked = max(left["tracked"], right["tracked"])
        return {
            "rows": left["rows"] + right["rows"],
            "tracked": tracked,
            "lengths": stats.merge(left["lengths"], right["lengths"]),
            "columns": [_merge(*pair, tracked) for pair in zip(left["columns"], right["columns"], strict=True)],
        }

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if not acc["rows"]:
            return
        lengths = stats.describe(acc["lengths"], {})
        present = acc["lengths"]["n"].tolist()
        for feature, column, count, described in zip(ctx.schema.hashed, acc["columns"], present, lengths, strict=True):
            yield Value("feature_unique", _distinct(column), feat_name=feature)
            yield Value("feature_missing_freq", 1 - count / acc["rows"], feat_name=feature)
            for stat, value in described:
                if stat in STATS:
                    yield Value("feature_length", value, feat_name=feature, stat=stat)


def _merge(left: Distinct, right: Distinct, tracked: int) -> Distinct:
    hashes: Array = np.union1d(left["hashes"], right["hashes"])
    bound = min(left["bound"], right["bound"])
    kept = int(np.searchsorted(hashes, np.uint64(bound)))
    if kept > tracked:
        kept, bound = tracked, int(hashes[tracked])
    return {"hashes": hashes[:kept], "bound": bound}


def _distinct(column: Distinct) -> int:
    kept = len(column["hashes"])
    return kept if column["bound"] == TOP else round(kept * 2.0**64 / column["bound"])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(HashedFeatures())
