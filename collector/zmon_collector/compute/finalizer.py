"""Windows that take no more rows become reports: samples are merged, metrics finish, in order for each model.

The order of closing: windows of one model finish one after the other, because a metric may keep a memory from one
window to the next (a learned reference, a trend), and because reports of a series must come in the order of time. So a
window waits until the earlier ones of its model are done and its own last steps have ended. Models do not wait for each
other, nor for a wide window: its metrics finish in slices, between which an executor turns to the others' steps. All of
it runs on the collector's thread; the executors do the work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zmon.contract import Metric, Point, RowCounts, Window
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import StepProgress, pause_after
from zmon_collector.compute.contexts import ContextFactory
from zmon_collector.compute.details import Details
from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.memory import Memory
from zmon_collector.compute.merge import MetricResults, WindowParts
from zmon_collector.compute.packing import MIB, REPORT_BYTES, largest_first
from zmon_collector.compute.sample import AgentSamples
from zmon_collector.compute.sample_budget import SampleBudget
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_state import AgentPartial, Phase, WindowState
from zmon_collector.windows.window import ModelKey

log = logging.getLogger("zmon.collector")


class ClosedWindow(NamedTuple):
    """A closed window's values, before the outbox numbers them, and what metrics keep for the next one.

    `packed` are the points as bytes, where they are packed already; `memory` holds what has changed.
    """

    model: ModelKey
    window: Window
    number: int
    points: list[Point]
    rows: dict[str, RowCounts]
    memory: Memory
    details: Details
    packed: list[bytes] | None = None


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
        self._scheduler.rested[state.model] = None

    def advance(self) -> list[ClosedWindow]:
        """Take the next step for every window whose last one has ended; return those that are done by it."""
        closed: list[ClosedWindow] = []
        rested, self._scheduler.rested = self._scheduler.rested, {}
        for model in rested:
            queue = self._queues.get(model)
            while queue and not queue[0].outstanding.total():
                if queue[0].phase is Phase.CLOSING:
                    self._merge_samples(queue[0])
                else:
                    closed.append(self._report(queue.popleft()))
            if queue is not None and not queue:
                del self._queues[model]
        return closed

    def _merge_samples(self, state: WindowState) -> None:
        """Merge the samples, which the metrics are given, then start the metrics."""
        state.enter(Phase.FINISHING)
        sizes = self._budget.sizes(state)
        samples = {name: agent.samples for name, agent in state.agents.items()}
        merged: AgentSamples = {}

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> AgentSamples:
            return merge.merge_samples(samples, sizes, merged, pause_after())

        def done(outcome: AgentSamples | None, progress: StepProgress) -> bool:
            if outcome is not None and None not in outcome:
                return True
            if outcome is None:  # statistics of fewer rows would be silently other numbers
                state.fail_all(self._scheduler.metrics, progress.defect)
            self._leave_out_parts(state)
            for executor in self._scheduler.executors.values():
                self._scheduler.start(executor, self._finish(state, executor, outcome or {}))
            return False

        self._scheduler.start(self._scheduler.builtin, Step(state, run, done))

    def _leave_out_parts(self, state: WindowState) -> None:
        """Leave out metrics that saw only a part of the window's rows, because they were not there for the others."""
        for executor in self._scheduler.executors.values():
            expected = [name for name in executor.names if name not in state.failed and name not in state.absent]
            for name in state.uncovered(executor.name, expected):
                state.absent.add(name)
                log.info("metric %r saw a part of a window of model %r only, and is left out of it",
                         name, state.model[0])  # fmt: skip

    def _finish(self, state: WindowState, executor: MetricExecutor, samples: AgentSamples) -> Step:
        names = sorted(state.window.tallies)
        agents = {name: state.agents.get(name, AgentPartial()) for name in names}  # some have counts and no rows
        partials = {name: agent.partials.get(executor.name, []) for name, agent in agents.items()}
        contexts = self._contexts.for_closing(state, names, executor)
        parts = WindowParts(partials, contexts, samples, state.contract.policy.emits, state.memory)
        results = state.results[executor.name] = MetricResults()

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> MetricResults:
            return merge.finish(metrics, parts, progress, results, pause_after())

        def done(outcome: MetricResults | None, progress: StepProgress) -> bool:
            if outcome is None:
                state.fail_all([name for name in executor.names if name not in results.points], progress.defect)
            return outcome is not None and bool(results.begun)

        return Step(state, run, done)

    def _report(self, state: WindowState) -> ClosedWindow:
        """Collect the points of the metrics that did not fail, keep their memory, and count failures."""
        state.enter(Phase.DONE)
        given: dict[str, MetricResults] = {}
        for executor in self._scheduler.executors.values():
            for registered in executor.metric_states:
                name, results = registered.metric.name, state.results[executor.name]
                if name in results.points and name not in state.failed and name not in state.absent:
                    given[name] = results
        for name in largest_first({name: results.nbytes(name) for name, results in given.items()}, REPORT_BYTES):
            state.fail(name, f"the report would have more than {REPORT_BYTES // MIB} MiB of values; emit fewer series")
            del given[name]
        for name, registered in self._scheduler.metrics.items():
            if name in state.failed and not registered.is_stuck(state.model):
                registered.record_failure(state.model, state.failed[name])
            elif name in given:
                registered.record_success(state.model)
        points = [point for name, results in given.items() for point in results.points[name]]
        details = {key: data for results in _once(given) for key, data in results.details.items() if key[1] in given}
        memory = {key: kept for results in _once(given) for key, kept in results.memory.items() if key[0] in given}
        if not self._contexts.memory.update(state.model, state.memory, memory):
            memory = {}
        self._budget.release(state)
        window = state.window
        rows = {agent: tally.frozen() for agent, tally in sorted(window.tallies.items())}
        packed = [results.packed[name] for name, results in given.items()]
        span = Window(window.start, window.end)
        return ClosedWindow(state.model, span, window.number, points, rows, memory, details, packed)


def _once(given: Mapping[str, MetricResults]) -> Iterable[MetricResults]:
    """Return the results of each executor, which several metrics share."""
    return {id(results): results for results in given.values()}.values()
