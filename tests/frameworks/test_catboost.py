"""CatBoost: classifiers, regressors, types of predictions, pools, single rows."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
OPTIONS: dict[str, Any] = {"iterations": 5, "verbose": False, "allow_writing_files": False, "thread_count": 1}


@pytest.fixture(scope="module")
def catboost() -> Any:
    return require("catboost")


@pytest.fixture(scope="module")
def bare(catboost: Any) -> Any:
    return catboost.CatBoostClassifier(**OPTIONS).fit(X, NAMES[Y])


def test_points_equal_those_of_publishing_by_hand(bare: Any, catboost: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=list(NAMES), features=["a", "b", "c", "d"])
    model = zmon.watch(bare, pair.watched)
    pool = catboost.Pool(X, feature_names=["a", "b", "c", "d"])
    with pair.at_once():
        given = model.predict_proba(X)
        assert np.array_equal(model.predict(X), bare.predict(X)), "not published: predict_proba is"
        typed = model.predict(X, prediction_type="Probability")
        logs = model.predict(X, "LogProbability")
        model.predict_log_proba(X)
        pooled = model.predict_proba(pool)
    assert np.array_equal(given, bare.predict_proba(X))
    assert np.array_equal(typed, given)
    assert np.array_equal(logs, bare.predict_log_proba(X))
    assert type(copy.deepcopy(model)) is type(pickle.loads(pickle.dumps(model))) is type(bare)
    for p in (given, typed, np.exp(logs), np.exp(logs)):
        pair.by_hand(p, X)
    pair.by_hand(pooled, [dict(zip("abcd", row, strict=True)) for row in X.astype(np.float32).tolist()])
    assert any(("feat_name", "d") in names for names in pair.same("max_prediction_proba", "feature_value"))
    overhead("catboost predict_proba", lambda: bare.predict_proba(X[:32]), lambda: model.predict_proba(X[:32]))
    some = catboost.Pool(X[:32])
    overhead("catboost predict_proba, Pool", lambda: bare.predict_proba(some), lambda: model.predict_proba(some))


def test_single_rows_without_an_axis(bare: Any, publisher: Make) -> None:
    pub = publisher()
    kept: list[dict[str, Any]] = []
    pub.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    model = zmon.watch(bare, pub)
    assert np.array_equal(model.predict_proba(X[0]), bare.predict_proba(X[0]))
    model.predict_proba(X[0].tolist())
    zmon.watch(bare, pub, output="label").predict(X[0])
    assert [each["inputs"].tolist() for each in kept] == [X[:1].tolist()] * 3
    assert [np.shape(each["probabilities"]) for each in kept[:2]] == [(1, 3)] * 2
    assert kept[2]["predictions"].tolist() == ["setosa"]


def test_a_regressor(catboost: Any, twins: Callable[..., Twins]) -> None:
    bare = catboost.CatBoostRegressor(**OPTIONS).fit(X, Y)
    pair = twins(task="regression")
    model = zmon.watch(bare, pair.watched)
    with pair.at_once():
        given = model.predict(X)
        model.predict(catboost.Pool(X[:10]))
        model.predict(X[0])
    assert np.array_equal(given, bare.predict(X))
    pair.by_hand(predictions=given, inputs=X)
    pair.by_hand(predictions=given[:10], inputs=X[:10].astype(np.float32))
    pair.by_hand(predictions=given[:1], inputs=X[:1])
    pair.same("prediction_value", "feature_value")


def test_labels_and_logits(bare: Any, catboost: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=list(NAMES))
    plain = catboost.CatBoost(dict(OPTIONS, loss_function="MultiClass")).fit(X, NAMES[Y])
    with pair.at_once():
        given = zmon.watch(bare, pair.watched, output="label").predict(X)
        raw = zmon.watch(plain, pair.watched, output="logits").predict(X)
        zmon.watch(plain, pair.watched).predict(X, prediction_type="Probability")
    pair.by_hand(predictions=given[:, 0], inputs=X)
    p = plain.predict(X, prediction_type="Probability")
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), p, rtol=1e-9)
    pair.by_hand(p, X)
    pair.by_hand(p, X)
    pair.same("prediction_freq", "max_prediction_proba", "feature_value")


def test_what_is_not_published_is_said(
    bare: Any, catboost: Any, publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pub = publisher()
    pandas = require("pandas")
    with caplog.at_level(logging.WARNING, "zmon"):
        model = zmon.watch(bare, pub)
        for _ in range(2):
            model.predict(X)
            model.predict(X[:5], prediction_type="RawFormulaVal")
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"decision_function": 10})
    lines = [record.getMessage() for record in caplog.records]
    for remedy in ("call predict_proba, or watch the model with output='label'", "pass prediction_type='Probability'"):
        assert sum(remedy in line for line in lines) == 1
    frame = pandas.DataFrame({"city": ["Rome", "Oslo"] * 20, "n": range(40)})
    mixed = catboost.CatBoostClassifier(**OPTIONS).fit(frame, [0, 1] * 20, cat_features=["city"])
    other = publisher()
    zmon.watch(mixed, other).predict_proba(catboost.Pool(frame, cat_features=["city"]))  # its features cannot be read
    zmon.watch(mixed, other).predict_proba(frame)
    stats = settled(other)
    assert (stats.published, stats.rejected) == (80, {})
