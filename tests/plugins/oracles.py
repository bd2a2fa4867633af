"""What every series must be, computed from the raw rows by NumPy, SciPy and scikit-learn: no line of zmon is used here.

One oracle per metric, by the metric's name; the suite fails for a metric that has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from scipy.stats import entropy
from sklearn import metrics as sk

Key = tuple[tuple[str, str], ...]
Expected = dict[Key, float]


@dataclass
class Rows:
    """Raw rows as a user has them: labels are indices with −1 for unlabelled."""

    classes: tuple[str, ...]
    probabilities: np.ndarray | None = None
    predictions: np.ndarray | None = None
    labels: np.ndarray | None = None
    inputs: np.ndarray | None = None
    features: tuple[str, ...] = ()
    threshold: float = 0.5
    coded: pandas.DataFrame | None = None  # categorical and boolean columns, None where missing
    hashed: pandas.DataFrame | None = None  # columns of ids, None where missing
    skipped: tuple[str, ...] = ()
    task: str = "classification"  # a regression's labels are targets, NaN for none

    @property
    def n(self) -> int:
        return len(self.probabilities if self.probabilities is not None else self.predictions)  # type: ignore[arg-type]

    @property
    def p(self) -> np.ndarray:
        assert self.probabilities is not None
        p = self.probabilities
        return (np.column_stack([1 - p, p]) if p.ndim == 1 else p).astype(np.float64)

    @property
    def predicted(self) -> np.ndarray:
        if self.predictions is not None:
            return self.predictions
        if len(self.classes) == 2:
            raw = self.probabilities if self.probabilities.ndim == 1 else self.probabilities[:, 1]  # type: ignore[union-attr]
            return (raw > self.threshold).astype(int)
        return self.probabilities.argmax(axis=1)  # type: ignore[union-attr]


def key(what: str, **names: str) -> Key:
    return tuple(sorted({"what": what, **names}.items()))


def stats(values: np.ndarray) -> dict[str, float]:
    """All statistics of a one-dimensional array, straight from NumPy."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return {}
    q25, q75 = np.quantile(values, [0.25, 0.75])
    return {
        "mean": values.mean(),
        "median": np.median(values),
        "std": values.std(),
        "range": np.ptp(values),
        "q25": q25,
        "q50": np.quantile(values, 0.5),
        "q75": q75,
        "iqr": q75 - q25,
        "min": values.min(),
        "max": values.max(),
        "q05": np.quantile(values, 0.05),
        "q95": np.quantile(values, 0.95),
        "q99": np.quantile(values, 0.99),
    }


def predicted_classes(rows: Rows) -> Expected:
    if rows.task != "classification":
        return {}
    counts = np.bincount(rows.predicted, minlength=len(rows.classes))
    found = {key("prediction_count", class_name=name): float(n) for name, n in zip(rows.classes, counts, strict=True)}
    return found | {
        key("prediction_freq", class_name=name): n / rows.n for name, n in zip(rows.classes, counts, strict=True)
    }


def confidence(rows: Rows) -> Expected:
    if rows.probabilities is None:
        return {}
    p = rows.p
    ordered = np.sort(p, axis=1)
    measures = {
        "max_prediction_proba": ordered[:, -1],
        "spread12_prediction_proba": ordered[:, -1] - ordered[:, -2],
        "prediction_entropy": np.array([-sum(x * np.log(x) for x in row if x > 0) for row in p]) / np.log(p.shape[1]),
    }
    found = {key(what, stat=s): v for what, values in measures.items() for s, v in stats(values).items()}
    if np.allclose(p.sum(axis=1), 1):
        assert np.allclose(measures["prediction_entropy"], entropy(p, axis=1) / np.log(p.shape[1]), atol=1e-5)
    for i, name in enumerate(rows.classes):
        found[key("class_proba", class_name=name, stat="mean")] = p[:, i].mean()
    return found


def numeric_features(rows: Rows) -> Expected:
    if rows.inputs is None:
        return {}
    found: Expected = {}
    for i, name in enumerate(rows.features):
        column = rows.inputs[:, i].astype(np.float64)
        finite = column[np.isfinite(column)]
        found |= {key("feature_value", feat_name=name, stat=s): v for s, v in stats(finite).items() if np.isfinite(v)}
        found[key("feature_missing_freq", feat_name=name)] = np.isnan(column).mean()
        found[key("feature_inf_count", feat_name=name)] = float(np.isinf(column).sum())
    return found


