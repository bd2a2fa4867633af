"""What the points of an example must be, computed row by row with pandas and scikit-learn: no line of zmon is used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas
from sklearn import metrics as sk

from tests.edge.columns import category, number
from tests.edge.examples import Call, Example
from tests.edge.harness import Key, key


def counted(example: Example) -> tuple[Counter[str], Counter[str]]:
    """Return the rejected and the degraded rows of all calls, by reason."""
    rejected: Counter[str] = Counter()
    degraded: Counter[str] = Counter()
    for call in example.calls:
        lost, worse = call.counted
        rejected += lost
        degraded += worse
    return rejected, degraded


def kept(call: Call) -> list[int]:
    """Return the rows of a call that are in the points."""
    return [i for i in range(call.n) if i not in call.lost]


def points(example: Example, features: set[str], segments: set[str]) -> dict[Key, float]:
    """Return the expected points, of the features and segments that the window knows."""
    calls = [(call, kept(call)) for call in example.calls]
    rows = sum(len(those) for _, those in calls)
    found: dict[Key, float] = {key("buffer_count"): rows} if rows else {}
    for feature in features:
        found |= _feature(feature, example.columns[feature], calls)
    found |= {names: rows for names, rows in _segments(calls).items() if dict(names)["segment_name"] in segments}
    if example.task == "classification":
        found |= _classification(example.classes, calls)
    elif example.task == "regression":
        found |= _regression(calls)
    return found


def _cells(feature: str, calls: list[tuple[Call, list[int]]]) -> list[Any]:
    """Return a column: a row whose inputs lack it has None; a call without usable inputs has no rows in it."""
    return [
        call.inputs[feature][i] if feature in call.inputs else None
        for call, those in calls
        if call.inputs is not None
        for i in those
    ]


def _feature(feature: str, kind: str, calls: list[tuple[Call, list[int]]]) -> dict[Key, float]:
    cells = _cells(feature, calls)
    if not cells:
        return {}
    if kind == "numeric":
        column = pandas.Series([math.nan if cell is None else number(cell) for cell in cells], dtype="float64")
        finite = column[np.isfinite(column)]
        found = {key("feature_missing_freq", feat_name=feature): column.isna().mean(),
                 key("feature_inf_count", feat_name=feature): float(np.isinf(column).sum())}  # fmt: skip
        if len(finite):
            found[key("feature_value", feat_name=feature, stat="mean")] = finite.mean()
            found[key("feature_value", feat_name=feature, stat="max")] = finite.max()
        return found
    names = pandas.Series([None if cell is None else category(cell) for cell in cells], dtype=object)
    found = {key("feature_missing_freq", feat_name=feature): names.isna().mean(),
             key("feature_unique", feat_name=feature): float(names.nunique())}  # fmt: skip
    for name, count in names.value_counts().items():
        found[key("feature_count", feat_name=feature, category=str(name))] = float(count)
    return found


def _segments(calls: list[tuple[Call, list[int]]]) -> dict[Key, float]:
    counts: Counter[tuple[str, str]] = Counter()
    for call, those in calls:
        for name, values in (call.segments or {}).items():
            counts.update((name, values[i]) for i in those if values[i] is not None)
    return {
        key("buffer_count", segment_name=name, segment_value=value): float(n) for (name, value), n in counts.items()
    }


def _rows(calls: list[tuple[Call, list[int]]]) -> Iterator[dict[str, Any]]:
    for call, those in calls:
        for i in those:
            yield {
                "p": None if call.p is None else call.p[i],
                "said": None if call.said is None else call.said[i],
                "label": None if call.labels is None else call.labels[i],
            }


def _classification(classes: tuple[str, ...], calls: list[tuple[Call, list[int]]]) -> dict[Key, float]:
    frame = pandas.DataFrame(list(_rows(calls)), columns=["p", "said", "label"], dtype=object)
    found: dict[Key, float] = {}
    with_p = frame[frame["p"].notna()]
    if len(with_p):
        p = np.stack(with_p["p"].to_list())
        found[key("max_prediction_proba", stat="mean")] = p.max(axis=1).mean()
        for i, name in enumerate(classes):
            found[key("class_proba", class_name=name, stat="mean")] = p[:, i].mean()
        labelled = with_p["label"].notna().to_numpy()
        if labelled.any():
            chosen = p[labelled, with_p["label"][labelled].astype(int)]
            found[key("log_loss")] = float(
                -np.log(np.clip(chosen, 2.220446049250313e-16, 1 - 2.220446049250313e-16)).mean()
            )
    if not len(frame):
        return found
    frame["predicted"] = [
        int(p[1] > 0.5 if len(classes) == 2 else np.argmax(p)) if said is None else said
        for said, p in zip(frame["said"], frame["p"], strict=True)
    ]
    for i, name in enumerate(classes):
        found[key("prediction_count", class_name=name)] = float((frame["predicted"] == i).sum())
    known = frame[frame["label"].notna()]
    if len(known):
        truth, said = known["label"].astype(int), known["predicted"].astype(int)
        found[key("accuracy")] = sk.accuracy_score(truth, said)
        matrix = sk.confusion_matrix(truth, said, labels=list(range(len(classes))))
        for i, true in enumerate(classes):
            for j, other in enumerate(classes):
                found[key("confusion_count", class_name=true, predicted=other)] = float(matrix[i, j])
    return found


def _regression(calls: list[tuple[Call, list[int]]]) -> dict[Key, float]:
    frame = pandas.DataFrame(list(_rows(calls)), columns=["p", "said", "label"])
    if not len(frame):
        return {}
    found = {key("prediction_value", stat="mean"): frame["said"].astype(float).mean()}
    known = frame[frame["label"].notna()].astype({"said": float, "label": float})
    if len(known):
        found[key("mae")] = sk.mean_absolute_error(known["label"], known["said"])
        found[key("target_value", stat="mean")] = known["label"].mean()
    return found
