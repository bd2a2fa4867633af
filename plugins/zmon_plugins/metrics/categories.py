"""Categorical and boolean inputs of the model, column by column.

===================== =================== ====================================================================
series                keys                definition
===================== =================== ====================================================================
feature_count         feat_name, category rows with that category
feature_freq          feat_name, category feature_count / rows that have a value, in [0, 1]
feature_unique        feat_name           distinct categories
feature_missing_freq  feat_name           rows without a value / rows, in [0, 1]
feature_skipped_count feat_name           rows whose value is not captured: a column of kind text or vector
===================== =================== ====================================================================

The ``max_categories`` (option, default 50) most frequent categories are named, ties in the order of their names; all
others together are ``__other__``. Counts are exact, over all rows.

Memory is bounded: a window keeps the counts of at most ``tracked`` (option, default 1024) categories per column. Up to
that number everything is exact. In a column with more, the categories with the smallest hashes are kept, which is the
same set however the rows are split. The others belong to ``__other__`` whatever their frequency, and feature_unique is
the estimate K / h of Bar-Yossef et al. (2002), where K categories are kept and h is the smallest omitted hash as a
share of the range. Its standard error is 1 / √K, 3 % by default.

A column in which nearly every value differs is counted by hashed_features instead. In the window in which a publisher
finds that out, values that it sent without a name are ``__other__``, and feature_unique is left out.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("a", "b"), features=("city",), kinds=("categorical",))
>>> codes, names = np.array([[0], [1], [0], [-1]]), (("Rome", "Oslo"),)
>>> batch = Batch(schema, {"codes": codes}, dictionaries={"codes": names})
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> metric = CategoricalFeatures()
>>> acc = metric.update(metric.create(ctx), batch, ctx)
>>> [(v.what, v.category, round(v.value, 3)) for v in metric.result(acc, ctx)]
... # doctest: +NORMALIZE_WHITESPACE
[('feature_count', 'Rome', 2), ('feature_freq', 'Rome', 0.667), ('feature_count', 'Oslo', 1),
 ('feature_freq', 'Oslo', 0.333), ('feature_unique', '', 2), ('feature_missing_freq', '', 0.25)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from zmon.batch import SKIPPED_KINDS, Batch
from zmon.categories import OTHER, name_hash
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins.counts import runs

TOP = 2**64 - 1  # initial bound: no category has been left out
CategoryCounts = dict[str, Any]  # of one column


class CategoricalFeatures:
    """Counts of categories. Accumulator: rows, and per column its missing rows and the counts of its categories.

    A column's categories are in the order of their hashes, all below `bound`; `other` counts the rows of categories
    with larger hashes.
    """

    name = "categorical_features"
    needs = frozenset({"codes"})
    series = (
        Series("feature_count", "rows with that category", ("feat_name", "category")),
        Series("feature_freq", "share of that category among the rows that have a value", ("feat_name", "category")),
        Series("feature_unique", "distinct categories; beyond `tracked` an estimate", ("feat_name",)),
        Series("feature_missing_freq", "share of rows without a value", ("feat_name",)),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        tracked = int(max(ctx.options.get("tracked", 1024), ctx.options.get("max_categories", 50)))
        return {"rows": 0, "tracked": tracked, "columns": [_column() for _ in ctx.schema.categorical]}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        codes = batch.codes
        columns = []
        for i, names in enumerate(batch.categories):
            counts = np.bincount(codes[:, i] + 1, minlength=len(names) + 1)
            present = np.flatnonzero(counts[1:])
            seen = [names[j] for j in present.tolist()]
            hashes = np.array([_hash(name) for name in seen], dtype=np.uint64)
            order = np.argsort(hashes)
            columns.append(
                {
                    "missing": int(counts[0]),
                    "names": [seen[j] for j in order.tolist()],
                    "hashes": hashes[order],
                    "counts": counts[1:][present][order],
                    "other": 0,
                    "bound": TOP,
                }
            )
        return self.merge(acc, {"rows": batch.rows, "tracked": acc["tracked"], "columns": columns})

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        tracked = max(left["tracked"], right["tracked"])
        columns = [_merge(*pair, tracked) for pair in zip(left["columns"], right["columns"], strict=True)]
        return {"rows": left["rows"] + right["rows"], "tracked": tracked, "columns": columns}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if not acc["rows"]:
            return
        for feature, column in zip(ctx.schema.categorical, acc["columns"], strict=True):
            if feature in ctx.schema.hashed:
                continue
            for what, category, value in _shares(column, ctx.options.get("max_categories", 50)):
                yield Value(what, value, feat_name=feature, category=category)
            unique = len(column["names"])
            if column["bound"] != TOP:
                unique = round(unique * 2.0**64 / column["bound"])
            if OTHER not in column["names"]:  # else rows came without their names, and their number is not known
                yield Value("feature_unique", unique, feat_name=feature)
            yield Value("feature_missing_freq", column["missing"] / acc["rows"], feat_name=feature)


def _column() -> CategoryCounts:
    empty = np.empty(0, dtype=np.int64)
    return {"missing": 0, "names": [], "hashes": empty.astype(np.uint64), "counts": empty, "other": 0, "bound": TOP}


@lru_cache(maxsize=2**16)
def _hash(name: str) -> int:
    return int.from_bytes(name_hash(name), "little")


def _merge(left: CategoryCounts, right: CategoryCounts, tracked: int) -> CategoryCounts:
    hashes = np.concatenate([left["hashes"], right["hashes"]])
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    starts = runs(hashes)
    counts = np.concatenate([left["counts"], right["counts"]])[order]
    counts = np.add.reduceat(counts, starts) if len(starts) else counts
    hashes, bound = hashes[starts], min(left["bound"], right["bound"])
    kept = int(np.searchsorted(hashes, np.uint64(bound)))
    if kept > tracked:
        kept, bound = tracked, int(hashes[tracked])
    both = left["names"] + right["names"]
    return {
        "missing": left["missing"] + right["missing"],
        "names": [both[i] for i in order[starts[:kept]].tolist()],
        "hashes": hashes[:kept],
        "counts": counts[:kept],
        "other": left["other"] + right["other"] + int(counts[kept:].sum()),
        "bound": bound,
    }


def _shares(column: CategoryCounts, most: int) -> Iterator[tuple[str, str, float]]:
    counts = dict(zip(column["names"], column["counts"].tolist(), strict=True))
    rest = column["other"] + counts.pop(OTHER, 0)
    rows = rest + sum(counts.values())
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    rest += sum(counts[name] for name in ordered[most:])
    for name in ordered[:most]:
        yield "feature_count", name, counts[name]
        yield "feature_freq", name, counts[name] / rows
    if rest:
        yield "feature_count", OTHER, rest
        yield "feature_freq", OTHER, rest / rows


class SkippedFeatures:
    """Columns that are named and not captured. Accumulator: rows."""

    name = "skipped_features"
    needs: frozenset[str] = frozenset()
    series = (Series("feature_skipped_count", "rows whose value is not captured: text or vector", ("feat_name",)),)

    def create(self, ctx: Context) -> dict[str, int]:
        return {"rows": 0}

    def update(self, acc: dict[str, int], batch: Batch, ctx: Context) -> dict[str, int]:
        return {"rows": acc["rows"] + batch.rows}

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return {"rows": left["rows"] + right["rows"]}

    def result(self, acc: dict[str, int], ctx: Context) -> Iterable[Value]:
        if acc["rows"]:
            for feature, kind in zip(ctx.schema.features, ctx.schema.kinds, strict=True):
                if kind in SKIPPED_KINDS:
                    yield Value("feature_skipped_count", acc["rows"], feat_name=feature)


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(CategoricalFeatures())
    register(SkippedFeatures())
