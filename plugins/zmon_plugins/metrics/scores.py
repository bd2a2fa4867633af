"""Proper scores of the probabilities over labelled rows: log-loss and Brier score.

========= ============================================================================ ===========
series    definition (p: a row's probabilities, y: its label, k classes)               range
========= ============================================================================ ===========
log_loss  mean of −ln p_y, p as float64 clipped to [ε, 1 − ε], ε = 2.2e-16, as in       0 … 36.04
          scikit-learn's ``log_loss``
brier     k > 2: mean of Σ_c (p_c − [c = y])² (Brier, 1950); binary: mean of            [0, 2],
          (p_1 − [y = 1])², as scikit-learn's ``brier_score_loss``                     [0, 1]
========= ============================================================================ ===========

Both are exact, over all labelled rows, and omitted without labelled rows.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> columns = {"probabilities": np.array([[0.9, 0.1], [0.2, 0.8]]), "labels": np.array([0, -1])}
>>> metric = Scores()
>>> acc = metric.update(metric.create(ctx), Batch(schema, columns), ctx)
>>> [(v.what, round(v.value, 4)) for v in metric.result(acc, ctx)]
[('log_loss', 0.1054), ('brier', 0.01)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl

EPSILON = float(np.finfo(np.float64).eps)


class Scores:
    """Log-loss and Brier score. Accumulator: labelled rows, and the sum of each score over them."""

    name = "scores"
    task = "classification"
    needs = frozenset({"probabilities", "labels"})
    series = (
        Series("log_loss", "mean of −ln p of the label, p clipped to [ε, 1 − ε], ε = 2.2e-16"),
        Series("brier", "mean squared distance of the probabilities to the one-hot label; binary: of p₁ to 0/1"),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        return {"rows": 0, "log_loss": 0.0, "brier": 0.0}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        labelled = np.flatnonzero(batch.labels >= 0)
        labels, p = batch.labels[labelled], batch.probabilities[labelled]
        distance = p.astype(np.float64)
        rows = np.arange(len(labels))
        loss = -np.log(np.clip(distance[rows, labels], EPSILON, 1 - EPSILON))
        distance[rows, labels] -= 1.0
        if distance.shape[1] == 2:
            distance = distance[:, 1:]
        return {
            "rows": acc["rows"] + len(labels),
            "log_loss": acc["log_loss"] + float(loss.sum()),
            "brier": acc["brier"] + float(np.einsum("ij,ij->", distance, distance)),
        }

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return {key: left[key] + right[key] for key in left}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if acc["rows"]:
            yield Value("log_loss", acc["log_loss"] / acc["rows"])
            yield Value("brier", acc["brier"] / acc["rows"])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Scores())
