"""Real models through the whole way, from publisher to files: every series equals its oracle on the same rows.

Rows of one window are published by two agents as many uneven batches, in every layout NumPy knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from zmon_collector.config import Config, parse

from tests.plugins.oracles import ORACLES, Expected, Rows, differences, everything, key, plain
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.tables import START, mixed, subset

FULL: Config = parse({"metrics": {"preset": "full"}})

SEGMENTED = [ORACLES[name] for name in ("predicted_classes", "confidence", "performance")]

LAYOUTS: list[Callable[[np.ndarray], Any]] = [
    lambda a: a,
    np.asfortranarray,
    lambda a: np.repeat(a, 2, axis=0)[::2],
    lambda a: a[::-1][::-1],
    lambda a: np.pad(a, [(1, 1)] + [(0, 0)] * (a.ndim - 1))[1:-1],
    lambda a: a.tolist(),
    lambda a: _read_only(a),
    lambda a: a.astype(a.dtype.newbyteorder(">")),
]


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def publish(
    collector: Collector, rows: Rows, agents: tuple[str, ...], seed: int, **options: Any
) -> dict[str, np.ndarray]:
    """Publish the rows as uneven batches, each by one of the agents; the row numbers that each agent got."""
    random = np.random.default_rng(seed)
    owner: dict[str, list[int]] = {agent: [] for agent in agents}
    publishers = {
        agent: collector.publisher(
            "m",
            classes=rows.classes or None,
            task=rows.task,
            agent_id=agent,
            features=rows.features or None,
            threshold=rows.threshold,
            **options,
        )
        for agent in agents
    }
    at = 0
    while at < rows.n:
        size = int(random.choice([0, 1, 2, 7, 33, 90]))
        part = slice(at, at + size)
        agent = agents[int(random.integers(len(agents)))]
        layout = LAYOUTS[int(random.integers(len(LAYOUTS)))]
        count = len(range(*part.indices(rows.n)))
        arguments: dict[str, Any] = {"timestamps": START + 59.999 * random.random(count)}
        for name in ("probabilities", "inputs", "labels", "predictions"):
            column = getattr(rows, name)
            if column is not None:
                arguments[name] = layout(column[part])
        if rows.labels is not None and rows.classes:
            names = [None if label < 0 else rows.classes[label] for label in rows.labels[part]]
            arguments["labels"] = names
        publishers[agent].publish(**arguments)
        owner[agent] += range(at, at + count)
        at += count
    for publisher in publishers.values():
        assert publisher.flush(60), publisher.stats
        assert not publisher.stats.rejected, publisher.stats.rejected
        publisher.close()
    collector.stop()
    return {agent: np.array(numbers, dtype=int) for agent, numbers in owner.items()}


def agrees(collector: Collector, rows: Rows, owner: dict[str, np.ndarray]) -> None:
    """One file, and every point of it as the oracles say, per agent and rolled up; nothing missing, nothing more."""
    assert len(collector.files()) == 1
    points = collector.points()
    assert {point["timestamp"] for point in points} == {START}
    for agent, numbers in [*owner.items(), (None, np.arange(rows.n))]:
        own = [point for point in points if point["properties"].get("agent_id") == agent]
        expected: Expected = everything(subset(rows, numbers)) if len(numbers) else {}
        if agent is not None:
            expected |= {key("rows_lost"): 0.0, key("rows_sampled_out"): 0.0}
        assert differences(plain(own), expected) == [], agent


def served(load: Any, *, classes: int | None = None) -> Rows:
    """A scikit-learn data set, half learned and half served, with some labels missing."""
    data = load()
    keep = data.target < (classes or 99)
    x, y = data.data[keep], data.target[keep]
    random = np.random.default_rng(0)
    order = random.permutation(len(x))
    half = len(x) // 2
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x[order[:half]], y[order[:half]])
    x, y = x[order[half:]], y[order[half:]].astype(np.int64)
    y[random.random(len(y)) < 0.2] = -1
    names = tuple(f"class {name}" for name in data.target_names)
    features = tuple(f"{i} {name}" for i, name in enumerate(data.feature_names))
    return Rows(names, model.predict_proba(x), None, y, x, features)


def legal_names(rows: Rows) -> Rows:
    """The same rows under the names as Anodot's files have them."""
    fix = str.maketrans(". =", "___")
    rows.classes = tuple(name.translate(fix) for name in rows.classes)
    rows.features = tuple(name.translate(fix) for name in rows.features)
    return rows


