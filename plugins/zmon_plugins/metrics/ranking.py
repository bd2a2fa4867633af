"""Ranking: how well a class's probability ranks its rows above the others, whatever the threshold.

======== =========================== ==================================================================== =======
series   keys                        definition, of one class against the rest                            range
======== =========================== ==================================================================== =======
roc_auc  binary: –; else class_name  P(score of a row of the class > score of another row) + ½ P(equal)    [0, 1]
pr_auc   the same                    average precision: Σ (R_i − R_{i−1}) P_i over descending thresholds   (0, 1]
both     stat = macro, weighted      more than two classes: mean over the classes that have a value,       [0, 1]
                                     plain, or weighted by their labels
======== =========================== ==================================================================== =======

Binary models: of class 1. Omitted if all labels are of the class, or none. Definitions: scikit-learn's
``roc_auc_score`` (``multi_class="ovr"``) and ``average_precision_score``.

If the window's row sample holds every labelled row, the values are exact. Otherwise they come from a histogram over
all rows, binned by the leading 18 bits of float32(min(p, 1 − p)): 512 bins per octave, narrow near 0 and 1, where
scores crowd, so that rare events keep their ranking. They are within 1e-3 of the exact values. The histogram is kept
for at most ``max_classes`` classes (option, default 100): with more classes, the values are omitted if the sample does
not hold every labelled row.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> score = np.array([0.1, 0.4, 0.35, 0.8])
>>> batch = Batch(schema, {"probabilities": np.column_stack([1 - score, score]), "labels": np.array([0, 0, 1, 1])})
>>> metric = Ranking()
>>> acc = metric.update(metric.create(ctx), batch, ctx)
>>> [(v.what, round(v.value, 3)) for v in metric.result(acc, ctx)]
[('roc_auc', 0.75), ('pr_auc', 0.833)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import counts

Areas = tuple[float, float, int]  # ROC, PR, rows of the class
SHIFT = 14  # of 32 bits, the trailing ones that are dropped
SPAN = 2**17  # codes per class
_TOP = 2 * (0x3F000000 >> SHIFT) + 1  # twice the leading bits of float32(0.5), plus one


class Ranking:
    """ROC-AUC and average precision. Accumulator: labelled rows, and sparse counts of (class, score, is the label)."""

    name = "ranking"
    task = "classification"
    needs = frozenset({"probabilities", "labels"})
    series = (
        Series("roc_auc", "binary: P(score of class 1 higher for a row of class 1) + ½ P(equal)"),
        Series("roc_auc", "one class against the rest, more than two classes", ("class_name",)),
        Series("roc_auc", "mean over classes, more than two", stats=("macro",)),
        Series("roc_auc", "mean weighted by the classes' labels, more than two", stats=("weighted",), preset="full"),
        Series("pr_auc", "binary: average precision Σ (R_i − R_{i−1}) P_i of class 1", preset="full"),
        Series("pr_auc", "one class against the rest, more than two classes", ("class_name",), preset="full"),
        Series("pr_auc", "mean over classes, plain or weighted, more than two", stats=("macro", "weighted"),
               preset="full"),
    )  # fmt: skip

    def create(self, ctx: Context) -> dict[str, Any]:
        return {"rows": 0, "scores": counts.empty(np.uint32)}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        labelled = np.flatnonzero(batch.labels >= 0)
        p, labels = batch.probabilities[labelled], batch.labels[labelled]
        new = {"rows": len(labels), "scores": counts.empty(np.uint32)}
        ranked = _ranked(p.shape[1])
        if len(ranked) <= min(ctx.options.get("max_classes", 100), 2**31 // SPAN):
            codes = _codes(p[:, ranked.start :])
            classes = []
            for i, c in enumerate(ranked):  # class by class: fewer and closer keys sort faster
                keys = (codes[:, i] + np.uint32(i * SPAN)) * np.uint32(2) + (labels == c)
                classes.append(counts.of(keys.astype(np.uint32, copy=False)))
            new["scores"] = {part: np.concatenate([scores[part] for scores in classes]) for part in ("keys", "counts")}
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return {"rows": left["rows"] + right["rows"], "scores": counts.merge(left["scores"], right["scores"])}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        names = ctx.schema.classes
        by_class: dict[int, Areas] = {}
        exact = _labelled_sample(ctx)
        if exact is not None and len(exact[1]) == acc["rows"]:
            by_class = dict(_from_rows(*exact))
        elif len(acc["scores"]["keys"]):
            by_class = dict(_from_histogram(acc["scores"], _ranked(len(names))))
        for which, what in enumerate(("roc_auc", "pr_auc")):
            if len(names) == 2:
                for areas in by_class.values():
                    yield Value(what, areas[which])
                continue
            for c, areas in by_class.items():
                yield Value(what, areas[which], class_name=names[c])
            if by_class:
                values, weights = zip(*((areas[which], areas[2]) for areas in by_class.values()), strict=True)
                yield Value(what, float(np.mean(values)), stat="macro")
                yield Value(what, float(np.average(values, weights=weights)), stat="weighted")


def _ranked(classes: int) -> range:
    """Return the classes that are ranked: only the second of two."""
    return range(1, 2) if classes == 2 else range(classes)


def _codes(p: Array) -> Array:
    """Return whole numbers below SPAN that ascend with p, with fine steps near 0 and 1."""
    far = p > 0.5
    near = np.where(far, np.maximum(1 - p, 0), p).astype(np.float32)
    bits = near.view(np.uint32) >> np.uint32(SHIFT)
    return np.where(far, np.uint32(_TOP) - bits, bits)


def _labelled_sample(ctx: Context) -> tuple[Array, Array] | None:
    """Return the probabilities and labels of the sample's rows that have both."""
    if ctx.sample is None or not {"probabilities", "labels"} <= ctx.sample.columns:
        return None
    p, labels = ctx.sample.probabilities, ctx.sample.labels
    rows = (labels >= 0) & ~np.isnan(p[:, 0])
    return p[rows], labels[rows]


