"""Share of the window's rows that are labelled, on which its scores are based.

=============== ======================================================= =======
series          definition                                              range
=============== ======================================================= =======
label_coverage  rows with a label / rows in the window                  [0, 1]
=============== ======================================================= =======

Omitted if the window has no rows. A row of a regression is labelled if its target is a finite number. A label that
arrives later counts if the window of its prediction is still open; later labels only change the local history
(docs/labels.md).

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> batch = Batch(schema, {"predictions": np.array([0, 1, 1, 1]), "labels": np.array([0, 1, -1, -1])})
>>> metric = Labels()
>>> [(v.what, v.value) for v in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx)]
[('label_coverage', 0.5)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl


class Labels:
    """Share of labelled rows. Accumulator: rows, and those with a label."""

    name = "labels"
    needs: frozenset[str] = frozenset()
    late_labels = True
    series = (Series("label_coverage", "share of the rows that have a label"),)

    def create(self, ctx: Context) -> dict[str, int]:
        return {"rows": 0, "labelled": 0}

    def update(self, acc: dict[str, int], batch: Batch, ctx: Context) -> dict[str, int]:
        labelled = 0
        if "label_outcomes" in batch.columns:  # late labels are no rows; some belong to rows of this window
            of_window = batch.raw().get("label_own", ())
            return {"rows": acc["rows"], "labelled": acc["labelled"] + int(np.count_nonzero(of_window))}
        if "labels" in batch.columns:
            valid = np.isfinite(batch.labels) if ctx.schema.task == "regression" else batch.labels >= 0
            labelled = int(np.count_nonzero(valid.any(axis=1) if valid.ndim == 2 else valid))  # any class of multilabel
        return {"rows": acc["rows"] + batch.rows, "labelled": acc["labelled"] + labelled}

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return {key: left[key] + right[key] for key in left}

    def result(self, acc: dict[str, int], ctx: Context) -> Iterable[Value]:
        if acc["rows"]:
            yield Value("label_coverage", acc["labelled"] / acc["rows"])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Labels())