def categorical_features(rows: Rows, most: int = 50) -> Expected:
    if rows.coded is None:
        return {}
    found: Expected = {}
    for name, column in rows.coded.items():
        text = column.map(str, na_action="ignore")
        counts, shares = text.value_counts(), text.value_counts(normalize=True)
        ordered = sorted(counts.index, key=lambda each: (-counts[each], each))
        for category in ordered[:most]:
            found[key("feature_count", feat_name=name, category=category)] = float(counts[category])
            found[key("feature_freq", feat_name=name, category=category)] = shares[category]
        if ordered[most:]:
            rest = counts[ordered[most:]].sum()
            found[key("feature_count", feat_name=name, category="__other__")] = float(rest)
            found[key("feature_freq", feat_name=name, category="__other__")] = rest / counts.sum()
        found[key("feature_unique", feat_name=name)] = float(text.nunique())
        found[key("feature_missing_freq", feat_name=name)] = column.isna().mean()
    return found


def hashed_features(rows: Rows) -> Expected:
    if rows.hashed is None:
        return {}
    found: Expected = {}
    for name, column in rows.hashed.items():
        found[key("feature_unique", feat_name=name)] = float(column.nunique())
        found[key("feature_missing_freq", feat_name=name)] = column.isna().mean()
        lengths = column.dropna().map(len)
        for stat in ("mean", "min", "max") if len(lengths) else ():
            found[key("feature_length", feat_name=name, stat=stat)] = float(lengths.agg(stat))
    return found


def skipped_features(rows: Rows) -> Expected:
    return {key("feature_skipped_count", feat_name=name): float(rows.n) for name in rows.skipped}


