"""Ready-made checks for authors of plugins: call them from your tests.

>>> from zmon_plugins.metrics.performance import Performance
>>> check_metric(Performance())
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zmon import bases
from zmon.batch import Batch, Schema, concat
from zmon.categories import OTHER
from zmon.contract import Context, Metric, Point, Report, RowCounts, Sink, Value, Window
from zmon.errors import RetryLater
from zmon.state import pack_state, unpack_state

RTOL = 1e-9
NAME = re.compile(r"[a-z][a-z0-9_]*")
Results = dict[tuple[str, ...], float]


def example_batches(rows: Sequence[int] = (40, 1, 25), seed: int = 0, task: str = "classification") -> list[Batch]:
    """Make batches of a three-class classifier, or a regression: labels, all kinds of inputs, gaps, infinities."""
    random = np.random.default_rng(seed)
    features = ("age", "income", "empty", "constant", "city", "vip", "customer", "essay")
    kinds = ("numeric",) * 4 + ("categorical", "boolean", "categorical", "text")
    classes = ("red", "green", "blue") if task == "classification" else ()
    schema = Schema(task, classes, features, kinds, segments=("zone",), hashed=("customer",))
    batches = []
    for n in rows:
        inputs = random.normal(100.0, 5.0, (n, 4))
        inputs[random.random((n, 4)) < 0.1] = np.nan
        inputs[random.random(n) < 0.1, 1] = np.inf
        inputs[:, 2], inputs[:, 3] = np.nan, 7.0
        columns: dict[str, Any] = {"inputs": inputs, "timestamps": random.integers(0, 60_000_000_000, n)}
        customers = random.integers(-1, 50, n)
        columns["codes"] = np.column_stack([*(random.integers(-1, k, n) for k in (3, 2)), np.minimum(customers, 0)])
        columns["hashes"] = random.permutation(2**64 // 50 * np.arange(50, dtype=np.uint64))[customers, np.newaxis]
        columns["lengths"] = np.where(customers < 0, -1, customers % 3 + 35).astype(np.int16)[:, np.newaxis]
        columns["segments"] = random.integers(-1, 2, (n, 1))
        cities = tuple(random.choice(["Rome", "Oslo", "Bonn", "Lima"], 3, replace=False).tolist())
        dictionaries = {"codes": (cities, ("False", "True"), (OTHER,)), "segments": (("east", "west"),)}
        if task == "classification":
            columns["probabilities"] = random.dirichlet((1.0, 2.0, 3.0), n)
            columns["labels"] = random.integers(-1, 3, n)
        else:
            columns["predictions"] = random.normal(10.0, 2.0, n)
            columns["labels"] = np.where(random.random(n) < 0.2, np.nan, random.integers(0, 9, n))
        batches.append(Batch(schema, columns, dictionaries=dictionaries))
    return batches


def check_metric(metric: Metric[Any], batches: Sequence[Batch] | None = None, ctx: Context | None = None) -> None:
    """Verify the laws of `Metric`; AssertionError names the one that does not hold.

    Parameters
    ----------
    metric : Metric
    batches : sequence of Batch, optional
        At least three that the metric can read. Default: `example_batches` of its task.
    ctx : Context, optional
        Default: one that fits the batches.
    """
    task = "classification" if bases.is_for(metric, "classification") else "regression"
    batches = list(batches or example_batches(task=task))
    assert len(batches) >= 3, f"{len(batches)} batches; pass at least three"
    assert NAME.fullmatch(metric.name), f"name {metric.name!r} is not lower_snake"
    assert isinstance(metric.needs, frozenset), "needs is not a frozenset"
    assert metric.needs <= batches[0].columns, f"the batches lack {sorted(metric.needs - batches[0].columns)}"
    whole = concat(batches[0].schema, batches)
    if ctx is None:
        rows = RowCounts(received=whole.rows)
        ctx = Context("model", "1", None, whole.schema, Window(0, 60), rows=rows, sample=whole)
    closing, running = ctx, replace(ctx, sample=None, rows=RowCounts())

    def accumulate(*parts: Batch) -> Any:
        accumulator = metric.create(running)
        for part in parts:
            accumulator = metric.update(accumulator, part, running)
        return accumulator

    def results(accumulator: Any) -> Results:
        return _results(metric, accumulator, closing)

    merge, (first, second, *others) = metric.merge, batches
    expected = results(accumulate(*batches))
    _same(expected, results(accumulate(*batches)), "update and merge are deterministic")
    merged = merge(accumulate(first), accumulate(second, *others))
    _same(expected, results(merged), "updating with two batches equals merging what each gives")
    merged = merge(accumulate(second, *others), accumulate(first))
    _same(expected, results(merged), "merge is commutative")
    left = merge(merge(accumulate(first), accumulate(second)), accumulate(*others))
    right = merge(accumulate(first), merge(accumulate(second), accumulate(*others)))
    _same(results(left), results(right), "merge is associative")
    _same(expected, results(merge(metric.create(running), accumulate(*batches))), "create() is merge's identity")
    _same(expected, results(merge(accumulate(*batches), metric.create(running))), "create() is merge's identity")
    _check_purity(metric, accumulate, batches, closing)
    _same(expected, results(unpack_state(pack_state(accumulate(*batches)))), "the accumulator is msgpack-able")
    results(metric.create(running))  # an empty accumulator is valid


def _check_purity(metric: Metric[Any], accumulate: Any, batches: Sequence[Batch], ctx: Context) -> None:
    before = {name: column.copy() for name, column in batches[0].raw().items()}
    accumulator = accumulate(batches[0])
    for name, column in before.items():
        assert _equal(column, batches[0].raw()[name]), f"update changes the batch's {name}"
    kept = pack_state(accumulator)
    metric.merge(accumulate(batches[1]), accumulator)
    assert pack_state(accumulator) == kept, "merge changes its right argument"
    once = _results(metric, accumulator, ctx)
    assert pack_state(accumulator) == kept, "result changes the accumulator"
    pack_state(bases.detail(metric, accumulator, ctx))
    assert pack_state(accumulator) == kept, "detail changes the accumulator"
    _same(once, _results(metric, accumulator, ctx), "result is deterministic")


def _equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))


def _results(metric: Metric[Any], accumulator: Any, ctx: Context) -> Results:
    ctx = replace(ctx, memory=copy.deepcopy(ctx.memory))
    results: Results = {}
    for value in metric.result(accumulator, ctx):
        assert isinstance(value, Value), f"result gives a {type(value).__name__}, not a Value"
        assert value.what, "a value has no `what`"
        assert math.isfinite(value.value), f"{value.what} is {value.value}; leave undefined values out"
        names = (value.what, *value[2:])
        assert all(isinstance(name, str) for name in names), f"a name of {value} is not a string; leave it empty"
        assert names not in results, f"two values have the same names: {names}"
        results[names] = float(value.value)
    return results


def _same(left: Results, right: Results, law: str) -> None:
    assert left.keys() == right.keys(), f"violated: {law}; only one side has {sorted(left.keys() ^ right.keys())[:3]}"
    for names, value in left.items():
        close = math.isclose(value, right[names], rel_tol=RTOL, abs_tol=RTOL)
        assert close, f"violated: {law}; {'/'.join(filter(None, names))} is {value} and {right[names]}"


def example_report(sequence: int = 1) -> Report:
    """Make a report with a rollup, two agents, and names that few target systems accept unchanged."""
    values = [
        Value("buffer_count", 40),
        Value("accuracy", 0.925),
        Value("feature_value", -1.5e-9, feat_name="petal length (cm)", stat="mean"),
        Value("prediction_freq", 0.5, class_name="a.b=c d"),
        Value("prediction_freq", 0.5, class_name="ä" * 300),
    ]
    points = [Point(agent, value) for agent in (None, "pod-1", "pod/2") for value in values]
    rows = {"pod-1": RowCounts(received=40), "pod/2": RowCounts(received=40, late=1, rejected={"schema_conflict": 2})}
    return Report(
        sequence, "model", "1.0", Window(1_700_000_040, 1_700_000_100), points, rows, {"pod-1": {"zone": "a"}}
    )


def check_sink(sink: Sink, reports: Sequence[Report] | None = None) -> None:
    """Verify what the collector relies on: reports can be written twice; close is safe twice and without open.

    Parameters
    ----------
    sink : Sink
        Ready to be opened; it is left closed.
    reports : sequence of Report, optional
        Default: two examples.
    """
    assert NAME.fullmatch(sink.name), f"name {sink.name!r} is not lower_snake"
    sink.close()
    sink.open()
    for report in reports or (example_report(1), example_report(2)):
        for _ in range(2):
            try:
                assert sink.write(report) is None, "write returns something; it is ignored"  # type: ignore[func-returns-value]
            except RetryLater as error:
                assert error.after >= 0, f"RetryLater.after is {error.after}"
    sink.close()
    sink.close()
