"""Estimated performance before labels arrive: CBPE, confidence-based performance estimation.

=================== =========================== ============================================================= =======
series              keys                        definition (q: a row's calibrated probabilities)              range
=================== =========================== ============================================================= =======
estimated_accuracy  –                           mean of q of the predicted class                              [0, 1]
estimated_f1        stat = macro; class_name    2 TP / (2 TP + FP + FN) of the expected confusion:            [0, 1]
                                                row i of predicted class j adds q_c to (c, j)
estimated_roc_auc   binary: –; else stat =      P(score of a row of the class > score of another row) + ½ =,  [0, 1]
                    macro                       every row counting q for the class and 1 − q against it
each                stat = standard_error       σ of the realised value around the estimate, were q exact     0 …
=================== =========================== ============================================================= =======

q is each class's probability, passed through the isotonic calibration that the reference profile holds where it lowers
the calibration error, and then divided by the row's sum. Without a labelled reference there are no values, because
nothing shows how far the model's probabilities can be trusted.

**It is blind to concept drift.** It uses the rows and the model's confidence; if the same inputs get a different
meaning, q is wrong and the estimate does not move. See docs/drift.md.

standard_error: accuracy √(Σ q(1 − q)) / n; F1 by the delta method on TP and FN, macro with independent classes;
ROC-AUC after Hanley and McNeil (1982). Sources: Garg et al. (2022), NannyML's description of CBPE.

>>> import numpy as np, zmon
>>> from zmon import Batch, Context, Window
>>> random = np.random.default_rng(0)
>>> p = random.random(2000)
>>> reference = zmon.profile(p, labels=(random.random(2000) < p).astype(int), classes=["no", "yes"])
>>> ctx = Context("fraud", "", None, reference.schema, Window(0, 60), reference=reference)
>>> batch = Batch(reference.schema, {"probabilities": np.array([[0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])})
>>> metric = Estimated()
>>> values = {(v.what, v.stat): v.value for v in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx)}
>>> round(values["estimated_accuracy", ""], 1), values["estimated_roc_auc", ""] > 0.9
(0.9, True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon.reference import Profile

BINS = 1024  # of the score, equal in its logit from −REACH to REACH
REACH = 16.0
RANKED = 100  # classes; with more, no ROC-AUC is estimated


class Estimated:
    """CBPE. Accumulator: rows, the expected confusion, variances of its parts, expected hits by score."""

    name = "estimated"
    task = "classification"
    needs = frozenset({"probabilities"})
    series = (
        Series("estimated_accuracy", "mean calibrated probability of the predicted class", reference=True),
        Series("estimated_accuracy", "σ of the realised value around it", stats=("standard_error",), reference=True),
        Series("estimated_f1", "mean over the classes, of the expected confusion", stats=("macro",), reference=True),
        Series("estimated_f1", "σ of the realised value around it", stats=("standard_error",), reference=True),
        Series("estimated_f1", "of the expected confusion", ("class_name",), preset="full", reference=True),
        Series(
            "estimated_roc_auc", "binary: of class 1, every row counting by its calibrated probability", reference=True
        ),
        Series("estimated_roc_auc", "mean over classes, more than two", stats=("macro",), reference=True),
        Series("estimated_roc_auc", "σ of the realised value around it", stats=("standard_error",), reference=True),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        classes = len(ctx.schema.classes)
        return {
            "of": "" if ctx.reference is None else ctx.reference.digest,
            "rows": 0,
            "confusion": np.zeros((classes, classes)),
            "variance": np.zeros((2, classes)),  # of rows predicted as the class, and of the others
            "doubt": 0.0,
            "hits": np.zeros((2, len(_ranked(classes)), BINS if classes <= RANKED else 0)),
        }

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        if ctx.reference is None or ctx.reference.calibration is None:
            return acc
        new = self.create(ctx)
        present = ~np.isnan(batch.probabilities[:, 0])
        p, predicted = batch.probabilities[present].astype(np.float64), batch.predicted[present]
        q = calibrated(p, ctx.reference)
        classes = q.shape[1]
        new["rows"] = len(q)
        doubt = q * (1 - q)
        one_hot = np.zeros((len(q), classes))
        one_hot[np.arange(len(q)), predicted] = 1.0
        new["confusion"] = q.T @ one_hot
        new["variance"] = np.stack([(doubt * one_hot).sum(axis=0), (doubt * (1 - one_hot)).sum(axis=0)])
        new["doubt"] = float((doubt * one_hot).sum())
        if classes <= RANKED:
            for i, c in enumerate(_ranked(classes)):
                where = _score_bins(p[:, c])
                new["hits"][0, i] = np.bincount(where, q[:, c], BINS)
                new["hits"][1, i] = np.bincount(where, 1 - q[:, c], BINS)
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        if left["of"] != right["of"]:  # the reference changed with a restart
            return max(left, right, key=lambda acc: (acc["rows"], acc["of"]))
        return {key: value if key == "of" else value + right[key] for key, value in left.items()}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if not acc["rows"] or ctx.reference is None or acc["of"] != ctx.reference.digest:
            return
        yield Value("estimated_accuracy", min(1.0, float(np.trace(acc["confusion"])) / acc["rows"]))
        yield Value("estimated_accuracy", float(np.sqrt(acc["doubt"])) / acc["rows"], stat="standard_error")
        yield from _f1(acc, ctx.schema.classes)
        yield from _areas(acc["hits"], len(ctx.schema.classes))


def calibrated(p: Array, reference: Profile) -> Array:
    """Return each class's calibrated probability, divided by the row's sum."""
    knots = reference.calibration or ()
    q = np.column_stack([p[:, c] if k is None else k.of(p[:, c]) for c, k in enumerate(knots)])
    total = q.sum(axis=1, keepdims=True)
    normalised: Array = np.where(total > 0, q / np.where(total > 0, total, 1), p)
    return normalised


def _ranked(classes: int) -> range:
    return range(1, 2) if classes == 2 else range(classes)


def _score_bins(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        logit = np.clip(np.log(p) - np.log1p(-p), -REACH, REACH)
    bins: Array = np.minimum(((logit + REACH) * (BINS / (2 * REACH))).astype(np.int64), BINS - 1)
    return bins


def _f1(acc: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Value]:
    confusion = acc["confusion"]
    values, variances = [], []
    for c, name in enumerate(names):
        hits, labels, predictions = confusion[c, c], confusion[c].sum(), confusion[:, c].sum()
        total, missed = labels + predictions, labels - hits
        if total <= 0:
            continue
        values.append(min(1.0, float(2 * hits / total)))
        of_hits, of_missed = 2 * (predictions + missed) / total**2, -2 * hits / total**2
        variances.append(of_hits**2 * acc["variance"][0, c] + of_missed**2 * acc["variance"][1, c])
        yield Value("estimated_f1", values[-1], class_name=name)
    yield Value("estimated_f1", float(np.mean(values)), stat="macro")
    yield Value("estimated_f1", float(np.sqrt(sum(variances))) / len(values), stat="standard_error")


def _areas(hits: Array, classes: int) -> Iterator[Value]:
    values, variances = [], []
    for positive, negative in zip(*hits, strict=True):
        p, n = float(positive.sum()), float(negative.sum())
        if p < 1 or n < 1:  # fewer than one such row is expected
            continue
        below = np.cumsum(negative) - negative
        area = min(1.0, float((positive * (below + negative / 2)).sum()) / (p * n))
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        spread = area * (1 - area) + (p - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)
        values.append(area)
        variances.append(max(0.0, spread) / (p * n))
    if values:
        yield Value("estimated_roc_auc", float(np.mean(values)), stat="" if classes == 2 else "macro")
        yield Value("estimated_roc_auc", float(np.sqrt(sum(variances))) / len(values), stat="standard_error")


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Estimated())
