"""ONNX Runtime sessions: maps of a ZipMap, tensors, regressions, logits, inputs by name, and calls that are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]
X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])
FEATURES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def ort() -> Any:
    return require("onnxruntime")


def session(ort: Any, model: Any, **options: Any) -> Any:
    """A session of a scikit-learn model."""
    converted = require("skl2onnx").to_onnx(model, X[:1], **options)
    return ort.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])


def graph(ort: Any, nodes: Any, inputs: Any, outputs: Any, constants: dict[str, Any] | None = None) -> Any:
    """A session of a graph written by hand; inputs and outputs are (name, width)."""
    helper, numpy_helper = require("onnx.helper"), require("onnx.numpy_helper")
    values = [
        [helper.make_tensor_value_info(name, 1, ["n", width]) for name, width in each] for each in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    operations = [helper.make_node(*node[:3], **dict(*node[3:])) for node in nodes]
    made = helper.make_graph(operations, "g", *values, weights)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def classifier() -> Any:
    return LogisticRegression(max_iter=500).fit(X, NAMES[Y])


@pytest.mark.parametrize("zipmap", [True, False])
def test_points_equal_those_of_publishing_by_hand(
    zipmap: bool, ort: Any, classifier: Any, twins: Callable[..., Twins]
) -> None:
    bare = session(ort, classifier, options={id(classifier): {"zipmap": zipmap}})
    expected = bare.run(None, {"X": X})
    p = np.array([list(row.values()) for row in expected[1]], np.float32) if zipmap else expected[1]
    pair = twins(classes=list(NAMES), features=FEATURES)
    model = zmon.watch(bare, pair.watched)
    with pair.watched.context(timestamps=1_700_000_040.0, labels=NAMES[Y]):
        given = model.run(None, {"X": X})
    with pair.at_once():
        one = model.run(input_feed={"X": X[:1]}, output_names=["probabilities" if not zipmap else "output_probability"])
    assert given[0].tolist() == expected[0].tolist()
    assert given[1] == expected[1] if zipmap else np.array_equal(given[1], expected[1])
    assert len(one) == 1
    assert isinstance(model, type(bare))
    assert model.get_inputs()[0].name == "X"
    pair.by_hand(p, X, NAMES[Y])
    pair.by_hand(p[:1], X[:1])
    pair.same("accuracy", "feature_value", "max_prediction_proba")
    some = {"X": X[:32]}
    name = f"onnxruntime run, {'ZipMap' if zipmap else 'tensors'}"
    overhead(name, lambda: bare.run(None, some), lambda: model.run(None, some))


def test_maps_are_matched_by_class(ort: Any, classifier: Any, publisher: Make) -> None:
    pub = publisher(classes=["virginica", "setosa", "versicolor"])
    kept = listening(pub)
    given = zmon.watch(session(ort, classifier), pub).run(None, {"X": X})
    assert kept[0]["probabilities"][:, 1].tolist() == [np.float32(row["setosa"]) for row in given[1]]
    numbered = session(ort, LogisticRegression(max_iter=500).fit(X, Y))
    zmon.watch(numbered, pub).run(None, {"X": X})  # 0, 1, 2 are no names: the order counts
    other = publisher(classes=["a", "b", "c"])
    zmon.watch(session(ort, classifier), other).run(None, {"X": X[:7]})
    stats = settled(other)
    assert (stats.published, stats.rejected) == (0, {"classes_order": 7})
    pub = publisher()
    zmon.watch(session(ort, classifier), pub).run(None, {"X": X})
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    assert pub.class_names([]) == NAMES.tolist()


def listening(publisher: zmon.Publisher) -> list[dict[str, Any]]:
    """The arguments of all later calls of publish, instead of the calls."""
    kept: list[dict[str, Any]] = []
    publisher.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    return kept


def test_labels_and_values_are_published_where_that_is_said(
    ort: Any, classifier: Any, twins: Callable[..., Twins]
) -> None:
    bare = session(ort, classifier)
    pair = twins(classes=list(NAMES))
    with pair.at_once():
        given = zmon.watch(bare, pair.watched, output="label").run(None, {"X": X})
    pair.by_hand(predictions=given[0], inputs=X)
    pair.same("prediction_freq", "feature_value")


def test_a_regression(ort: Any, twins: Callable[..., Twins]) -> None:
    bare = session(ort, LinearRegression().fit(X, Y))
    pair = twins(task="regression")
    with pair.at_once():
        given = zmon.watch(bare, pair.watched).run(None, {"X": X})
    assert np.array_equal(given[0], bare.run(None, {"X": X})[0])
    pair.by_hand(predictions=given[0], inputs=X)
    pair.same("prediction_value", "feature_value")


def test_inputs_by_name(ort: Any, twins: Callable[..., Twins]) -> None:
    """Columns of width one are features; softmax comes from zmon, the caller gets the logits."""
    nodes = [("Concat", ["age", "income"], ["logits"], {"axis": 1})]
    bare = graph(ort, nodes, [("age", 1), ("income", 1)], [("logits", 2)])
    feed = {"age": X[:, :1], "income": X[:, 1:2]}
    pair = twins(classes=["no", "yes"])
    model = zmon.watch(bare, pair.watched, output="logits")
    with pair.at_once():
        given = model.run(None, feed)
    assert np.array_equal(given[0], X[:, :2])
    powers = np.exp(given[0] - given[0].max(axis=1, keepdims=True))
    rows = [{"age": age, "income": income} for age, income in X[:, :2].tolist()]
    pair.by_hand(powers / powers.sum(axis=1, keepdims=True), rows)
    assert any(("feat_name", "income") in names for names in pair.same("feature_value"))
    some = {name: value[:32] for name, value in feed.items()}
    overhead("onnxruntime run, two inputs, logits", lambda: bare.run(None, some), lambda: model.run(None, some))


def test_one_probability_and_several_outputs(ort: Any, publisher: Make) -> None:
    width, pub = [("x", 4)], publisher(classes=2)
    sigmoid = graph(
        ort,
        [("ReduceMean", ["x"], ["m"]), ("MatMul", ["x", "w"], ["z"]), ("Sigmoid", ["z"], ["p"])],
        width,
        [("p", 1)],
        {"w": np.zeros((4, 1), np.float32)},
    )
    zmon.watch(sigmoid, pub).run(None, {"x": X})
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (150, {})
    both = graph(
        ort,
        [("Softmax", ["x"], ["prob_of_class"]), ("Identity", ["x"], ["embedding"]), ("Identity", ["x"], ["more"])],
        width,
        [("embedding", 4), ("prob_of_class", 4), ("more", 4)],
    )
    four = publisher(classes=4)
    watched = zmon.watch(both, four)
    watched.run(None, {"x": X})  # the name tells which one
    watched.run(["prob_of_class"], {"x": X[:10]})
    watched.run(["embedding", "more"], {"x": X[:5]})
    stats = settled(four)
    assert (stats.published, stats.rejected) == (160, {"multi_output": 5})


def test_calls_that_publish_nothing_say_so(
    ort: Any, classifier: Any, publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bare = session(ort, classifier, options={id(classifier): {"zipmap": False}})
    pub = publisher(classes=3)
    model = zmon.watch(bare, pub)
    with caplog.at_level(logging.WARNING, "zmon"):
        for _ in range(3):
            assert model.run(["label"], {"X": X[:4]})[0].tolist() == bare.run(["label"], {"X": X[:4]})[0].tolist()
            value = ort.OrtValue.ortvalue_from_numpy(X[:6])
            assert model.run_with_ort_values(None, {"X": value})[1].shape() == [6, 3]
            binding = model.io_binding()
            binding.bind_cpu_input("X", X)
            binding.bind_output("probabilities")
            model.run_with_iobinding(binding)
            assert binding.copy_outputs_to_cpu()[0].shape == (150, 3)
        with pytest.raises(Exception, match="X"):
            model.run(None, {"Z": X})
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"output_missing": 3 * 4 + 3 * 6})
    lines = [record.getMessage() for record in caplog.records]
    assert sum("run_with_iobinding publish nothing: call run, or watch" in line for line in lines) == 1
    assert sum("run returned label, without probabilities; request them by output_names" in line for line in lines) == 1
