"""TensorFlow: Keras models by all their ways of being called, tf.function, SavedModel, the evaluation callback."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled
from zmon.keras import EvaluationCallback

pytestmark = pytest.mark.filterwarnings("ignore")
Make = Callable[..., zmon.Publisher]
RANDOM = np.random.default_rng(0)
X = RANDOM.random((40, 8, 8, 1)).astype(np.float32)
Y = RANDOM.integers(0, 3, 40)


@pytest.fixture(scope="module")
def tf() -> Any:
    return require("tensorflow")


@pytest.fixture(scope="module")
def keras(tf: Any) -> Any:
    return tf.keras


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    made = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])
    made.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


@pytest.fixture(scope="module")
def logits(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


def test_points_equal_those_of_publishing_by_hand(model: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=3)
    watched = zmon.watch(model, pair.watched, output="proba")
    with pair.watched.context(timestamps=1_700_000_040.0, labels=Y):
        given = watched.predict(X, batch_size=16, verbose=0)
        eager = watched(X)
        batch = watched.predict_on_batch(X)
    assert np.array_equal(given, model.predict(X, batch_size=16, verbose=0))
    assert np.array_equal(eager, model(X))
    assert np.array_equal(batch, model.predict_on_batch(X))
    for each in (given, eager, batch):
        pair.by_hand(each, X.reshape(40, 64), Y)
    pair.same("accuracy", "feature_value", "max_prediction_proba")
    some = X[:32]
    overhead("keras model(x)", lambda: model(some), lambda: watched(some), 50)
    overhead("keras predict_on_batch", lambda: model.predict_on_batch(some), lambda: watched.predict_on_batch(some), 50)
    overhead("keras predict", lambda: model.predict(some, verbose=0), lambda: watched.predict(some, verbose=0), 10)


def test_it_behaves_as_the_original(model: Any, keras: Any, publisher: Make) -> None:
    pub = publisher(classes=3)
    watched = zmon.watch(model, pub)
    assert isinstance(watched, keras.Model)
    assert watched.count_params() == model.count_params()
    assert len(watched.layers) == 3
    assert watched.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    for each in (copy.deepcopy(watched), pickle.loads(pickle.dumps(watched)), keras.models.clone_model(watched)):
        assert type(each) is keras.Sequential
    with pytest.raises(ValueError, match="shape"):
        watched(np.ones((2, 3), np.float32))
    assert pub.stats.published == 0
    watched(X, training=True)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"training_mode": 40})


@pytest.mark.parametrize("width", [1, 3])
def test_logits_are_asked_for(width: int, logits: Any, keras: Any, tf: Any, twins: Callable[..., Twins]) -> None:
    pair = twins()
    bare = logits if width == 3 else keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    with pair.at_once():
        given = zmon.watch(bare, pair.watched, output="logits")(X)
    assert np.array_equal(given, bare(X))
    pair.by_hand((tf.nn.softmax(given) if width == 3 else tf.sigmoid(given)).numpy(), X.reshape(40, 64))
    assert pair.watched.stats.published == 40
    for publisher in (pair.watched, pair.hand):
        assert publisher.flush(60)
        publisher.close()
    pair.collector.stop()
    values: dict[str, dict[str, float]] = {"watched": {}, "hand": {}}
    for point in pair.collector.points():
        if point["properties"]["what"] == "max_prediction_proba":
            values[point["properties"]["model"]][str(sorted(point["properties"].items())[1:4])] = point["value"]
    assert len(values["hand"]) > 3
    assert sorted(values["watched"].values()) == pytest.approx(sorted(values["hand"].values()), rel=1e-5)


def test_logits_taken_for_probabilities_are_rejected(logits: Any, publisher: Make) -> None:
    pub = publisher()
    zmon.watch(logits, pub, output="proba")(X * 30)
    assert settled(pub).rejected == {"probabilities_range": 40}


def test_a_tf_function(model: Any, tf: Any, publisher: Make) -> None:
    pub = publisher()
    compiled = tf.function(model)
    watched = zmon.watch(compiled, pub, output="proba")
    assert np.array_equal(watched(X), compiled(X))
    assert pub.stats.published == 40
    assert watched.get_concrete_function(tf.TensorSpec((None, 8, 8, 1))) is not None
    traced = zmon.watch(model, pub)

    @tf.function
    def inner(rows: Any) -> Any:
        return traced(rows)

    inner(tf.constant(X))
    inner(tf.constant(X))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (40, {"symbolic": 40})
    some = tf.constant(X[:32])
    overhead("tf.function", lambda: compiled(some), lambda: watched(some))


def test_a_loaded_saved_model(model: Any, tf: Any, tmp_path: Path, publisher: Make) -> None:
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    signature = loaded.signatures["serving_default"]
    name = next(iter(signature.structured_input_signature[1]))
    pub = publisher()
    watched = zmon.watch(signature, pub, output="proba")
    given = watched(**{name: tf.constant(X)})
    expected = signature(**{name: tf.constant(X)})
    assert all(np.array_equal(given[key], expected[key]) for key in expected)
    assert watched.structured_outputs == signature.structured_outputs
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (40, {})
    assert len(pub._assembler.schemas) == 1, "with its 64 columns"
    assert np.array_equal(zmon.watch(loaded.serve, pub, output="proba")(tf.constant(X)), loaded.serve(tf.constant(X)))
    assert pub.stats.published == 80
    some = {name: tf.constant(X[:32])}
    overhead("SavedModel signature", lambda: signature(**some), lambda: watched(**some))


def test_named_inputs_and_several_outputs(keras: Any, publisher: Make) -> None:
    age, income = keras.layers.Input((1,), name="age"), keras.layers.Input((1,), name="income")
    hidden = keras.layers.Concatenate()([age, income])
    one = keras.layers.Dense(2, activation="softmax", name="one")(hidden)
    two = keras.layers.Dense(2, activation="softmax", name="two")(hidden)
    rows = {"age": np.ones((5, 1), np.float32), "income": np.zeros((5, 1), np.float32)}
    pub = publisher()
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pub, "publish", lambda **named: kept.append(named))
        zmon.watch(keras.Model([age, income], one), pub).predict(rows, verbose=0)
    assert {name: column.tolist() for name, column in kept[0]["inputs"].items()} == {"age": [1] * 5, "income": [0] * 5}
    zmon.watch(keras.Model([age, income], one), pub).predict(rows, verbose=0)
    assert pub.stats.published == 5
    zmon.watch(keras.Model([age, income], {"one": one, "two": two}), pub).predict(rows, verbose=0)
    zmon.watch(keras.Model([age, income], [one, two]), pub).predict(rows, verbose=0)
    assert pub.stats.published == 5
    assert settled(pub).rejected["multi_output"] == 10


def test_data_sets_have_no_columns(model: Any, tf: Any, publisher: Make) -> None:
    pub = publisher()
    zmon.watch(model, pub).predict(tf.data.Dataset.from_tensor_slices(X).batch(16), verbose=0)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (40, {})


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_evaluation_callback(one_hot: bool, model: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=3)
    callback = EvaluationCallback(pair.watched, X, np.eye(3)[Y] if one_hot else Y, batch_size=16)
    without = model.evaluate(X, Y, verbose=0)
    with pair.at_once():
        assert model.evaluate(X, Y, verbose=0, callbacks=[callback]) == without
    expected = model.predict(X, verbose=0)
    for start in range(0, 40, 16):
        part = slice(start, start + 16)
        pair.by_hand(expected[part], X[part].reshape(-1, 64), Y[part])
    pair.same("accuracy", "feature_value")
    if not one_hot:
        name = "keras evaluate with EvaluationCallback, 40 rows, which asks the model once more"
        overhead(name, lambda: model.evaluate(X, Y, verbose=0),
                 lambda: model.evaluate(X, Y, verbose=0, callbacks=[callback]), 5)  # fmt: skip


def test_the_evaluation_callback_in_training(keras: Any, model: Any, publisher: Make) -> None:
    pub = publisher(classes=3)

    def trained(callbacks: Any) -> Any:
        keras.utils.set_random_seed(1)
        twin = keras.models.clone_model(model)
        twin.compile(loss="sparse_categorical_crossentropy", optimizer="sgd")
        return twin.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0, callbacks=callbacks).history

    calls = [EvaluationCallback(pub, X, Y), EvaluationCallback(pub, X, Y[:3]), EvaluationCallback(pub, "no data", Y)]
    assert trained(calls) == trained(None)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (160, {"internal": 80})
    assert dict(pub.stats.degraded) == {"length_mismatch": 80}, "the labels alone are lost"
    with pytest.raises(AttributeError):
        calls[0].no_such  # noqa: B018