@pytest.mark.parametrize(
    ("load", "threshold"),
    [(load_digits, 0.5), (load_breast_cancer, 0.5), (load_breast_cancer, 0.3), (load_wine, 0.5)],
    ids=["digits", "breast cancer at 0.5", "breast cancer at 0.3", "wine"],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_real_models(load: Any, threshold: float, dtype: Any, collect: Any) -> None:
    rows = served(load)
    assert rows.probabilities is not None
    assert rows.inputs is not None
    rows.threshold = threshold
    rows.probabilities, rows.inputs = rows.probabilities.astype(dtype), rows.inputs.astype(dtype)
    collector = collect(config=FULL)
    owner = publish(collector, rows, ("pod-1", "pod-2"), seed=1)
    agrees(collector, legal_names(rows), owner)


def test_binary_as_one_column_ties_and_awkward_inputs(collect: Any) -> None:
    random = np.random.default_rng(5)
    p = random.random(700)
    p[::7] = 0.5
    inputs = random.normal(size=(700, 4))
    inputs[:, 0] = np.nan
    inputs[random.random(700) < 0.2, 1] = np.nan
    inputs[3, 2], inputs[4, 2] = np.inf, -np.inf
    rows = Rows(("no", "yes"), p, None, random.integers(-1, 2, 700), inputs, ("empty", "gaps", "infinite", "sound"))
    collector = collect(config=FULL)
    agrees(collector, rows, publish(collector, rows, ("a", "b"), seed=2))


def test_integers_and_a_class_that_never_occurs(collect: Any) -> None:
    random = np.random.default_rng(6)
    p = np.zeros((300, 5))
    p[:, :4] = random.dirichlet(np.ones(4), 300)
    p[::3] = [0.5, 0.5, 0, 0, 0]
    rows = Rows(tuple("abcde"), p, None, random.integers(-1, 4, 300), random.integers(-9, 9, (300, 3)), ("x", "y", "z"))
    collector = collect(config=FULL)
    agrees(collector, rows, publish(collector, rows, ("a", "b"), seed=3))


def test_a_regression(collect: Any) -> None:
    data = load_diabetes()
    target = data.target.astype(np.float64)
    predictions = Ridge().fit(data.data[:200], target[:200]).predict(data.data)
    target[np.random.default_rng(0).random(len(target)) < 0.2] = np.nan
    rows = Rows((), None, predictions, target, data.data, tuple(data.feature_names), task="regression")
    collector = collect(config=FULL)
    agrees(collector, rows, publish(collector, rows, ("a", "b"), seed=7))


def test_twenty_columns_of_all_kinds_in_frames_of_all_kinds(collect: Any) -> None:
    polars, pyarrow = require("polars"), require("pyarrow")
    rows, frame = mixed(900, 0)
    assert rows.coded is not None
    assert len(frame.columns) == 20
    kinds = {name: "boolean" if name in ("vip", "opted") else "categorical" for name in rows.coded}
    forms: list[Callable[[Any], Any]] = [
        lambda part: part,
        lambda part: part.convert_dtypes(),
        lambda part: polars.DataFrame(part.to_dict("list"), strict=False),
        lambda part: pyarrow.Table.from_pandas(part),
        lambda part: part.to_dict("records"),
        lambda part: [tuple(row) for row in part.itertuples(index=False)],
    ]
    collector = collect(config=FULL)
    random = np.random.default_rng(1)
    publishers = [
        collector.publisher("m", classes=rows.classes, agent_id="declared", kinds={**kinds, "essay": "text"}),
        collector.publisher("m", classes=rows.classes, agent_id="inferred", features=list(frame.columns)),
    ]
    owner: dict[str, list[int]] = {"declared": [], "inferred": []}
    at = 0
    while at < rows.n:
        which = at and int(random.integers(2))
        size = 90 if at < 90 else int(random.choice([1, 2, 7, 33, 90]))
        part = slice(at, min(at + size, rows.n))
        form = forms[int(random.integers(len(forms) if which else len(forms) - 1))]
        publishers[which].publish(
            rows.probabilities[part], form(frame.iloc[part]), rows.labels[part].astype(float).tolist()
            if (rows.labels[part] >= 0).all() else [None if each < 0 else int(each) for each in rows.labels[part]],
            timestamps=START + 1,
        )  # fmt: skip
        owner["inferred" if which else "declared"] += range(part.start, part.stop)
        at = part.stop
    for publisher in publishers:
        assert publisher.flush(60)
        assert not publisher.stats.rejected, publisher.stats.rejected
        publisher.close()
    collector.stop()
    agrees(collector, rows, {agent: np.array(numbers) for agent, numbers in owner.items()})


def test_segments(collect: Any) -> None:
    random = np.random.default_rng(11)
    n = 600
    rows = Rows(("a", "b", "c"), random.dirichlet(np.ones(3), n), None, random.integers(-1, 3, n))
    country = random.choice(["de", "fr", "us", "va"], n, p=[0.5, 0.3, 0.15, 0.05])
    config = parse({"metrics": {"preset": "full", "segment_preset": "full", "max_segments": 2}})
    collector = collect(config=config)
    owner: dict[str, list[int]] = {"p": [], "q": []}
    for i, agent in enumerate(owner):
        with collector.publisher("m", classes=rows.classes, agent_id=agent) as publisher:
            for start in range(i * 25, n, 50):
                part = slice(start, start + 25)
                publisher.publish(
                    rows.probabilities[part], labels=rows.labels[part].clip(0), timestamps=START + 1,
                    segments={"country": country[part].tolist()},
                )  # fmt: skip
                owner[agent] += range(start, start + 25)
            assert publisher.flush(60)
            assert not publisher.stats.rejected
    collector.stop()
    rows.labels = rows.labels.clip(0)
    points = collector.points()
    for agent, numbers in [*owner.items(), (None, np.arange(n))]:
        own = [point for point in points if point["properties"].get("agent_id") == agent]
        found = plain([point for point in own if "segment_name" in point["properties"]])
        expected: Expected = {}
        common = sorted(set(country), key=lambda value: -np.count_nonzero(country[list(numbers)] == value))
        for value in (*common[:2], "__other__"):
            where = np.isin(country, common[2:] if value == "__other__" else [value])
            part = subset(rows, np.intersect1d(np.flatnonzero(where), numbers))
            whole = {k: v for oracle in SEGMENTED for k, v in oracle(part).items()} | {
                key("buffer_count"): float(part.n)
            }
            names = (("segment_name", "country"), ("segment_value", value))
            expected |= {tuple(sorted((*k, *names))): v for k, v in whole.items()}
        assert differences(found, expected) == [], agent


def test_a_window_of_one_row(collect: Any) -> None:
    rows = Rows(("a", "b", "c"), np.array([[0.2, 0.5, 0.3]]), None, np.array([1]), np.array([[1.5]]), ("x",))
    collector = collect(config=FULL)
    agrees(collector, rows, publish(collector, rows, ("a",), seed=4))


def test_a_model_that_gives_only_labels(collect: Any) -> None:
    random = np.random.default_rng(8)
    said, truth = random.integers(0, 3, 200), random.integers(-1, 3, 200)
    rows = Rows(("a", "b", "c"), None, said, truth)
    collector = collect(config=FULL)
    agrees(collector, rows, publish(collector, rows, ("a", "b"), seed=5))


def test_more_rows_than_the_sample_keeps(collect: Any) -> None:
    """Counts, moments and extremes are of all rows; quantiles are a sample's, and near."""
    random = np.random.default_rng(9)
    rows = Rows(("a", "b"), random.beta(0.5, 0.5, 30_000), None, None, random.normal(size=(30_000, 3)), ("x", "y", "z"))
    collector = collect(config=FULL, sample_rows=2000)
    owner = publish(collector, rows, ("a", "b"), seed=6)
    found, expected = collector.points(), everything(rows)
    rollup = plain([point for point in found if "agent_id" not in point["properties"]])
    sampled = {"median", "q05", "q25", "q50", "q75", "q95", "q99", "iqr"}
    exact = {k: v for k, v in expected.items() if not sampled & {value for _, value in k}}
    assert differences({k: v for k, v in rollup.items() if k in exact}, exact) == []
    for k in expected.keys() - exact.keys():
        spread = (dict(k)["what"] == "feature_value" and 0.25) or 0.1
        assert abs(rollup[k] - expected[k]) < spread, k
    assert sum(map(len, owner.values())) == 30_000


def test_a_keras_model_on_tensorflow(collect: Any) -> None:
    tensorflow = require("tensorflow")
    tensorflow.keras.utils.set_random_seed(0)
    data = load_digits()
    x, y = (data.data / 16).astype("float32"), data.target
    model = tensorflow.keras.Sequential(
        [
            tensorflow.keras.layers.Input((64,)),
            tensorflow.keras.layers.Dense(32, activation="relu"),
            tensorflow.keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:900], y[:900], epochs=3, verbose=0)
    collector = collect(config=FULL)
    served_p, served_x = [], []
    with collector.publisher("m", classes=10, agent_id="keras") as publisher:
        for start in range(900, len(x), 100):
            batch = tensorflow.constant(x[start : start + 100])
            p = model(batch)  # a tensor, published as it is
            publisher.publish(p, inputs=batch, labels=y[start : start + 100], timestamps=START + 1)
            served_p.append(p.numpy())
            served_x.append(batch.numpy())
        assert publisher.flush(60)
    collector.stop()
    rows = Rows(
        tuple(f"class_{i}" for i in range(10)),
        np.concatenate(served_p),
        None,
        y[900:],
        np.concatenate(served_x),
        tuple(f"feat_{i}" for i in range(64)),
    )
    assert np.mean(rows.predicted == y[900:]) > 0.6, "it has learned something"
    agrees(collector, rows, {"keras": np.arange(rows.n)})
