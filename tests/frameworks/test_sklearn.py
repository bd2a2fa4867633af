"""A watched scikit-learn estimator behaves as the bare one, and is published once per call from outside."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
Make = Callable[..., zmon.Publisher]

MODELS = {
    "logistic": lambda: LogisticRegression(max_iter=500),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "search": lambda: GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2),
    "calibrated": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "voting": lambda: VotingClassifier([("l", LogisticRegression(max_iter=500))], voting="soft"),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_points_equal_those_of_publishing_by_hand(make: Callable[[], Any], twins: Callable[..., Twins]) -> None:
    bare = make().fit(X, NAMES[Y])
    pair = twins(classes=list(NAMES), features=["a", "b", "c", "d"])
    model = zmon.watch(bare, pair.watched, output="proba")
    with pair.watched.context(timestamps=1_700_000_040.0, labels=NAMES[Y], ids=np.arange(len(X))):
        given = model.predict_proba(X)
    assert np.array_equal(given, bare.predict_proba(X))
    assert np.array_equal(model.predict(X), bare.predict(X))
    pair.by_hand(given, X, NAMES[Y], ids=np.arange(len(X)))
    pair.same("accuracy", "feature_value", "max_prediction_proba")


def test_a_model_without_probabilities_publishes_what_it_predicts(twins: Callable[..., Twins]) -> None:
    bare = LinearSVC().fit(X, NAMES[Y])
    pair = twins(classes=list(NAMES))
    with pair.at_once():
        given = zmon.watch(bare, pair.watched).predict(X)
    assert given.tolist() == bare.predict(X).tolist()
    pair.by_hand(predictions=given, inputs=X)
    assert not any("max_prediction_proba" in str(names) for names in pair.same("prediction_freq"))


def test_a_regression_publishes_its_values(publisher: Make) -> None:
    pub = publisher(task="regression")
    bare = LinearRegression().fit(X, Y)
    model = zmon.watch(bare, pub)
    assert np.array_equal(model.predict(X), bare.predict(X))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    with pytest.raises(zmon.ConfigurationError, match="task='regression'"):
        zmon.watch(bare, publisher())


def test_each_outer_call_publishes_once(publisher: Make) -> None:
    pub = publisher()
    model = zmon.watch(RandomForestClassifier(5).fit(X, Y), pub)
    model.predict(X)  # asks predict_proba inside
    assert pub.stats.published == 0
    model.predict_proba(X[:7])
    assert pub.stats.published == 7
    zmon.watch(LogisticRegression(max_iter=500).fit(X, Y), pub).predict_log_proba(X[:5])
    assert pub.stats.published == 12
    model.score(X, Y)
    assert pub.stats.published == 12
    pipeline = zmon.watch(Pipeline([("scale", StandardScaler()), ("model", model)]), pub)
    pipeline.fit(X, Y)
    pipeline.predict_proba(X[:3])  # its last step is watched too
    assert pub.stats.published == 15

    @pub.capture
    def score(rows: Any) -> Any:
        return model.predict_proba(rows)

    score(X[:2])
    assert pub.stats.published == 17
    other = publisher()
    zmon.watch(model, other).predict_proba(X[:4])  # another publisher is another matter
    assert (pub.stats.published, other.stats.published) == (21, 4)
    assert not settled(pub).rejected


def test_copies_are_of_the_bare_model(publisher: Make) -> None:
    pub = publisher()
    bare = LogisticRegression(max_iter=500).fit(X, Y)
    model = zmon.watch(bare, pub)
    for each in (clone(model), copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert type(each) is LogisticRegression
        assert each.get_params() == bare.get_params()
    assert not hasattr(clone(model), "coef_")
    assert np.array_equal(pickle.loads(pickle.dumps(model)).coef_, bare.coef_)
    script = "import pickle, sys; pickle.load(sys.stdin.buffer); sys.exit('zmon' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(model), check=True)
    assert pub.stats.published == 0


def test_cross_validation_publishes_nothing(publisher: Make) -> None:
    pub = publisher()
    model = zmon.watch(LogisticRegression(max_iter=500), pub)
    expected = cross_val_score(LogisticRegression(max_iter=500), X, Y)
    assert np.array_equal(cross_val_score(model, X, Y), expected)
    assert np.array_equal(
        cross_val_score(model, X, Y, scoring="neg_log_loss"),
        cross_val_score(clone(model), X, Y, scoring="neg_log_loss"),
    )
    search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=2).fit(X, Y)
    assert type(search.best_estimator_) is LogisticRegression
    CalibratedClassifierCV(model, cv=2).fit(X, Y)
    make_pipeline(StandardScaler(), model).fit(X, Y)
    assert pub.stats.published == 0
    assert not settled(pub).rejected


def test_it_behaves_as_the_original(publisher: Make) -> None:
    pub = publisher()
    bare = LogisticRegression(max_iter=500)
    model = zmon.watch(bare, pub)
    assert isinstance(model, LogisticRegression)
    assert isinstance(model, BaseEstimator)
    assert is_classifier(model)
    assert repr(model) == repr(bare)
    assert not callable(model)
    assert dir(model) == dir(bare)
    assert model == bare
    assert model.__wrapped__ is bare
    with pytest.raises(NotFittedError):
        model.predict_proba(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    with pytest.raises(AttributeError, match="no_such"):
        model.no_such  # noqa: B018
    assert model.fit(X, Y) is model, "a chain of calls stays watched"
    check_is_fitted(model)
    assert model.set_params(C=3.0) is model
    assert (bare.C, model.get_params()["C"]) == (3.0, 3.0)
    model.C = 4.0
    assert bare.C == 4.0
    with pytest.raises(ValueError, match="features"):
        model.predict_proba(X[:, :2])
    assert pub.stats.published == 0, "a call that raises served nothing"
    pipeline = make_pipeline(StandardScaler(), model)
    assert [name for name, _ in pipeline.steps] == ["standardscaler", "logisticregression"]
    assert pipeline.get_params()["logisticregression__C"] == 4.0
    watched = zmon.watch(pipeline, pub)
    assert len(watched) == 2
    assert watched[1] is model
    assert bool(watched)
    assert not hasattr(zmon.watch(make_pipeline(LinearSVC()), pub), "predict_proba")
    assert hasattr(watched, "predict_proba")


def test_many_threads(publisher: Make) -> None:
    pub = publisher()
    bare = LogisticRegression(max_iter=500).fit(X, Y)
    model = zmon.watch(bare, pub)
    expected = bare.predict_proba(X)
    wrong: list[Any] = []

    def serve() -> None:
        for _ in range(50):
            with pub.context(ids=np.arange(len(X))):
                if not np.array_equal(model.predict_proba(X), expected):
                    wrong.append(1)

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
    assert pub.stats.published == 8 * 50 * len(X)
    assert not settled(pub).rejected


class TwoTargets(BaseEstimator):
    """As scikit-learn's multi-output classifiers answer, one array for each target."""

    def predict_proba(self, rows: Any) -> Any:
        return [np.full((len(rows), 2), 0.5)] * 2

    def predict(self, rows: Any) -> Any:
        return np.zeros((len(rows), 2))