def _from_rows(p: Array, labels: Array) -> Iterator[tuple[int, Areas]]:
    for c in _ranked(p.shape[1]):
        order = np.argsort(p[:, c])
        score, hit = p[order, c], labels[order] == c
        starts = counts.runs(score)
        both = np.diff(starts, append=len(score))
        positive = np.add.reduceat(hit, starts, dtype=np.int64) if len(starts) else both
        yield from _areas(c, positive, both - positive)


def _from_histogram(scores: counts.Counts, ranked: range) -> Iterator[tuple[int, Areas]]:
    keys, rows = scores["keys"], scores["counts"]
    edges = np.searchsorted(keys, np.arange(len(ranked) + 1, dtype=np.uint64) * (2 * SPAN))
    for i, c in enumerate(ranked):
        of_class, n = keys[edges[i] : edges[i + 1]], rows[edges[i] : edges[i + 1]]
        codes, where = np.unique(of_class >> np.uint32(1), return_inverse=True)
        hit = (of_class & np.uint32(1)).astype(bool)
        positive, negative = (np.zeros(len(codes), dtype=np.int64) for _ in range(2))
        positive[where[hit]], negative[where[~hit]] = n[hit], n[~hit]
        yield from _areas(c, positive, negative)


def _areas(c: int, positive: Array, negative: Array) -> Iterator[tuple[int, Areas]]:
    """Yield the areas under both curves, from counts by ascending score."""
    p, n = int(positive.sum()), int(negative.sum())
    if not p or not n:
        return
    below = np.cumsum(negative) - negative
    roc = float((positive * (below + negative / 2)).sum()) / (p * n)
    hits, all_above = positive[::-1].cumsum(), (positive + negative)[::-1].cumsum()
    precision = hits / all_above
    yield c, (roc, float((positive[::-1] * precision).sum()) / p, p)


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Ranking())
