"""The history restates a window once labels of its predictions have come: series with ``basis = prediction_time``.

They never enter files or sinks, where time only moves forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zmon.batch import Batch, Schema
from zmon.contract import Context, Metric, Point, Report, RowCounts, Value, Window
from zmon_collector import labels
from zmon_collector.labels import Restated
from zmon_collector.plugins import Registry
from zmon_collector.store import Store

Choose = Callable[[str, Metric[Any], Value], bool]


EVERY = 1.0  # seconds between two lots of windows


class Restater:
    """Now and again restates windows whose predictions have got labels since, one lot after the other.

    Parameters
    ----------
    store : Store
    keep : callable
        Computes reports on another thread and keeps them: ``keep(make, done)``.
    registry : Registry
    choose, options : callable
        As the engine's.
    """

    def __init__(
        self,
        store: Store,
        keep: Callable[[Callable[[], list[Report]], Callable[[], None]], None],
        registry: Registry,
        *,
        choose: Choose,
        options: Callable[..., Mapping[str, Any]],
    ) -> None:
        self._store, self._keep, self._registry = store, keep, registry
        self._choose, self._options = choose, options
        self._busy, self._next = False, 0.0

    def turn(self, mono: float) -> None:
        """Called at every turn of a collector that knows late labels."""
        if not self._busy and mono >= self._next:
            self._busy = True
            self._store.submit(labels.restatable, self._found)

    def _found(self, found: list[Restated]) -> None:
        if found:
            self._keep(lambda: [self._of(each) for each in found], self._over)
        else:
            self._over()

    def _of(self, found: Restated) -> Report:
        return restated(found, self._registry, self._choose, self._options)

    def _over(self) -> None:
        self._next, self._busy = time.monotonic() + EVERY, False


def restated(found: Restated, registry: Registry, choose: Choose, options: Callable[..., Mapping[str, Any]]) -> Report:
    """What metrics of labels give over the window's rows with an id, as far as they have labels by now."""
    model, version = found.model
    schema = Schema(found.task, found.classes)
    window = Window(found.start, found.end)
    batches = {agent: Batch(schema, columns, rows) for agent, (columns, rows) in found.agents.items()}
    points: list[Point] = []
    for state in registry.lanes()[""]:  # a plugin of somebody else might take its time
        metric = state.metric
        if "labels" in metric.needs | _more(metric):
            chosen = options(model, metric.name, state.plugin)
            contexts = {
                agent: Context(model, version, agent, schema, window, options=chosen) for agent in (*batches, None)
            }
            points += [point for point in _points(metric, batches, contexts) if choose(model, metric, point.value)]
    rows = {agent: RowCounts(received=batch.rows) for agent, batch in batches.items()}
    return Report(0, model, version, window, points, rows)


def _more(metric: Metric[Any]) -> frozenset[str]:
    return frozenset({"labels"}) if getattr(metric, "late_labels", False) else frozenset()


def _points(
    metric: Metric[Any], batches: Mapping[str, Batch], contexts: Mapping[str | None, Context]
) -> Iterator[Point]:
    if any(getattr(metric, "task", batch.schema.task) != batch.schema.task for batch in batches.values()):
        return
    merged = None
    for agent, batch in batches.items():
        if not metric.needs <= batch.columns:
            continue
        own = metric.update(metric.create(contexts[agent]), batch, contexts[agent])
        for value in metric.result(own, contexts[agent]):
            yield Point(agent, value)
        merged = own if merged is None else metric.merge(merged, own)
    if merged is not None:
        for value in metric.result(merged, contexts[None]):
            yield Point(None, value)
