"""Merging accumulators changes none of them: whatever is merged again, after a stuck metric, gives the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import merge, segments
from zmon_collector.compute.accumulate import AgentRows, StepProgress, accumulate
from zmon_collector.compute.batcher import FOLD_AT
from zmon_collector.compute.engine import Engine
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import OpenWindow

import zmon
from tests.support.waiting import until
from zmon.batch import Array, Batch, Schema
from zmon.contract import Context, Point, RowCounts, Value, Window
from zmon.hooks import hookimpl
from zmon.state import pack_state
from zmon.testing import example_batches

MODEL = ("fraud", "1")
SCHEMA = Schema(classes=("no", "yes"), segments=("zone",))
NUMBERS = count(1)


class Sums(zmon.MetricBase[Array]):
    """Counts rows in an array that `merge` changes in place."""

    name = "sums"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> Array:
        return np.zeros(1)

    def update(self, acc: Array, batch: Batch, ctx: Context) -> Array:
        acc += batch.rows
        return acc

    def merge(self, left: Array, right: Array) -> Array:
        left += right
        return left

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        yield Value(self.name, float(acc[0]))


class Largest(Sums):
    """Returns one of its arguments, and changes the first."""

    name = "largest"

    def merge(self, left: Array, right: Array) -> Array:
        larger: Array = max(left, right, key=lambda acc: float(acc[0]))
        left += 1.0
        return larger


class Borrows(zmon.MetricBase[dict[str, Any]]):
    """Puts an array of its right argument into what it returns, and adds to it the next time."""

    name = "borrows"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> dict[str, Any]:
        return {"rows": np.zeros(1)}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        return {"rows": acc["rows"] + batch.rows}

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        if "borrowed" in left:
            left["borrowed"] += 1.0
        return {"rows": left["rows"] + right["rows"], "borrowed": right["rows"]}

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        yield Value(self.name, float(acc["rows"][0]))


class Waits(Sums):
    """Does not return from a call until it is released."""

    name = "waits"

    def __init__(self, where: str) -> None:
        self.where = where
        self.release = threading.Event()

    def merge(self, left: Array, right: Array) -> Array:
        if self.where == "merge":
            self.release.wait(60)
        return super().merge(left, right)

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        if self.where == "result" and ctx.agent_id is None:
            self.release.wait(60)
        return super().result(acc, ctx)


class Raises(Sums):
    """Fails when it merges."""

    name = "raises"

    def merge(self, left: Array, right: Array) -> Array:
        raise RuntimeError("never merges")


def batch(rows: int, schema: Schema = SCHEMA) -> Batch:
    columns = {"probabilities": np.full((rows, 2), 0.5), "segments": np.arange(rows)[:, np.newaxis] % 3}
    return Batch(schema, columns, dictionaries={"segments": (("north", "south", "west"),)})


def context(schema: Schema = SCHEMA, agent: str | None = "a", **options: Any) -> Context:
    return Context("m", "", agent, schema, Window(0, 60), options={"segments": True, **options})


def builtin() -> list[Any]:
    registry = Registry()
    registry.load()
    return [state.metric for state in registry.metrics.values()]


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("metric", [Sums(), Largest(), Borrows()], ids=lambda metric: metric.name)
def test_merged_accumulators_are_unchanged(metric: Any, times: int) -> None:
    accumulators = [metric.update(metric.create(context()), batch(rows + 1), context()) for rows in range(times)]
    before = [pack_state(accumulator) for accumulator in accumulators]
    first = pack_state(segments.merged(metric, accumulators))
    assert [pack_state(accumulator) for accumulator in accumulators] == before
    assert pack_state(segments.merged(metric, accumulators)) == first


def test_folding_and_finishing_change_no_partial_result_of_the_built_in_metrics() -> None:
    metrics = builtin()
    batches = example_batches(rows=(40, 20, 25, 30))
    schema = batches[0].schema
    contexts = {metric.name: context(schema, max_segments=1) for metric in metrics}
    partials = [accumulate(metrics, [each], contexts, StepProgress()) for each in batches]
    before = pack_state([[part.accumulators, part.segments] for part in partials])
    folded = merge.fold(metrics, partials, StepProgress())
    assert pack_state([[part.accumulators, part.segments] for part in partials]) == before
    assert pack_state(merge.fold(metrics, partials, StepProgress()).accumulators) == pack_state(folded.accumulators)

    def values() -> dict[str, list[Point]]:
        agents = {"a": partials[:2], "b": partials[2:]}
        rows = {agent: RowCounts(1) for agent in (*agents, None)}
        closing = {
            metric.name: {agent: Context("m", "", agent, schema, Window(0, 60), {"segments": True, "max_segments": 1},
                                         rows=rows[agent]) for agent in rows}
            for metric in metrics
        }  # fmt: skip
        parts = merge.WindowParts(agents, closing, {}, lambda metric, value: True)
        return merge.finish(metrics, parts, StepProgress(), merge.MetricResults()).points

    once = values()
    assert pack_state([[part.accumulators, part.segments] for part in partials]) == before
    assert values() == once


# --- with executors --------------------------------------------------------------------------------------------------


class Scene:
    """An engine with one plugin of several metrics."""

    def __init__(self, *metrics: Any) -> None:
        class Plugin:
            @hookimpl
            def register_metrics(self, register: Any, options: Any) -> None:
                for metric in metrics:
                    register(metric)

        registry = Registry()
        registry.register(Plugin(), "acme")
        config = parse({"collector": {"metric_timeout": "200ms"}, "metrics": {"segment_metrics": ["*"]}})
        self.engine = Engine(config, registry, PolicyStore(config), lambda: None)
        self.window = OpenWindow(0, 60, next(NUMBERS), SCHEMA)

    def add(self, agent: str, rows: int) -> None:
        self.window.tally(agent).received += rows
        self.engine.add_rows(MODEL, self.window, AgentRows(agent, batch(rows), seed=1, numbers=0))
        self.engine.flush()

    def closed(self) -> dict[tuple[str, str | None, str], float]:
        """Close the window; return its values by metric, agent and segment."""
        self.engine.close(MODEL, self.window)
        (closed,) = until(self.engine.advance, what="the closed window")
        return {(p.value.what, p.agent_id, p.value.segment_value): p.value.value for p in closed.points}


@pytest.fixture
def made() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for each in made:
        if isinstance(each, Waits):
            each.release.set()
        if isinstance(each, Scene):
            each.engine.shutdown()


@pytest.mark.parametrize("where", ["merge", "result"])
def test_a_metric_stuck_while_results_are_merged_costs_its_neighbours_no_row(where: str, made: list[Any]) -> None:
    """Its step runs again without it; what the neighbours merged before is merged once."""
    stuck = Waits(where)
    scene = Scene(Sums(), stuck, Borrows())
    made += [stuck, scene]
    for _ in range(FOLD_AT + 3):
        for agent in ("a", "b"):
            scene.add(agent, 9)
        until(lambda: scene.engine.advance() or scene.engine.idle, what="the steps")
    values = scene.closed()
    rows = 9.0 * (FOLD_AT + 3)
    for name in ("sums", "borrows"):
        assert (values[name, "a", ""], values[name, "b", ""], values[name, None, ""]) == (rows, rows, 2 * rows)
        zones = [values[name, None, zone] for zone in ("north", "south", "west")]
        assert zones == [2 * rows / 3] * 3
    assert not [key for key in values if key[0] == "waits"]


def test_a_metric_that_raises_while_results_are_merged_costs_its_neighbours_no_row(made: list[Any]) -> None:
    scene = Scene(Sums(), Raises())
    made.append(scene)
    for _ in range(FOLD_AT + 3):
        scene.add("a", 9)
    values = scene.closed()
    assert values["sums", "a", ""] == 9.0 * (FOLD_AT + 3)
    assert not [key for key in values if key[0] == "raises"]


class Compares(Sums):
    """Merges the agents' accumulators where it compares them, as authors do."""

    name = "compares"

    def compare(self, by_agent: Any, ctx: Context) -> Iterable[Value]:
        first, *others = by_agent.values()
        for other in others:
            first = self.merge(first, other)
        yield Value("compared", float(first[0]))


