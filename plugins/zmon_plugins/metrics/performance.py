"""Scores of a classifier over labelled rows, all derived from the confusion matrix.

For one class against the rest, with TP, FP, FN and TN counted over the n labelled rows:

================= ======================= ============================================ ==================
series            keys                    definition                                   left out when
================= ======================= ============================================ ==================
accuracy          class_name              (TP + TN) / n                                n = 0
precision         class_name              TP / (TP + FP)                               never predicted
recall            class_name              TP / (TP + FN)                               never a label
f1                class_name              2 TP / (2 TP + FP + FN)                      neither
accuracy          –                       share of rows predicted right                n = 0
precision, recall,
f1                stat = macro            mean over the classes present in labels or   n = 0
                                          predictions; a 0/0 counts as 0
the same          stat = weighted         mean weighted by the classes' labels         n = 0
balanced_accuracy –                       mean recall over the classes with a label    n = 0
mcc               –                       (n Σ TP_c − Σ L_c P_c) / √((n² − Σ P_c²)     labels or predictions
                                          (n² − Σ L_c²)), L_c labels and P_c           hold one class only
                                          predictions of class c (Gorodkin, 2004)
cohen_kappa       –                       (p_o − p_e) / (1 − p_e), p_o = Σ TP_c / n,   both hold one and the
                                          p_e = Σ L_c P_c / n² (Cohen, 1960)           same class
confusion_count   class_name, predicted   rows with that label and that prediction;    –
                                          zeros only up to 50 classes
label_count       class_name              rows with that label                         –
label_freq        class_name              label_count / n                              n = 0
================= ======================= ============================================ ==================

All values except counts are in [0, 1], mcc and cohen_kappa in [−1, 1]. Definitions: scikit-learn's, with
zero_division=0 in the means. The first four series come from the earlier MLWatcher agent.

>>> import numpy as np
>>> from zmon import Batch, Context, Schema, Window
>>> schema = Schema(classes=("no", "yes"))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60))
>>> columns = {"predictions": np.array([0, 1, 1, 1]), "labels": np.array([0, 1, 0, -1])}
>>> metric = Performance()
>>> acc = metric.update(metric.create(ctx), Batch(schema, columns), ctx)
>>> {v.class_name: round(v.value, 3) for v in metric.result(acc, ctx) if v.what == "precision" and v.class_name}
{'no': 1.0, 'yes': 0.5}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon_plugins import counts as sparse

DENSE_CLASSES = 50  # up to this number, zeros of the confusion matrix are emitted, too


class Performance:
    """Scores from labels. Accumulator: the non-zero cells of the confusion matrix, by code.

    A cell's code is ``label * n_classes + prediction``; codes ascend.
    """

    name = "performance"
    task = "classification"
    needs = frozenset({"predicted", "labels"})
    series = (
        Series("accuracy", "share of labelled rows predicted right", preset="minimal"),
        Series("accuracy", "(TP + TN) / n of the class against the rest", ("class_name",)),
        Series("precision", "TP / (TP + FP)", ("class_name",)),
        Series("recall", "TP / (TP + FN)", ("class_name",)),
        Series("f1", "2 TP / (2 TP + FP + FN)", ("class_name",)),
        Series("f1", "mean over the classes present", stats=("macro",), preset="minimal"),
        Series("f1", "mean weighted by the classes' labels", stats=("weighted",), preset="full"),
        Series("precision", "mean over the classes present, or weighted", stats=("macro", "weighted"), preset="full"),
        Series("recall", "mean over the classes present, or weighted", stats=("macro", "weighted"), preset="full"),
        Series("balanced_accuracy", "mean recall over the classes with a label", preset="full"),
        Series("mcc", "Matthews correlation of labels and predictions", preset="full"),
        Series("cohen_kappa", "(p_o − p_e) / (1 − p_e): agreement beyond chance", preset="full"),
        Series("confusion_count", "rows with that label and prediction", ("class_name", "predicted"), preset="full"),
        Series("label_count", "rows with that label", ("class_name",), preset="full"),
        Series("label_freq", "share of the labelled rows with that label", ("class_name",), preset="full"),
    )

    def create(self, ctx: Context) -> sparse.Counts:
        return sparse.empty()

    def update(self, acc: sparse.Counts, batch: Batch, ctx: Context) -> sparse.Counts:
        labelled = batch.labels >= 0
        codes = batch.labels[labelled].astype(np.int64) * len(ctx.schema.classes) + batch.predicted[labelled]
        return sparse.merge(acc, sparse.of(codes))

    def merge(self, left: sparse.Counts, right: sparse.Counts) -> sparse.Counts:
        return sparse.merge(left, right)

    def result(self, acc: sparse.Counts, ctx: Context) -> Iterable[Value]:
        names = ctx.schema.classes
        k = len(names)
        label, prediction = np.divmod(acc["keys"], k)
        counts = acc["counts"]
        n = int(counts.sum())
        if not n:
            return
        hits = label == prediction
        tp = _by_class(label[hits], counts[hits], k)
        labels, predictions = _by_class(label, counts, k), _by_class(prediction, counts, k)
        yield Value("accuracy", int(tp.sum()) / n)
        yield from _averages(tp, labels, predictions)
        yield from _agreement(tp, labels, predictions)
        for i, name in enumerate(names):
            good, of_label, of_prediction = int(tp[i]), int(labels[i]), int(predictions[i])
            yield Value("accuracy", (n - of_label - of_prediction + 2 * good) / n, class_name=name)
            if of_prediction:
                yield Value("precision", good / of_prediction, class_name=name)
            if of_label:
                yield Value("recall", good / of_label, class_name=name)
            if of_label + of_prediction:
                yield Value("f1", 2 * good / (of_label + of_prediction), class_name=name)
            yield Value("label_count", of_label, class_name=name)
            yield Value("label_freq", of_label / n, class_name=name)
        yield from _confusion(names, acc["keys"], counts)


def _by_class(which: Array, counts: Array, classes: int) -> Array:
    total = np.zeros(classes, dtype=np.int64)
    np.add.at(total, which, counts)
    return total


def _averages(tp: Array, labels: Array, predictions: Array) -> Iterator[Value]:
    present = (labels + predictions) > 0
    scores = {
        "precision": tp / np.maximum(predictions, 1),
        "recall": tp / np.maximum(labels, 1),
        "f1": 2 * tp / np.maximum(labels + predictions, 1),
    }
    for what, score in scores.items():
        yield Value(what, float(score[present].mean()), stat="macro")
        yield Value(what, float((score * labels).sum() / labels.sum()), stat="weighted")


def _agreement(tp: Array, labels: Array, predictions: Array) -> Iterator[Value]:
    labelled = labels > 0
    yield Value("balanced_accuracy", float((tp[labelled] / labels[labelled]).mean()))
    n, right = int(labels.sum()), int(tp.sum())
    chance = int(labels @ predictions)
    vary = (n * n - int(labels @ labels)) * (n * n - int(predictions @ predictions))
    if vary:
        yield Value("mcc", (n * right - chance) / math.sqrt(vary))
    if n * n != chance:
        yield Value("cohen_kappa", (n * right - chance) / (n * n - chance))


def _confusion(names: tuple[str, ...], codes: Array, counts: Array) -> Iterator[Value]:
    k = len(names)
    cells = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    for code in range(k * k) if k <= DENSE_CLASSES else cells:
        yield Value("confusion_count", cells.get(code, 0), class_name=names[code // k], predicted=names[code % k])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Performance())
