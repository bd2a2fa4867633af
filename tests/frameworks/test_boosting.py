"""xgboost and lightgbm: their scikit-learn interface, and boosters, whose predict may give anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

X, Y = load_iris(return_X_y=True)
Make = Callable[..., zmon.Publisher]


def classifier(name: str) -> Any:
    if name == "xgboost":
        return require("xgboost").XGBClassifier(n_estimators=5, n_jobs=1)
    return require("lightgbm").LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.filterwarnings("ignore")
def test_their_classifiers(name: str, twins: Callable[..., Twins]) -> None:
    bare = classifier(name).fit(X, Y)
    pair = twins()
    model = zmon.watch(bare, pair.watched)
    with pair.at_once():
        given = model.predict_proba(X)
        model.predict(X)
    assert np.array_equal(given, bare.predict_proba(X))
    assert type(clone(model)) is type(copy.deepcopy(model)) is type(pickle.loads(pickle.dumps(model))) is type(bare)
    assert np.array_equal(cross_val_score(model, X, Y, cv=2), cross_val_score(bare, X, Y, cv=2))
    pair.hand.class_names([0, 1, 2])
    pair.by_hand(given, X)
    pair.same("max_prediction_proba", "feature_value")
    overhead(f"{name} predict_proba", lambda: bare.predict_proba(X[:32]), lambda: model.predict_proba(X[:32]), 20)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.filterwarnings("ignore")
def test_their_regressors(name: str, publisher: Make) -> None:
    module = require(name)
    bare = (module.XGBRegressor if name == "xgboost" else module.LGBMRegressor)(n_estimators=5, n_jobs=1).fit(X, Y)
    pub = publisher(task="regression")
    model = zmon.watch(bare, pub)
    assert np.array_equal(model.predict(X), bare.predict(X))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    overhead(f"{name} predict of a regressor", lambda: bare.predict(X[:32]), lambda: model.predict(X[:32]), 20)


@pytest.mark.filterwarnings("ignore")
def test_boosters_are_asked_what_they_give(publisher: Make) -> None:
    lightgbm = require("lightgbm")
    pub = publisher()
    booster = classifier("lightgbm").fit(X, Y).booster_
    with pytest.raises(zmon.ConfigurationError, match="pass output='proba', 'logits'"):
        zmon.watch(booster, pub)
    watched = zmon.watch(booster, pub, output="proba")
    assert np.array_equal(watched.predict(X), booster.predict(X))
    raw = zmon.watch(booster, pub, output="logits").predict(X, raw_score=True)
    assert np.array_equal(raw, booster.predict(X, raw_score=True))
    assert isinstance(booster, lightgbm.Booster)
    margin = zmon.watch(booster, pub, output="proba").predict(X, 0, None, True)  # raw_score, by its place
    assert np.array_equal(margin, raw)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (450, {})
    some, one = X[:32], {"num_threads": 1}
    overhead("lightgbm booster", lambda: booster.predict(some, **one), lambda: watched.predict(some, **one), 20)


@pytest.fixture(scope="module")
def mixed() -> Any:
    """Numbers with missing values and zeros, and a column of categories."""
    frame = require("pandas").DataFrame(X, columns=["a", "b", "c", "d"])
    frame.loc[3, "a"], frame.loc[4, "a"] = np.nan, 0.0
    frame["kind"] = require("pandas").Categorical(["x", "y", "z"] * 50)
    return frame


@pytest.fixture(scope="module")
def native(mixed: Any) -> Any:
    xgboost = require("xgboost")
    matrix = xgboost.DMatrix(mixed, Y, enable_categorical=True)
    return xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, matrix, 5)


def test_xgboost_takes_features_from_its_matrix(native: Any, mixed: Any, twins: Callable[..., Twins]) -> None:
    xgboost = require("xgboost")
    matrix = xgboost.DMatrix(mixed, enable_categorical=True, nthread=1)
    pair = twins(classes=3)
    watched = zmon.watch(native, pair.watched, output="proba")
    with pair.at_once():
        given = watched.predict(matrix)
        direct = watched.inplace_predict(mixed)
        margin = watched.predict(matrix, output_margin=True)
        watched.inplace_predict(mixed, predict_type="margin")
    assert np.array_equal(given, native.predict(matrix))
    assert np.array_equal(direct, native.inplace_predict(mixed))
    assert np.array_equal(margin, native.predict(matrix, output_margin=True))
    single = mixed.astype(dict.fromkeys("abcd", np.float32))
    powers = np.exp(margin - margin.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    for p, rows in ((given, single), (direct, mixed), (softmax, single), (softmax, mixed)):
        pair.by_hand(p, rows)
    points = pair.same("feature_value", "feature_freq", "max_prediction_proba")
    assert any(("feat_name", "kind") in names for names in points)
    some = xgboost.DMatrix(mixed[:32].drop(columns="kind"), nthread=1)
    bare = xgboost.train({"nthread": 1, "objective": "multi:softprob", "num_class": 3}, xgboost.DMatrix(X, Y), 5)
    bare.feature_names = None
    plain = zmon.watch(bare, pair.watched, output="proba")
    options: dict[str, Any] = {"validate_features": False}
    overhead("xgboost booster, DMatrix", lambda: bare.predict(some, **options), lambda: plain.predict(some, **options))
    rows = X[:32]
    overhead("xgboost inplace_predict", lambda: bare.inplace_predict(rows), lambda: plain.inplace_predict(rows))


def test_a_matrix_without_names_and_one_that_cannot_be_read(publisher: Make) -> None:
    xgboost = require("xgboost")
    bare = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(X, Y > 0), 3)
    pub = publisher(classes=2)
    kept: list[dict[str, Any]] = []
    pub.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    watched = zmon.watch(bare, pub, output="proba")
    rows = X.copy()
    rows[0, 0], rows[1, 1] = 0.0, np.nan
    watched.predict(xgboost.DMatrix(rows))
    np.testing.assert_array_equal(kept[0]["inputs"], rows.astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xgboost.DMatrix, "get_data", lambda self: 1 / 0)  # as one in external memory
        watched.predict(xgboost.DMatrix(rows))
    assert kept[1]["inputs"] is None
    assert kept[1]["probabilities"].shape == (150,)


def test_explanations_are_not_predictions(
    native: Any, mixed: Any, publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = require("xgboost").DMatrix(mixed, enable_categorical=True)
    pub = publisher(classes=3)
    booster = classifier("lightgbm").fit(X, Y).booster_
    with caplog.at_level("WARNING", "zmon"):
        for _ in range(2):
            leaves = zmon.watch(booster, pub, output="proba").predict(X, pred_leaf=True)
            watched = zmon.watch(native, pub, output="proba")
            watched.predict(matrix, pred_leaf=True)
            contributions = watched.predict(matrix, pred_contribs=True)
            model = zmon.watch(classifier("lightgbm").fit(X, Y), pub)
            assert model.predict_proba(X, raw_score=True).min() < 0
            assert model.predict_proba(X, pred_leaf=True).shape[0] == 150
    assert leaves.shape[0] == contributions.shape[0] == 150
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {})
    lines = [record.getMessage() for record in caplog.records if "leaves" in record.getMessage()]
    assert len(lines) == 6, "one for each watched model and method"
