"""Calibration: are 80 % of the rows with confidence 0.8 right?

================ ====================================================================== ===========
series           definition                                                             range
================ ====================================================================== ===========
calibration_ece  Σ_b (n_b / N) · |accuracy_b − confidence_b| over 15 bins of equal       [0, 1]
                 width (Guo et al., 2017)
calibration_mce  the largest |accuracy_b − confidence_b| of a bin that has rows          [0, 1]
================ ====================================================================== ===========

Confidence is the highest probability of a row. The row is right if its label is the class with that probability; for a
binary model that is the class above 0.5, whatever the threshold. Bin b holds confidences in (b/15, (b+1)/15]. The
values are exact, over all labelled rows, and omitted without labelled rows.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> columns = {"probabilities": np.array([[0.9, 0.1], [0.2, 0.8]]), "labels": np.array([0, 0])}
>>> metric = Calibration()
>>> acc = metric.update(metric.create(ctx), Batch(schema, columns), ctx)
>>> [(v.what, round(v.value, 3)) for v in metric.result(acc, ctx)]
[('calibration_ece', 0.45), ('calibration_mce', 0.8)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl

BINS = 15
_INNER = np.linspace(0.0, 1.0, BINS + 1)[1:-1]


class Calibration:
    """Expected and maximum calibration error. Accumulator per bin: rows, Σ confidence, right rows."""

    name = "calibration"
    task = "classification"
    needs = frozenset({"probabilities", "labels"})
    series = (
        Series("calibration_ece", "Σ (n_b / N) |accuracy_b − confidence_b| over 15 bins of confidence"),
        Series("calibration_mce", "largest |accuracy_b − confidence_b| of the 15 bins", preset="full"),
    )

    def create(self, ctx: Context) -> dict[str, Array]:
        return {"rows": np.zeros(BINS, dtype=np.int64), "confidence": np.zeros(BINS), "right": np.zeros(BINS)}

    def update(self, acc: dict[str, Array], batch: Batch, ctx: Context) -> dict[str, Array]:
        labelled = np.flatnonzero(batch.labels >= 0)
        p, labels = batch.probabilities[labelled], batch.labels[labelled]
        likeliest = p.argmax(axis=1)
        confidence = p[np.arange(len(p)), likeliest].astype(np.float64)
        bins = np.searchsorted(_INNER, confidence, side="left")
        acc["rows"] += np.bincount(bins, minlength=BINS)
        acc["confidence"] += np.bincount(bins, confidence, minlength=BINS)
        acc["right"] += np.bincount(bins, likeliest == labels, minlength=BINS)
        return acc

    def merge(self, left: dict[str, Array], right: dict[str, Array]) -> dict[str, Array]:
        for key in left:
            left[key] += right[key]
        return left

    def result(self, acc: dict[str, Array], ctx: Context) -> Iterable[Value]:
        used = acc["rows"] > 0
        if not used.any():
            return
        difference = np.abs(acc["right"] - acc["confidence"])[used]
        yield Value("calibration_ece", float(difference.sum() / acc["rows"].sum()))
        yield Value("calibration_mce", float((difference / acc["rows"][used]).max()))

    def detail(self, acc: dict[str, Array], ctx: Context) -> dict[str, Array] | None:
        """Return the bins for the reliability diagram, or None without labelled rows."""
        return acc if acc["rows"].any() else None


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Calibration())
