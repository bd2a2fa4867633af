"""Labels that arrive after their predictions: their outcomes and delays.

=================== ==================================================================================== =======
series              definition                                                                           range
=================== ==================================================================================== =======
late_label_count    labels that arrived while the window was open, by reason: ``joined`` with their      0 …
                    prediction; ``unknown``: no prediction within `label_wait`; ``duplicate``: the id
                    had the same label already; ``conflict``: it had another one, which stays;
                    ``forbidden``: its sender has no right to label rows of that agent; and
                    ``repeated``: predictions whose id had been used, which can get no label
label_delay_seconds statistics of (label's time − prediction's time) over the joined ones; a label       0 …
                    that came before its prediction took 0 s
=================== ==================================================================================== =======

Source: the join of publish_labels() with the predictions' ids, see docs/labels.md. Statistics are exact up to 5,000
distinct delays per window; beyond that, quantiles are within 0.8 %.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> ctx = Context("fraud", "", "pod-1", Schema(), Window(0, 60))
>>> batch = Batch(Schema(), {"label_outcomes": np.array([0, 0, 2], dtype=np.int8)})
>>> metric = LateLabelOutcomes()
>>> acc = metric.update(metric.create(ctx), batch, ctx)
>>> [(v.reason, v.value) for v in metric.result(acc, ctx)]
[('joined', 2), ('duplicate', 1)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import counts, stats

OUTCOMES = ("joined", "unknown", "duplicate", "conflict", "repeated", "forbidden")  # in the order of their codes
DISTINCT = 5000  # delays that are kept exactly
COARSE = 45  # bits of a float64's mantissa that are dropped; seven remain


class LateLabelOutcomes:
    """Counts by outcome. Accumulator: one count per outcome."""

    name = "late_labels"
    needs = frozenset({"label_outcomes"})
    series = (
        Series("late_label_count", "labels that came after their predictions, by what became of them", ("reason",)),
    )

    def create(self, ctx: Context) -> Array:
        return np.zeros(len(OUTCOMES), dtype=np.int64)

    def update(self, acc: Array, batch: Batch, ctx: Context) -> Array:
        return self.merge(acc, np.bincount(batch.raw()["label_outcomes"], minlength=len(OUTCOMES)))

    def merge(self, left: Array, right: Array) -> Array:
        if len(left) < len(right):  # of a release that had fewer outcomes
            left = np.pad(left, (0, len(right) - len(left)))
        left[: len(right)] += right
        return left

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        for outcome, count in zip(OUTCOMES, acc.tolist(), strict=False):
            if count:
                yield Value("late_label_count", count, reason=outcome)


class LabelDelay:
    """Seconds from prediction to label. Accumulator: moments, counts of delays, coarser if they are many."""

    name = "label_delay"
    needs = frozenset({"label_outcomes", "label_delays"})
    series = (
        Series("label_delay_seconds", "seconds from prediction to label", stats=stats.CLASSIC),
        Series("label_delay_seconds", "seconds from prediction to label", stats=stats.FURTHER, preset="full"),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        return {"moments": stats.empty(1), "delays": counts.empty(np.uint64), "coarse": False}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        seconds = batch.raw()["label_delays"] / 1e9
        bits = seconds.view(np.uint64)  # the bits of non-negative floats have the order of the numbers
        new = {"moments": stats.of(seconds[:, np.newaxis]), "delays": counts.of(bits), "coarse": False}
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        delays = counts.merge(left["delays"], right["delays"])
        coarse = left["coarse"] or right["coarse"] or len(delays["keys"]) > DISTINCT
        if coarse:
            keys = delays["keys"] >> np.uint64(COARSE) << np.uint64(COARSE)
            first = counts.runs(keys)
            delays = {"keys": keys[first], "counts": np.add.reduceat(delays["counts"], first)}
        return {"moments": stats.merge(left["moments"], right["moments"]), "delays": delays, "coarse": coarse}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if not len(acc["delays"]["keys"]):
            return
        seconds = np.repeat(acc["delays"]["keys"].view(np.float64), acc["delays"]["counts"])
        for stat, value in stats.describe(acc["moments"], stats.quantiles(seconds[:, np.newaxis]))[0]:
            yield Value("label_delay_seconds", value, stat=stat)


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(LateLabelOutcomes())
    register(LabelDelay())