def test_what_cannot_be_watched_is_refused_clearly(publisher: Make) -> None:
    two = np.column_stack([Y, Y])
    refused = zmon.ConfigurationError
    with pytest.raises(refused, match="several targets"):
        zmon.watch(RandomForestClassifier(2).fit(X, two), publisher())
    with pytest.raises(refused, match="several targets; construct the publisher with task='multilabel'"):
        zmon.watch(OneVsRestClassifier(LogisticRegression()).fit(X, two == 1), publisher())
    with pytest.raises(refused, match="output='label', or watch a CalibratedClassifierCV"):
        zmon.watch(LinearSVC(), publisher(), output="proba")
    with pytest.raises(refused, match="returns no logits"):
        zmon.watch(LogisticRegression(), publisher(), output="logits")
    with pytest.raises(refused, match="must be one of 'proba'"):
        zmon.watch(LogisticRegression(), publisher(), output="decision_function")
    with pytest.raises(refused, match="does not fit a publisher whose task is 'classification'"):
        zmon.watch(LogisticRegression(), publisher(), output="value")
    with pytest.raises(refused, match="is a class"):
        zmon.watch(LogisticRegression, publisher())
    with pytest.raises(refused, match="cannot be called"):
        zmon.watch(3, publisher())
    with pytest.raises(refused, match=r"pass classes=model\.classes_"):
        zmon.watch(LogisticRegression().fit(X[:100], NAMES[Y[:100]]), publisher(classes=["versicolor", "setosa"]))
    with pytest.raises(refused, match="names 2 classes, the model has 3"):
        zmon.watch(LogisticRegression(max_iter=500).fit(X, Y), publisher(classes=2))
    pub = publisher(classes=2)
    TwoTargets().predict(X)
    answer = zmon.watch(TwoTargets(), pub).predict_proba(X)
    zmon.watch(LogisticRegression().fit(X[:100], Y[:100]), pub).decision_function(X)
    assert len(answer) == 2
    assert settled(pub).rejected == {"multi_output": 150, "decision_function": 150}
    zmon.watch(TwoTargets(), pub, output="label").predict(X)
    assert settled(pub).rejected["multi_output"] == 300
    assert pub.stats.published == 0