def performance(rows: Rows) -> Expected:
    if rows.task != "classification" or rows.labels is None or not (rows.labels >= 0).any():
        return {}
    known = rows.labels >= 0
    truth, said = rows.labels[known], rows.predicted[known]
    indices = range(len(rows.classes))
    found: Expected = {key("accuracy"): sk.accuracy_score(truth, said)}
    present = sorted(set(truth) | set(said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("macro", "weighted"):
            scores = sk.precision_recall_fscore_support(truth, said, labels=present, average=average, zero_division=0)
            for what, score in zip(("precision", "recall", "f1"), scores, strict=False):
                found[key(what, stat=average)] = float(score)
        for i, name in enumerate(rows.classes):
            t, s = truth == i, said == i
            found[key("accuracy", class_name=name)] = sk.accuracy_score(t, s)
            if s.any():
                found[key("precision", class_name=name)] = sk.precision_score(t, s)
            if t.any():
                found[key("recall", class_name=name)] = sk.recall_score(t, s)
            if t.any() or s.any():
                found[key("f1", class_name=name)] = sk.f1_score(t, s, zero_division=0)
            found[key("label_count", class_name=name)] = float(t.sum())
            found[key("label_freq", class_name=name)] = t.mean()
    matrix = sk.confusion_matrix(truth, said, labels=list(indices))
    for i, true in enumerate(rows.classes):
        for j, predicted in enumerate(rows.classes):
            found[key("confusion_count", class_name=true, predicted=predicted)] = float(matrix[i, j])
    vary = len(set(truth)) > 1 and len(set(said)) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes without a label
        found[key("balanced_accuracy")] = sk.balanced_accuracy_score(truth, said)
        if vary:
            found[key("mcc")] = sk.matthews_corrcoef(truth, said)
        if len(set(truth) | set(said)) > 1:
            found[key("cohen_kappa")] = sk.cohen_kappa_score(truth, said)
    return found


def _labelled(rows: Rows) -> tuple[np.ndarray, np.ndarray] | None:
    if rows.probabilities is None or rows.labels is None or not (rows.labels >= 0).any():
        return None
    known = rows.labels >= 0
    return rows.labels[known], rows.p[known]


def scores(rows: Rows) -> Expected:
    given = _labelled(rows)
    if given is None:
        return {}
    truth, p = given
    labels = range(len(rows.classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of float32 rows that do not sum to one
        loss = sk.log_loss(truth, p, labels=list(labels))
        if len(labels) == 2:
            brier = sk.brier_score_loss(truth, p[:, 1], pos_label=1)
        else:
            brier = sk.brier_score_loss(truth, p, labels=list(labels))
    return {key("log_loss"): loss, key("brier"): brier}


def calibration(rows: Rows) -> Expected:
    given = _labelled(rows)
    if given is None:
        return {}
    truth, p = given
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins = pandas.cut(confidence, np.linspace(0, 1, 16), labels=False, include_lowest=True)
    table = pandas.DataFrame({"confidence": confidence, "right": right, "bin": bins}).groupby("bin")
    gap = (table["right"].mean() - table["confidence"].mean()).abs()
    return {
        key("calibration_ece"): float((gap * table.size()).sum() / len(truth)),
        key("calibration_mce"): float(gap.max()),
    }


def ranking(rows: Rows) -> Expected:
    given = _labelled(rows)
    if given is None:
        return {}
    truth, p = given
    found: Expected = {}
    for what, score in (("roc_auc", sk.roc_auc_score), ("pr_auc", sk.average_precision_score)):
        if len(rows.classes) == 2:
            if len(set(truth)) == 2:
                found[key(what)] = score(truth, p[:, 1])
            continue
        values, weights = [], []
        for i, name in enumerate(rows.classes):
            if 0 < (truth == i).sum() < len(truth):
                values.append(score(truth == i, p[:, i]))
                weights.append((truth == i).sum())
                found[key(what, class_name=name)] = values[-1]
        if values:
            found[key(what, stat="macro")] = float(np.mean(values))
            found[key(what, stat="weighted")] = float(np.average(values, weights=weights))
    return found


def labels(rows: Rows) -> Expected:
    if rows.labels is None:
        return {key("label_coverage"): 0.0}
    known = np.isfinite(rows.labels) if rows.task == "regression" else rows.labels >= 0
    return {key("label_coverage"): float(known.mean())}


def regression(rows: Rows) -> Expected:
    if rows.task != "regression":
        return {}
    assert rows.predictions is not None
    found = {key("prediction_value", stat=s): v for s, v in stats(rows.predictions).items()}
    if rows.labels is None or not np.isfinite(rows.labels).any():
        return found
    known = np.isfinite(rows.labels)
    truth, said = rows.labels[known].astype(np.float64), rows.predictions[known].astype(np.float64)
    found |= {key("target_value", stat=s): v for s, v in stats(truth).items()}
    found[key("mae")] = sk.mean_absolute_error(truth, said)
    found[key("rmse")] = sk.root_mean_squared_error(truth, said)
    found[key("bias")] = float(np.mean(said - truth))
    if np.ptp(truth):
        found[key("r2")] = sk.r2_score(truth, said)
    if (truth != 0).any():
        found[key("mape")] = sk.mean_absolute_percentage_error(truth[truth != 0], said[truth != 0])
    return found


def rows(rows: Rows) -> Expected:
    return {key("buffer_count"): float(rows.n), key("rows_late"): 0.0}


def against_a_reference(rows: Rows) -> Expected:
    """Nothing without a reference; with one see test_drift.py and test_estimated.py."""
    return {}


ORACLES: dict[str, Callable[[Rows], Expected]] = {
    "predicted_classes": predicted_classes,
    "confidence": confidence,
    "numeric_features": numeric_features,
    "categorical_features": categorical_features,
    "hashed_features": hashed_features,
    "skipped_features": skipped_features,
    "performance": performance,
    "scores": scores,
    "calibration": calibration,
    "ranking": ranking,
    "labels": labels,
    "regression": regression,
    "rows": rows,
    "drift": against_a_reference,
    "estimated": against_a_reference,
    "reference": against_a_reference,
}


def everything(given: Rows) -> Expected:
    """Every series of every metric for these rows."""
    found: Expected = {}
    for oracle in ORACLES.values():
        found |= oracle(given)
    return found


def differences(found: dict[Key, float], expected: Expected, rtol: float = 1e-9, atol: float = 1e-12) -> list[str]:
    """Where the found series differ from the expected ones, for an assertion to show."""
    wrong: list[str] = [f"missing {k}" for k in expected.keys() - found.keys()]
    wrong += [f"unexpected {k} = {found[k]}" for k in found.keys() - expected.keys()]
    for k in expected.keys() & found.keys():
        if not np.isclose(found[k], expected[k], rtol=rtol, atol=atol):
            wrong.append(f"{k}: {found[k]!r}, not {expected[k]!r}")
    return sorted(wrong)


def plain(points: list[dict[str, Any]]) -> dict[Key, float]:
    """Written samples as the oracles name them; without those that need an agent's siblings, see test_drift.py."""
    hidden = ("ver", "target_type", "model", "model_version", "agent_id")
    found: dict[Key, float] = {}
    for point in points:
        if point["properties"]["what"].startswith("replica_"):
            continue
        names = tuple(sorted((k, v) for k, v in point["properties"].items() if k not in hidden))
        assert names not in found, f"two points of one series: {names}"
        found[names] = point["value"]
    return found
