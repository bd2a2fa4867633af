"""Every discovered metric: it has an oracle and equals it, keeps the laws, declares and documents its series."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.plugins import builtin_modules

from tests.plugins.oracles import ORACLES, Key, Rows, differences, key
from tests.support.metrics import METRICS, as_batch, random_rows
from zmon.batch import Batch, concat
from zmon.categories import compact
from zmon.contract import DIMENSIONS, PRESETS, Context, Metric, RowCounts, Window
from zmon.state import pack_state, unpack_state
from zmon.testing import check_metric, example_batches


def task_of(name: str) -> str:
    return getattr(METRICS[name], "task", "classification")


def reads(name: str, batch: Batch) -> bool:
    return METRICS[name].needs <= batch.columns and task_of(name) == batch.schema.task


def computed(
    metric: Metric[Any], batch: Batch, cuts: list[int], order: list[int], sample_rows: int | None = None
) -> dict[Key, float]:
    """The metric's values when the rows are cut at `cuts` and the pieces merged in `order`."""
    running = Context("model", "", "agent", batch.schema, Window(0, 60))
    pieces = [batch.take(slice(a, b)) for a, b in zip([0, *cuts], [*cuts, batch.rows], strict=True) if b > a]
    parts = []
    for piece in pieces:
        acc = metric.create(running)
        if metric.needs <= piece.columns:
            acc = metric.update(acc, piece, running)
        parts.append(unpack_state(pack_state(acc)))  # as it would come from another process
    acc = parts[order[0] % len(parts)]
    left = [part for part in parts if part is not acc]
    for part in left:
        acc = metric.merge(acc, part)
    counts, sample = RowCounts(received=batch.rows), batch.take(slice(0, sample_rows))
    closing = Context("model", "", None, batch.schema, Window(0, 60), rows=counts, sample=sample)
    return {
        key(value.what, **{name: getattr(value, name) for name in DIMENSIONS if getattr(value, name)}): value.value
        for value in metric.result(acc, closing)
    }


def random_regression(seed: int, n: int) -> Rows:
    random = np.random.default_rng(seed)
    labels = random.integers(-2, 6, n).astype(np.float64)
    labels[random.random(n) < 0.2] = np.nan
    return Rows((), None, random.normal(1e3, 3.0, n), labels, task="regression")


def test_every_metric_has_an_oracle() -> None:
    assert set(METRICS) == set(ORACLES)


