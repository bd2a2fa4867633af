"""What an open window holds so far, as if it closed now, for those who are looking. The window itself is not changed.

The accumulators are copied on the collector's thread, while no step of the window is under way; the rest runs on the
executor of the built-in metrics. Rows that no step has read are not included: they are flushed, for the next preview.
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
from zmon_collector.compute.executors import Step
from zmon_collector.compute.merge import MetricResults, WindowParts
from zmon_collector.compute.sample import Sample
from zmon_collector.compute.window_state import WindowState
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.windows.window import ModelKey

Show = Callable[[ModelKey, Window, list[Point], dict[str, RowCounts], Details], None]


def preview(
    state: WindowState,
    contexts: Mapping[str, Mapping[str | None, Context]],
    size: int,
    policy: ModelPolicy,
    show: Show,
) -> Step:
    """Make a step for the built-in metrics whose results go to `show`, on the collector's thread.

    `contexts` are those of a window that closes, by metric and agent, without samples; `size` is that of the samples.
    """
    partials = {
        name: [
            Partial(copy.deepcopy(part.accumulators), copy.deepcopy(part.segments))
            for part in agent.partials.get("", [])
        ]
        for name, agent in state.agents.items()
    }
    gathered = {name: list(agent.samples) for name, agent in state.agents.items()}
    window = Window(state.window.start, state.window.end)
    rows = {name: tally.frozen() for name, tally in state.window.tallies.items()}

    def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> MetricResults:
        samples: dict[str | None, Sample | None] = {
            name: merge.fold_samples(of_agent, size) for name, of_agent in gathered.items()
        }
        samples[None] = merge.fold_samples(list(samples.values()), size)

        def sampled(agent: str | None, ctx: Context) -> Context:
            sample = samples.get(agent)
            return replace(ctx, sample=None if sample is None else sample.batch)

        with_samples = {
            metric.name: {agent: sampled(agent, ctx) for agent, ctx in contexts[metric.name].items()}
            for metric in metrics
        }
        return merge.finish(metrics, WindowParts(partials, with_samples, policy.emits), progress, MetricResults())

    def done(results: MetricResults | None, _: StepProgress) -> None:
        if results is not None:
            points = [point for points in results.points.values() for point in points]
            show(state.model, window, points, rows, results.details)

    return Step(state, run, done, trial=True)  # a metric that fails on half a window has not failed on the window
