"""Every discovered metric: it has an oracle and equals it, keeps the laws, declares and documents its series."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.plugins import Registry, builtin_modules

from tests.plugins.oracles import ORACLES, Key, Rows, differences, key
from zmon.batch import Batch, Schema, concat
from zmon.contract import DIMENSIONS, PRESETS, Context, Metric, RowCounts, Window
from zmon.state import pack_state, unpack_state
from zmon.testing import check_metric, example_batches


def discovered() -> dict[str, Metric[Any]]:
    registry = Registry()
    registry.load()
    return {name: state.metric for name, state in registry.metrics.items() if state.plugin != "acme"}


METRICS = discovered()


def as_batch(rows: Rows) -> Batch:
    schema = Schema(
        classes=rows.classes, features=rows.features, kinds=("numeric",) * len(rows.features), threshold=rows.threshold
    )
    columns = {
        "probabilities": None if rows.probabilities is None else rows.p.astype(rows.probabilities.dtype),
        "predictions": rows.predictions,
        "labels": rows.labels,
        "inputs": rows.inputs,
    }
    return Batch(schema, {name: column for name, column in columns.items() if column is not None}, rows.n)


def computed(metric: Metric[Any], batch: Batch, cuts: list[int], order: list[int]) -> dict[Key, float]:
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
    closing = Context("model", "", None, batch.schema, Window(0, 60), rows=RowCounts(received=batch.rows), sample=batch)
    return {
        key(value.what, **{name: getattr(value, name) for name in DIMENSIONS if getattr(value, name)}): value.value
        for value in metric.result(acc, closing)
    }


def random_rows(seed: int, n: int, classes: int, *, labels_only: bool = False, dtype: Any = np.float64) -> Rows:
    random = np.random.default_rng(seed)
    names = tuple(f"c{i}" for i in range(classes))
    p = random.dirichlet(np.full(classes, 0.5), n)
    if n > 3:
        p[1] = 1 / classes  # ties
        p[2] = np.eye(classes)[0]
    inputs = random.normal(1e4, 3.0, (n, 5))
    inputs[random.random((n, 5)) < 0.1] = np.nan
    inputs[random.random(n) < 0.1, 1] = -np.inf
    inputs[:, 3], inputs[:, 4] = np.nan, 7.25
    return Rows(
        classes=names,
        probabilities=None if labels_only else p.astype(dtype),
        predictions=random.integers(0, classes, n) if labels_only else None,
        labels=random.integers(-1, max(1, classes - 1), n),  # the last class never occurs
        inputs=inputs.astype(dtype),
        features=tuple(f"feat_{i}" for i in range(5)),
        threshold=0.3,
    )


def test_every_metric_has_an_oracle() -> None:
    assert set(METRICS) == set(ORACLES)


@pytest.mark.parametrize("name", METRICS)
def test_laws(name: str) -> None:
    check_metric(METRICS[name])
    check_metric(METRICS[name], example_batches((1, 300, 2, 7), seed=3))


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60)
@given(data=st.data())
def test_oracle_however_the_rows_are_split(name: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    rows = random_rows(
        data.draw(st.integers(0, 2**32)),
        n,
        data.draw(st.integers(2, 6)),
        labels_only=data.draw(st.booleans()),
        dtype=data.draw(st.sampled_from([np.float64, np.float32])),
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    order = data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=1))
    batch = as_batch(rows)
    if not METRICS[name].needs <= batch.columns:
        return
    assert differences(computed(METRICS[name], batch, cuts, order), ORACLES[name](rows)) == []


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [1, 2, 10, 5000, 100_000])
def test_oracle_at_any_size(name: str, n: int) -> None:
    rows = random_rows(n, n, 10)
    found = computed(METRICS[name], as_batch(rows), sorted({n // 3, n // 2}), [0])
    assert differences(found, ORACLES[name](rows)) == []


@pytest.mark.parametrize("name", METRICS)
def test_a_binary_tie_is_not_above_the_threshold(name: str) -> None:
    rows = Rows(("no", "yes"), np.array([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]]), labels=np.array([0, 1, 1]))
    batch = as_batch(rows)
    if METRICS[name].needs <= batch.columns:
        assert differences(computed(METRICS[name], batch, [1], [0]), ORACLES[name](rows)) == []


@pytest.mark.parametrize("name", METRICS)
def test_huge_and_tiny_numbers_give_no_nan_and_no_warning(name: str) -> None:
    rows = random_rows(1, 8, 3)
    assert rows.inputs is not None
    rows.inputs[:, 0] = [1e308, -1e308, 1e308, 1e-308, 0, 5e-324, -1e308, 1e308]
    rows.inputs[:, 2] = 1e15 + np.arange(8)
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
    batch = concat(example_batches()[0].schema, example_batches())
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
    "zmon_plugins.api.answers",
    "zmon_plugins.api.pace",
    "zmon_plugins.api.protocol3",
]


@pytest.mark.parametrize("module", [*builtin_modules(), "zmon_plugins.stats", *WITH_EXAMPLES])
def test_examples_in_docstrings_run(module: str) -> None:
    loaded = importlib.import_module(module)
    result = doctest.testmod(loaded)
    assert result.failed == 0
    if ".metrics." in module or module in WITH_EXAMPLES:
        assert result.attempted > 0, f"{module} has no example"
