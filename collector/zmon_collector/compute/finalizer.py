"""Windows that take no more rows become reports: samples are merged, metrics finish, in order for each model.

The order of closing: windows of one model finish one after the other, because a metric may keep a memory from one
window to the next (a learned reference, a trend), and because reports of a series must come in the order of time. So a
window waits until the earlier ones of its model are done and its own last steps have ended. Models do not wait for each
other. All of it runs on the collector's thread; the executors do the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from zmon.contract import Metric, Point, RowCounts, Window
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.compute.contexts import ContextFactory
from zmon_collector.compute.details import Details
from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.memory import Memory
from zmon_collector.compute.merge import MetricResults, WindowParts
from zmon_collector.compute.sample import AgentSamples
from zmon_collector.compute.sample_budget import SampleBudget
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_state import AgentPartial, Phase, WindowState
from zmon_collector.windows.window import OTHER, ModelKey


class ClosedWindow(NamedTuple):
    """A closed window's values, before the outbox numbers them, and what metrics keep for the next one."""

    model: ModelKey
    window: Window
    number: int
    points: list[Point]
    rows: dict[str, RowCounts]
    memory: Memory
    details: Details


class WindowFinalizer:
    """The windows that are closing, in order for each model."""

    def __init__(self, scheduler: Scheduler, contexts: ContextFactory, budget: SampleBudget) -> None:
        self._scheduler = scheduler
        self._contexts = contexts
        self._budget = budget
        self._queues: dict[ModelKey, deque[WindowState]] = {}

    @property
    def idle(self) -> bool:
        """Whether no window is closing."""
        return not self._queues

    def enqueue(self, state: WindowState) -> None:
        """Finish a closing window after the earlier ones of its model."""
        self._queues.setdefault(state.model, deque()).append(state)

    def advance(self) -> list[ClosedWindow]:
        """Take the next step for every window whose last one has ended; return those that are done by it."""
        closed: list[ClosedWindow] = []
        for model, queue in list(self._queues.items()):
            while queue and not queue[0].outstanding.total():
                if queue[0].phase is Phase.CLOSING:
                    self._merge_samples(queue[0])
                else:
                    closed.append(self._report(queue.popleft()))
            if not queue:
                del self._queues[model]
        return closed

    def _merge_samples(self, state: WindowState) -> None:
        """Merge the samples, which the metrics are given, then start the metrics."""
        state.enter(Phase.FINISHING)
        sizes = self._budget.sizes(state)
        samples = {name: agent.samples for name, agent in state.agents.items()}

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> AgentSamples:
            return merge.window_samples(samples, sizes)

        def done(merged: AgentSamples | None, _: StepProgress) -> None:
            for executor in self._scheduler.executors.values():
                self._scheduler.start(executor, self._finish(state, executor, merged or {}))

        self._scheduler.start(self._scheduler.builtin, Step(state, run, done))

    def _finish(self, state: WindowState, executor: MetricExecutor, samples: AgentSamples) -> Step:
        names = sorted(state.window.tallies)
        agents = {name: state.agents.get(name, AgentPartial()) for name in names}  # some have counts and no rows
        partials = {name: agent.partials.get(executor.name, []) for name, agent in agents.items()}
        contexts = self._contexts.for_closing(state, names, executor)
        parts = WindowParts(partials, contexts, samples, state.contract.policy.emits)
        results = state.results[executor.name] = MetricResults()
        lost = state.failed.keys() | state.absent

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> MetricResults:
            return merge.finish([metric for metric in metrics if metric.name not in lost], parts, progress, results)

        return Step(state, run, lambda outcome, progress: None)

    def _report(self, state: WindowState) -> ClosedWindow:
        """Collect the points of the metrics that did not fail, keep their memory, and count failures."""
        state.enter(Phase.DONE)
        points: list[Point] = []
        details: Details = {}
        memory: Memory = {}
        for executor in self._scheduler.executors.values():
            results = state.results[executor.name]
            for registered in executor.metric_states:
                name = registered.metric.name
                if name in state.absent:
                    continue
                if name in state.failed:
                    if registered.state != "stuck":
                        registered.record_failure(state.failed[name])
                    continue
                registered.failing = 0
                points += [point for point in results.points.get(name, []) if _is_emitted(point)]
            details |= {
                key: data for key, data in results.details.items() if key[1] not in state.failed and key[0] != OTHER
            }
            memory |= {key: kept for key, kept in results.memory.items() if key[0] not in state.failed}
        if not self._contexts.memory.update(state.model, state.memory, memory):
            memory = {}
        self._budget.release(state)
        window = state.window
        rows = {agent: tally.frozen() for agent, tally in sorted(window.tallies.items())}
        return ClosedWindow(state.model, Window(window.start, window.end), window.number, points, rows, memory, details)


def _is_emitted(point: Point) -> bool:
    """Return whether a point has a series: agents beyond the limit have none of their own but their row counts."""
    return point.agent_id != OTHER or point.value.what.startswith("rows_") or point.value.what == "buffer_count"
