"""What an open window holds so far, as if it closed now: for whoever looks. The window itself is not touched.

The accumulators are copied on the collector's thread, while no step is under way; the rest runs on the built-in
metrics' lane. Rows that still gather for a step are not in it: they are flushed, and are in the next one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zmon.contract import Context, Metric, Point, RowCounts, Window
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.details import Details
from zmon_collector.compute.executors import Task
from zmon_collector.compute.merge import Choice, FinishedWindow
from zmon_collector.compute.sample import Sample
from zmon_collector.compute.window_state import WindowState

Contexts = Mapping[str | None, Mapping[str, Context]]  # by agent, then by metric
Take = Callable[[tuple[str, str], Window, list[Point], dict[str, RowCounts], Details], None]


def task(share: WindowState, contexts: Contexts, size: int, choose: Choice, take: Take) -> Task:
    """A step for the built-in lane; what it finds goes to `take` on the collector's thread."""
    partials = {
        agent: [
            Partial(copy.deepcopy(each.accumulators), copy.deepcopy(each.segments))
            for each in cell.partials.get("", [])
        ]
        for agent, cell in share.cells.items()
    }
    samples = {agent: list(cell.samples) for agent, cell in share.cells.items()}
    model, window = share.model, Window(share.window.start, share.window.end)
    rows = {agent: tally.frozen() for agent, tally in share.window.tallies.items()}

    def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> FinishedWindow:
        drawn: dict[str | None, Sample | None] = {
            agent: merge.fold_samples(own, size) for agent, own in samples.items()
        }
        drawn[None] = merge.fold_samples(list(drawn.values()), size)
        by_metric: dict[str, dict[str | None, Context]] = {metric.name: {} for metric in metrics}
        for agent, own in contexts.items():
            found = drawn.get(agent)
            for metric in metrics:
                by_metric[metric.name][agent] = replace(own[metric.name], sample=found.batch if found else None)
        return merge.finish(metrics, partials, by_metric, choose, progress, FinishedWindow())

    def done(finished: FinishedWindow | None, _: StepProgress) -> None:
        share.outstanding[""] -= 1
        if finished is not None:  # a metric that fails on half a window has not failed on the window
            points = [point for points in finished.points.values() for point in points]
            take(model, window, points, rows, finished.details)

    share.outstanding[""] += 1  # the window closes after it
    return Task(run, done)