SEVERAL = np.column_stack([Y == 0, X[:, 0] > 5.8, X[:, 1] > 3]).astype(int)
MULTILABEL = {
    "one-vs-rest": lambda: OneVsRestClassifier(LogisticRegression(max_iter=500)),
    "network": lambda: make_pipeline(StandardScaler(), MLPClassifier(4, max_iter=20, random_state=0)),
    "search": lambda: GridSearchCV(MLPClassifier(4, max_iter=20, random_state=0), {"alpha": [0.1]}, cv=2),
    "neighbours": KNeighborsClassifier,
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "one each": lambda: MultiOutputClassifier(LogisticRegression(max_iter=500)),
    "chain": lambda: ClassifierChain(LogisticRegression(max_iter=500)),
}


class Multilabel:
    """A publisher with task="multilabel" that keeps what it is given."""

    task, enabled = "multilabel", True

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.rejected: list[tuple[str, str, int]] = []

    def publish(self, **arguments: Any) -> None:
        self.kept.append(arguments)

    def reject(self, *rejection: Any) -> None:
        self.rejected.append(rejection)

    def class_names(self, default: Any) -> list[object]:
        return list(default)


def test_points_of_several_labels_equal_those_of_publishing_by_hand(twins: Callable[..., Twins]) -> None:
    bare = OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(X, SEVERAL)
    pair = twins(task="multilabel", classes=[0, 1, 2])
    model = zmon.watch(bare, pair.watched)
    with pair.watched.context(timestamps=1_700_000_040.0, labels=SEVERAL):
        given = model.predict_proba(X)
    assert np.array_equal(given, bare.predict_proba(X))
    pair.by_hand(given, X, SEVERAL)
    pair.same("feature_value")
    overhead("scikit-learn one-vs-rest", lambda: bare.predict_proba(X[:32]), lambda: model.predict_proba(X[:32]), 100)


@pytest.mark.parametrize("make", MULTILABEL.values(), ids=MULTILABEL.keys())
@pytest.mark.filterwarnings("ignore")
def test_several_labels_per_row(make: Callable[[], Any], publisher: Make) -> None:
    bare = make().fit(X, SEVERAL)
    with pytest.raises(zmon.ConfigurationError, match="construct the publisher with task='multilabel'"):
        zmon.watch(bare, publisher())
    recorder = Multilabel()
    given = zmon.watch(bare, recorder).predict_proba(X)
    expected = bare.predict_proba(X)
    each = np.column_stack([p[:, 1] for p in expected]) if isinstance(expected, list) else expected
    assert np.array_equal(np.asarray(given), np.asarray(expected))
    assert np.array_equal(recorder.kept[0]["probabilities"], each)
    assert recorder.kept[0]["inputs"] is X
    assert not recorder.rejected
    with pytest.raises(zmon.ConfigurationError, match="output='label' does not fit"):
        zmon.watch(bare, recorder, output="label")


def test_labels_that_are_constant_or_not_yes_or_no() -> None:
    recorder = Multilabel()
    constant = np.column_stack([Y == 0, np.zeros(150), np.ones(150)]).astype(int)
    zmon.watch(KNeighborsClassifier().fit(X, constant), recorder).predict_proba(X)
    assert recorder.kept[0]["probabilities"][:, 1:].tolist() == [[0.0, 1.0]] * 150
    zmon.watch(KNeighborsClassifier().fit(X, np.column_stack([Y, Y])), recorder).predict_proba(X)
    assert [(reason, rows) for reason, _, rows in recorder.rejected] == [("multi_output", 150)]
    zmon.watch(lambda rows: np.array([[0.0, 1e4, -1e4]]), recorder, output="logits")(X[:1])
    assert recorder.kept[1]["probabilities"].tolist() == [[0.5, 1.0, 0.0]], "every class by itself"


