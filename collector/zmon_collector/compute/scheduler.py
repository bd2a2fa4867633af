"""Starts the steps of windows on executors, counts those under way, and collects what the executors have done.

The batcher, the checkpointer and the finalizer all work through it. It runs on the collector's thread: executors only
append to a queue and wake that thread, so nothing of a window is ever changed by two threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.window_state import WindowState
from zmon_collector.config.sections import CollectorSection
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import ModelKey


class Scheduler:
    """Runs steps on the executors of all plugins.

    Parameters
    ----------
    config : CollectorSection
    registry : Registry
    wake : callable
        Called from any thread when `collect` has something to do.
    """

    def __init__(self, config: CollectorSection, registry: Registry, wake: Callable[[], None]) -> None:
        self.metrics = registry.metrics
        self._timeout = config.metric_timeout
        self._wake = wake
        self.rested: dict[ModelKey, None] = {}  # models of which some window has no step under way any more
        self._ended: deque[tuple[MetricExecutor, Step]] = deque()
        self.executors = {
            name: MetricExecutor(name, metric_states, 1 if name else config.workers, self._enqueue)
            for name, metric_states in registry.by_executor().items()
        }

    def _enqueue(self, executor: MetricExecutor, step: Step) -> None:
        self._ended.append((executor, step))
        self._wake()

    @property
    def builtin(self) -> MetricExecutor:
        """The executor of the built-in metrics, which also does the work that is not a metric's."""
        return self.executors[""]

    @property
    def idle(self) -> bool:
        """Whether no step is under way."""
        return not any(executor.steps for executor in self.executors.values())

    def absent(self, model: ModelKey) -> set[str]:
        """Return the metrics that are left out of a window of this model that opens now."""
        return {name for name, state in self.metrics.items() if not state.admit(model)}

    def forget(self, model: ModelKey) -> None:
        """Drop what is known about the metrics in a model that is gone."""
        for state in self.metrics.values():
            state.forget(model)

    def start(self, executor: MetricExecutor, step: Step) -> None:
        """Run a step; its window closes after it."""
        step.window.outstanding[executor.name] += 1
        executor.submit(step)

    def collect(self, windows: Collection[WindowState]) -> None:
        """Hand outcomes to the steps' `done`; abandon overdue metrics, which fail in the windows of their model."""
        while self._ended:
            executor, step = self._ended.popleft()
            ended = executor.outcome(step)
            if ended is None:
                continue
            outcome, progress = ended
            step.window.outstanding[executor.name] -= 1
            if not step.trial:
                for name, error in progress.failures.items():
                    step.window.fail(name, error)
                for name, seconds in progress.seconds.items():
                    self.metrics[name].seconds += seconds
            if step.done(outcome, progress):
                self.start(executor, step)
            if not step.window.outstanding.total():
                self.rested[step.window.model] = None
        for executor in self.executors.values():
            for state in executor.abandon_overdue(self._timeout):
                for window in windows:
                    if state.is_stuck(window.model):
                        window.fail(state.metric.name, state.error)

    def shutdown(self) -> None:
        """End the executors."""
        for executor in self.executors.values():
            executor.shutdown()