def test_a_comparison_that_merges_does_not_change_what_is_rolled_up(made: list[Any]) -> None:
    scene = Scene(Compares())
    made.append(scene)
    for agent in "abc":
        scene.add(agent, 9)
    values = scene.closed()
    assert (values["compared", None, ""], values["compares", None, ""]) == (27.0, 27.0)


def test_a_preview_leaves_the_window_as_it_is(made: list[Any]) -> None:
    """The built-in metrics show what is there so far, from the accumulators that the window goes on to use."""
    registry = Registry()
    registry.load()
    config = parse({"metrics": {"segment_metrics": ["*"], "max_segments": 1}})
    engine = Engine(config, registry, PolicyStore(config), lambda: None)
    window = OpenWindow(0, 60, next(NUMBERS), SCHEMA)
    shown: list[float] = []

    def show(*preview: Any) -> None:
        points = [point for point in preview[2] if point.agent_id is None and point.value.what == "prediction_freq"]
        assert points
        shown.append(float(len(points)))

    for _ in range(3):
        for agent in ("a", "b"):
            window.tally(agent).received += 9
            engine.add_rows(MODEL, window, AgentRows(agent, batch(9), seed=1, numbers=0))
        engine.flush()
        until(lambda: engine.advance() or engine.idle, what="the steps")
        engine.preview({"fraud"}, show)
        until(lambda: engine.advance() or engine.idle, what="the preview")
    assert len(shown) == 3
    engine.close(MODEL, window)
    (closed,) = until(engine.advance, what="the closed window")
    engine.shutdown()
    counts = [p.value.value for p in closed.points if p.value.what == "prediction_count" and not p.value.segment_name]
    assert sum(counts) == 2 * 2 * 27
