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
    assert (pub.stats.published, dict(pub.stats.rejected)) == (150, {})
    overhead(f"{name} predict of a regressor", lambda: bare.predict(X[:32]), lambda: model.predict(X[:32]), 20)


@pytest.mark.filterwarnings("ignore")
def test_boosters_are_asked_what_they_give(publisher: Make) -> None:
    lightgbm, xgboost = require("lightgbm"), require("xgboost")
    pub = publisher()
    booster = classifier("lightgbm").fit(X, Y).booster_
    with pytest.raises(zmon.ConfigurationError, match="pass output='proba', 'logits'"):
        zmon.watch(booster, pub)
    watched = zmon.watch(booster, pub, output="proba")
    assert np.array_equal(watched.predict(X), booster.predict(X))
    raw = zmon.watch(booster, pub, output="logits").predict(X, raw_score=True)
    assert np.array_equal(raw, booster.predict(X, raw_score=True))
    assert isinstance(booster, lightgbm.Booster)
    other = classifier("xgboost").fit(X, Y).get_booster()
    matrix = xgboost.DMatrix(X)  # such inputs have no columns to publish
    assert np.array_equal(zmon.watch(other, pub, output="proba").predict(matrix), other.predict(matrix))
    assert (pub.stats.published, dict(pub.stats.rejected)) == (450, {})
    overhead("lightgbm booster", lambda: booster.predict(X[:32]), lambda: watched.predict(X[:32]), 20)