@pytest.mark.parametrize("name", METRICS)
def test_laws(name: str) -> None:
    check_metric(METRICS[name])
    check_metric(METRICS[name], example_batches((1, 300, 2, 7), seed=3, task=task_of(name)))


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60)
@given(data=st.data())
def test_oracle_however_the_rows_are_split(name: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    seed = data.draw(st.integers(0, 2**32))
    if task_of(name) == "regression":
        rows = random_regression(seed, n)
    else:
        rows = random_rows(
            seed,
            n,
            data.draw(st.integers(2, 6)),
            labels_only=data.draw(st.booleans()),
            dtype=data.draw(st.sampled_from([np.float64, np.float32])),
        )
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    order = data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=1))
    batch = as_batch(rows)
    if not reads(name, batch):
        return
    assert differences(computed(METRICS[name], batch, cuts, order), ORACLES[name](rows)) == []


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [1, 2, 10, 5000, 200_000])
def test_oracle_at_any_size(name: str, n: int) -> None:
    rows = random_regression(n, n) if task_of(name) == "regression" else random_rows(n, n, 10)
    found = computed(METRICS[name], as_batch(rows), sorted({n // 3, n // 2}), [0])
    assert differences(found, ORACLES[name](rows)) == []


SHAPES: dict[str, Any] = {
    "spread": lambda random, n, hit: np.clip(random.normal(0.4 + 0.2 * hit, 0.15, n), 0, 1),
    "rare events": lambda random, n, hit: 1 / (1 + np.exp(-random.normal(-9 + 2 * hit, 1.5, n))),
    "near one": lambda random, n, hit: 1 / (1 + np.exp(-random.normal(9 + 2 * hit, 1.5, n))),
    "heavily tied": lambda random, n, hit: np.round(np.clip(random.normal(0.4 + 0.2 * hit, 0.3, n), 0, 1), 1),
    "all equal": lambda random, n, hit: np.full(n, 0.25),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.001, 0.3])
def test_areas_from_histograms_are_near_and_do_not_depend_on_the_split(shape: str, dtype: Any, share: float) -> None:
    random = np.random.default_rng(4)
    n = 200_000
    labels = (random.random(n) < share).astype(np.int64)
    score = SHAPES[shape](random, n, labels).astype(dtype)
    rows = Rows(("no", "yes"), np.column_stack([1 - score, score]), labels=labels)
    batch = as_batch(rows)
    found = [computed(METRICS["ranking"], batch, cuts, order, 5000) for cuts, order in (([], [0]), ([9, 70_000], [2]))]
    assert found[0] == found[1]
    expected = ORACLES["ranking"](rows)
    assert differences(found[0], expected, rtol=0, atol=1e-3) == []
    if shape in ("all equal", "heavily tied"):
        assert differences(found[0], expected) == [], "no two scores share a bin"


def test_areas_of_many_classes_are_left_out_beyond_the_sample() -> None:
    rows = random_rows(5, 600, 101)
    metric = METRICS["ranking"]
    assert differences(computed(metric, as_batch(rows), [100], [0]), ORACLES["ranking"](rows)) == []
    assert computed(metric, as_batch(rows), [100], [0], 500) == {}


def test_confidences_on_the_edges_of_bins_belong_to_the_lower_bin() -> None:
    confidence = np.repeat(np.linspace(0, 1, 16)[8:], 5)
    rows = Rows(("no", "yes"), np.column_stack([1 - confidence, confidence]), labels=np.arange(40) % 3 % 2)
    found = computed(METRICS["calibration"], as_batch(rows), [7], [0])
    assert differences(found, ORACLES["calibration"](rows)) == []


def test_a_column_of_many_categories_is_bounded_and_estimated() -> None:
    random = np.random.default_rng(8)
    names = [f"user {i}" for i in range(20_000)]
    rows = Rows(("a", "b"), predictions=np.zeros(50_000, dtype=np.int64))
    rows.coded = pandas.DataFrame({"user": random.choice(names, 50_000), "plan": random.choice(["x", "y"], 50_000)})
    metric, batch = METRICS["categorical_features"], as_batch(rows)
    whole = computed(metric, batch, [], [0])
    assert computed(metric, batch, [10, 20_000, 20_001], [2]) == whole, "the same whatever the split"
    expected = ORACLES["categorical_features"](rows)
    unique = key("feature_unique", feat_name="user")
    assert abs(whole[unique] / expected[unique] - 1) < 0.1
    known = {k: v for k, v in whole.items() if dict(k).get("category", "").startswith("user")}
    counts = rows.coded["user"].value_counts()
    assert len(known) == 100
    assert all(v == counts[dict(k)["category"]] for k, v in known.items() if ("what", "feature_count") in k)
    total = sum(v for k, v in whole.items() if ("what", "feature_count") in k and ("feat_name", "user") in k)
    assert total == 50_000
    plan = {k: v for k, v in expected.items() if ("feat_name", "plan") in k}
    assert differences({k: v for k, v in whole.items() if ("feat_name", "plan") in k}, plan) == []


def test_batches_of_different_dictionaries_join() -> None:
    random = np.random.default_rng(3)
    rows = [random_rows(int(random.integers(1e9)), int(n), 3) for n in random.integers(1, 40, 12)]
    batches = [as_batch(each) for each in rows]
    for i in (2, 5):
        batches[i] = Batch(
            batches[i].schema,
            {**batches[i].raw(), "codes": compact(batches[i].codes, batches[i].categories)[0]},
            dictionaries={"codes": compact(batches[i].codes, batches[i].categories)[1]},
        )
    joined = concat(batches[0].schema, batches)
    whole = Rows(rows[0].classes, np.concatenate([each.p for each in rows]))
    whole.coded = pandas.concat([each.coded for each in rows], ignore_index=True)
    found = computed(METRICS["categorical_features"], joined, [7, 50], [1])
    assert differences(found, ORACLES["categorical_features"](whole)) == []


@pytest.mark.parametrize("name", METRICS)
def test_a_binary_tie_is_not_above_the_threshold(name: str) -> None:
    rows = Rows(("no", "yes"), np.array([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]]), labels=np.array([0, 1, 1]))
    batch = as_batch(rows)
    if reads(name, batch):
        assert differences(computed(METRICS[name], batch, [1], [0]), ORACLES[name](rows)) == []


@pytest.mark.parametrize("name", METRICS)
def test_huge_and_tiny_numbers_give_no_nan_and_no_warning(name: str) -> None:
    rows = random_rows(1, 8, 3)
    assert rows.inputs is not None
    rows.inputs[:, 0] = [1e308, -1e308, 1e308, 1e-308, 0, 5e-324, -1e308, 1e308]
    rows.inputs[:, 2] = 1e15 + np.arange(8)
    if task_of(name) == "regression":
        rows = Rows((), None, rows.inputs[:, 0], rows.inputs[::-1, 0], task="regression")
    found = computed(METRICS[name], as_batch(rows), [4], [0])
    assert all(np.isfinite(value) for value in found.values())
    if name == "numeric_features":
        steady = Rows(rows.classes, rows.probabilities, inputs=rows.inputs[:, 2:3], features=("feat_2",))
        expected = ORACLES[name](steady)
        assert differences({k: v for k, v in found.items() if k in expected}, expected) == []


@pytest.mark.parametrize("name", METRICS)
def test_every_value_is_of_a_declared_and_documented_series(name: str) -> None:
    metric = METRICS[name]
    declared = {(s.what, frozenset(s.keys), stat) for s in metric.series for stat in s.stats or ("",)}  # type: ignore[attr-defined]
    assert all(s.preset in PRESETS and s.definition for s in metric.series)  # type: ignore[attr-defined]
    batches = example_batches(task=task_of(name))
    batch = concat(batches[0].schema, batches)
    rows = RowCounts(batch.rows, 1, 2, 3, {"label_index": 4})
    for agent in ("pod", None):
        ctx = Context("model", "", agent, batch.schema, Window(0, 60), rows=rows, sample=batch)
        for value in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx):
            keys = frozenset(k for k in DIMENSIONS if k != "stat" and getattr(value, k))
            assert (value.what, keys, value.stat) in declared
    module = importlib.import_module(type(metric).__module__)
    assert module.__doc__ is not None
    for what in {s.what for s in metric.series}:  # type: ignore[attr-defined]
        assert what in module.__doc__, f"{module.__name__} does not document {what}"


WITH_EXAMPLES = [
    "zmon_plugins.anodot",
    "zmon_plugins.api.responses",
    "zmon_plugins.api.pace",
    "zmon_plugins.api.protocol3",
    "zmon_plugins.http.response",
]


@pytest.mark.parametrize("module", [*builtin_modules(), "zmon_plugins.stats", *WITH_EXAMPLES])
def test_examples_in_docstrings_run(module: str) -> None:
    loaded = importlib.import_module(module)
    result = doctest.testmod(loaded)
    assert result.failed == 0
    if ".metrics." in module or module in WITH_EXAMPLES:
        assert result.attempted > 0, f"{module} has no example"