def test_predict_of_a_model_with_probabilities_says_what_to_call(
    publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pub = publisher()
    bare = LogisticRegression(max_iter=500).fit(X, Y)
    with caplog.at_level("WARNING", "zmon"):
        model = zmon.watch(bare, pub)
        for _ in range(3):
            assert np.array_equal(model.predict(X), bare.predict(X))
        both = zmon.watch(bare, pub)
        both.predict_proba(X)
        both.predict(X)  # a service that calls both needs no advice
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    (line,) = [record.getMessage() for record in caplog.records if "publish nothing" in record.getMessage()]
    assert line == (
        "zmon: calls of LogisticRegression.predict publish nothing: call predict_proba, or watch the model with "
        "output='label' to publish what predict returns"
    )
    labels = zmon.watch(bare, pub, output="label")
    labels.predict(X)
    labels.predict_proba(X)  # the same rows: counted once
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (300, {})


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        (np.array([3, 5, 9]), None),
        (np.array([3, 5, 9]), ["a", "b", "c"]),
        (NAMES, None),
        (np.array([3, 5, 9]), [3, 5, 9]),
    ],
)
def test_classes_are_the_models(given: Any, classes: Any, publisher: Make) -> None:
    pub = publisher(classes=classes)
    model = zmon.watch(LinearSVC(), pub).fit(X, given[Y])
    model.predict(X)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    assert pub.class_names([]) == (given.tolist() if classes is None else classes)


def test_a_refit_to_other_classes_is_noticed(publisher: Make) -> None:
    pub = publisher()
    model = zmon.watch(LogisticRegression(max_iter=500).fit(X, NAMES[Y]), pub)
    model.predict_proba(X)
    model.fit(X[:100], NAMES[Y[:100]])
    model.predict_proba(X)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {"classes_order": 150})


def test_inputs_that_are_no_columns_are_left_out(publisher: Make) -> None:
    pub = publisher()
    texts = ["good day", "bad night", "good night", "bad day"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)
    zmon.watch(model, pub).predict_proba(texts)
    zmon.watch(model[1], pub).predict_proba(model[0].transform(texts))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (40, {})


def test_a_frame_by_keyword_and_no_inputs(twins: Callable[..., Twins]) -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    bare = LogisticRegression(max_iter=500).fit(frame, Y)
    pair = twins(classes=3)
    with pair.at_once():
        given = zmon.watch(bare, pair.watched).predict_proba(X=frame)
        zmon.watch(bare, pair.watched, inputs=False).predict_proba(frame[:10])
    pair.by_hand(given, frame)
    pair.by_hand(given[:10])
    assert any(("feat_name", "b") in names for names in pair.same("feature_value"))


def test_a_frozen_estimator_goes_on_being_watched(publisher: Make) -> None:
    pub = publisher()
    model = zmon.watch(FrozenEstimator(LogisticRegression(max_iter=500).fit(X, Y)), pub)
    model.predict_proba(X)
    assert pub.stats.published == 150


def test_a_failing_capture_reaches_nobody(publisher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pub = publisher()
    bare = LogisticRegression(max_iter=500).fit(X, Y)
    model = zmon.watch(bare, pub)
    monkeypatch.setattr(sys.modules["zmon._watch.call"], "column", lambda *_: 1 / 0)
    assert np.array_equal(model.predict_proba(X), bare.predict_proba(X))
    assert settled(pub).rejected == {"internal": 150}


def test_a_publisher_that_is_turned_off(publisher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_ENABLED", "0")
    pub = publisher()
    bare = LogisticRegression(max_iter=500).fit(X, Y)
    assert np.array_equal(zmon.watch(bare, pub).predict_proba(X), bare.predict_proba(X))
    assert pub.stats.published == 0


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_what_it_costs(make: Callable[[], Any], publisher: Make, request: pytest.FixtureRequest) -> None:
    bare = make().fit(X, Y)
    model = zmon.watch(bare, publisher())
    name = f"scikit-learn {request.node.callspec.id}, predict_proba"
    overhead(name, lambda: bare.predict_proba(X[:32]), lambda: model.predict_proba(X[:32]), 100)


@pytest.mark.parametrize("make", [LinearSVC, LinearRegression])
def test_what_predict_costs(make: Callable[[], Any], publisher: Make) -> None:
    bare = make().fit(X, Y)
    model = zmon.watch(bare, publisher(task="regression" if make is LinearRegression else "classification"))
    overhead(f"scikit-learn {make.__name__}, predict", lambda: bare.predict(X[:32]), lambda: model.predict(X[:32]), 100)
