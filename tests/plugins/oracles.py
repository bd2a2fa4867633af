"""What every series must be, computed from the raw rows by NumPy, SciPy and scikit-learn: no line of zmon is used here.

One oracle per metric, by the metric's name; the suite fails for a metric that has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
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

    @property
    def n(self) -> int:
        return len(self.probabilities if self.probabilities is not None else self.predictions)  # type: ignore[arg-type]

    @property
    def p(self) -> np.ndarray:
        assert self.probabilities is not None
        p = self.probabilities.astype(np.float64)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p

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


def performance(rows: Rows) -> Expected:
    if rows.labels is None or not (rows.labels >= 0).any():
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
    return found


def rows(rows: Rows) -> Expected:
    return {key("buffer_count"): float(rows.n), key("rows_late"): 0.0}


ORACLES: dict[str, Callable[[Rows], Expected]] = {
    "predicted_classes": predicted_classes,
    "confidence": confidence,
    "numeric_features": numeric_features,
    "performance": performance,
    "rows": rows,
}


def everything(given: Rows) -> Expected:
    """Every series of every metric for these rows."""
    found: Expected = {}
    for oracle in ORACLES.values():
        found |= oracle(given)
    return found


def differences(found: dict[Key, float], expected: Expected, rtol: float = 1e-9) -> list[str]:
    """Where the found series differ from the expected ones, for an assertion to show."""
    wrong: list[str] = [f"missing {k}" for k in expected.keys() - found.keys()]
    wrong += [f"unexpected {k} = {found[k]}" for k in found.keys() - expected.keys()]
    for k in expected.keys() & found.keys():
        if not np.isclose(found[k], expected[k], rtol=rtol, atol=1e-12):
            wrong.append(f"{k}: {found[k]!r}, not {expected[k]!r}")
    return sorted(wrong)


def plain(points: list[dict[str, Any]]) -> dict[Key, float]:
    """Written samples as the oracles name them."""
    hidden = ("ver", "target_type", "model", "model_version", "agent_id")
    found: dict[Key, float] = {}
    for point in points:
        names = tuple(sorted((k, v) for k, v in point["properties"].items() if k not in hidden))
        assert names not in found, f"two points of one series: {names}"
        found[names] = point["value"]
    return found
