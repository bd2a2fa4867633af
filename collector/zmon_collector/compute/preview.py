"""Preview of an open window, computed as if it closed now, for viewers. The window itself does not change.

It runs on the executor of the built-in metrics, over accumulators that the window goes on to use: a fold changes none.
Rows that no step has read are not included: they are flushed, for the next preview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmon.contract import Metric, Point, RowCounts, Window
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import StepProgress, pause_after
from zmon_collector.compute.details import Details
from zmon_collector.compute.executors import Step
from zmon_collector.compute.merge import MetricResults, WindowParts
from zmon_collector.compute.sample import AgentSamples
from zmon_collector.compute.window_state import WindowState
from zmon_collector.windows.window import ModelKey

Show = Callable[[ModelKey, Window, list[Point], dict[str, RowCounts], Details], None]


def preview(state: WindowState, parts: WindowParts, sizes: Mapping[str, int], show: Show) -> Step:
    """Make a step for the built-in metrics whose results go to `show`, on the collector's thread.

    `parts` are those of a window that closes, without samples; `sizes` are those of the samples, by agent.
    """
    unmerged = {name: list(agent.samples) for name, agent in state.agents.items()}
    window = Window(state.window.start, state.window.end)
    rows = {name: tally.frozen() for name, tally in state.window.tallies.items()}
    whole = parts.contexts.keys() - state.uncovered("", parts.contexts)
    samples: AgentSamples = {}
    results = MetricResults()

    def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> MetricResults:
        pauses = pause_after()
        if None not in merge.merge_samples(unmerged, sizes, samples, pauses):
            return results
        shown = [metric for metric in metrics if metric.name in whole]
        return merge.finish(shown, parts._replace(samples=samples), progress, results, pauses)

    def done(outcome: MetricResults | None, _: StepProgress) -> bool:
        if outcome is None or results.begun or None not in samples:
            return outcome is not None
        points = [point for points in results.points.values() for point in points]
        show(state.model, window, points, rows, results.details)
        return False

    return Step(state, run, done, trial=True)  # a metric that fails on half a window has not failed on the window
