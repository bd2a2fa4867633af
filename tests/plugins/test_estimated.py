"""Performance before labels: near what the labels say later under covariate shift, and blind under concept drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import zmon
from tests.support.metrics import METRICS
from zmon.batch import Batch, Schema
from zmon.contract import Context, RowCounts, Window
from zmon.reference import Profile
from zmon.testing import check_metric

ESTIMATED = METRICS["estimated"]
WINDOWS = 20


@dataclass
class World:
    """Rows x with a known P(y | x), and a model that is overconfident: calibration has something to do."""

    classes: int
    seed: int

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.weights = np.random.default_rng(7).normal(0, 1.5, (3, self.classes))

    def truth(self, x: np.ndarray, concept: float = 1.0) -> np.ndarray:
        return softmax(concept * x @ self.weights)

    def rows(self, n: int, shift: float, concept: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """What the model says, and the labels; `shift` moves and narrows x: other rows, the same P(y | x)."""
        x = self.random.normal(shift * 0.8, 1.0 - 0.5 * abs(shift), (n, 3))
        chance = self.truth(x, concept)
        labels = (chance.cumsum(axis=1) < self.random.random((n, 1))).sum(axis=1)
        return softmax(1.8 * x @ self.weights), labels

    def reference(self) -> Profile:
        p, labels = self.rows(20_000, 0.0)
        return zmon.profile(p, labels=labels, classes=self.classes)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def estimated(profile: Profile, p: np.ndarray) -> dict[tuple[str, str], float]:
    batch = Batch(profile.schema, {"probabilities": p})
    ctx = Context("m", "", None, profile.schema, Window(0, 60), reference=profile)
    acc = ESTIMATED.update(ESTIMATED.create(ctx), batch, ctx)
    return {(v.what, v.stat): v.value for v in ESTIMATED.result(acc, ctx) if not v.class_name}


def realised(p: np.ndarray, labels: np.ndarray) -> dict[tuple[str, str], float]:
    said = p.argmax(axis=1) if p.shape[1] > 2 else (p[:, 1] > 0.5).astype(int)
    binary = p.shape[1] == 2
    area = roc_auc_score(labels, p[:, 1]) if binary else roc_auc_score(labels, p, multi_class="ovr")
    return {
        ("estimated_accuracy", ""): accuracy_score(labels, said),
        ("estimated_f1", "macro"): f1_score(labels, said, average="macro"),
        ("estimated_roc_auc", "" if binary else "macro"): area,
    }


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_estimates_are_near_what_labels_say_under_covariate_shift(classes: int, seed: int, capsys: Any) -> None:
    world = World(classes, seed)
    profile = world.reference()
    errors: dict[tuple[str, str], list[float]] = {}
    covered = total = 0
    accuracies = []
    for window in range(WINDOWS):
        p, labels = world.rows(1000, window / (WINDOWS - 1) * 2 - 1)
        found, true = estimated(profile, p), realised(p, labels)
        accuracies.append(true["estimated_accuracy", ""])
        for key, value in true.items():
            errors.setdefault(key, []).append(abs(found[key] - value))
            covered += abs(found[key] - value) < 3 * found[key[0], "standard_error"] + 0.01
            total += 1
    means = {what: float(np.mean(each)) for (what, _), each in errors.items()}
    with capsys.disabled():
        shown = ", ".join(f"{what[10:]} {value:.4f}" for what, value in means.items())
        print(f"\n{classes} classes, seed {seed}: mean absolute error {shown}")
    assert max(accuracies) - min(accuracies) > 0.04, "the shift changes what there is to estimate"
    assert all(value <= 0.02 for value in means.values())
    assert covered / total > 0.95


def test_without_calibration_it_would_be_far_off() -> None:
    world = World(2, 0)
    profile = world.reference()
    p, labels = world.rows(5000, 0.5)
    raw = p.max(axis=1).mean()
    true = realised(p, labels)["estimated_accuracy", ""]
    assert abs(raw - true) > 0.03 > abs(estimated(profile, p)["estimated_accuracy", ""] - true)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_blind_under_concept_drift(classes: int) -> None:
    """The same rows, another meaning: the labels say so, the estimate does not move."""
    world = World(classes, 1)
    profile = world.reference()
    before = estimated(profile, world.rows(5000, 0.0)[0])["estimated_accuracy", ""]
    p, labels = world.rows(5000, 0.0, concept=-0.5)
    after = estimated(profile, p)["estimated_accuracy", ""]
    assert abs(after - before) < 0.02
    assert after - realised(p, labels)["estimated_accuracy", ""] > 0.3


def test_the_laws_hold_with_a_reference() -> None:
    world = World(3, 2)
    profile = world.reference()
    p, _ = world.rows(300, 0.0)
    parts = [Batch(profile.schema, {"probabilities": p[a:b]}) for a, b in ((0, 100), (100, 101), (101, 300))]
    whole = Batch(profile.schema, {"probabilities": p})
    ctx = Context("m", "", None, profile.schema, Window(0, 60), reference=profile, rows=RowCounts(300), sample=whole)
    check_metric(ESTIMATED, parts, ctx)


def test_the_expected_confusion_is_that_of_drawn_labels() -> None:
    """Exact calibration: the mean over many draws of labels is the estimate, their spread its standard error."""
    random = np.random.default_rng(3)
    p = random.dirichlet((1, 1, 1), 400)
    labels = np.array([random.choice(3, p=each) for each in random.dirichlet((1, 1, 1), 300)])
    profile = zmon.profile(random.dirichlet((1, 1, 1), 300), labels=labels, classes=3)
    exact = Profile(profile.schema, 300, profile.numeric, (), calibration=(None, None, None))
    found = estimated(exact, p)
    draws = [realised(p, (p.cumsum(axis=1) < random.random((400, 1))).sum(axis=1)) for _ in range(400)]
    for key in draws[0]:
        values = np.array([each[key] for each in draws])
        assert found[key] == pytest.approx(values.mean(), abs=0.005)
        assert found[key[0], "standard_error"] == pytest.approx(values.std(), rel=0.5)


def test_nothing_is_said_without_labels_or_without_a_reference() -> None:
    p = np.random.default_rng(0).dirichlet((1, 1), 500)
    assert estimated(zmon.profile(p, classes=2), p) == {}
    schema = Schema(classes=("a", "b"))
    ctx = Context("m", "", None, schema, Window(0, 60))
    acc = ESTIMATED.update(ESTIMATED.create(ctx), Batch(schema, {"probabilities": p}), ctx)
    assert list(ESTIMATED.result(acc, ctx)) == []
