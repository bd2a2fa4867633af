"""Where metrics run: a lane is an executor and what waits on it. Built-in metrics share one, each plugin has its own.

So a slow plugin delays itself, and a stuck one is left behind: its lane goes on with the rest on a fresh executor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from zmon.contract import Metric
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.plugins import MetricState

log = logging.getLogger("zmon.collector")

STILL = 1.0  # seconds between two looks for overdue metrics, which usually come every 0.05

Run = Callable[[Sequence[Metric[Any]], StepProgress], Any]


@dataclass(slots=True, eq=False)
class Task:
    """Work for a lane: `run(metrics, progress)`, whose outcome goes to `done` on the collector's thread."""

    run: Run
    done: Callable[[Any, StepProgress], None]
    nbytes: int = 0
    progress: StepProgress = field(default_factory=StepProgress)
    future: Future[Any] | None = None


class MetricExecutor:
    """Runs tasks with the metrics of one plugin, or of all built-in ones.

    Parameters
    ----------
    name : str
        The plugin; empty for the built-in ones.
    states : sequence of MetricState
    workers : int
    completed : callable
        Called with (lane, task) from the executor's thread when a task ends.
    """

    def __init__(
        self, name: str, states: Sequence[MetricState], workers: int, completed: Callable[[MetricExecutor, Task], None]
    ) -> None:
        self.name = name
        self.states = list(states)
        self.nbytes = 0  # of the batches that wait
        self.tasks: set[Task] = set()
        self.left_behind = 0  # threads that may never come back
        self._workers = workers
        self._completed = completed
        self._executor = self._fresh()
        self._looked = time.monotonic()

    def _fresh(self) -> Executor:
        return ThreadPoolExecutor(self._workers, thread_name_prefix=f"zmon-metrics-{self.name or 'built-in'}")

    @property
    def metrics(self) -> list[Metric[Any]]:
        """Those that are still in use."""
        return [state.metric for state in self.states if state.state == "ok"]

    def submit(self, task: Task) -> None:
        self.tasks.add(task)
        self.nbytes += task.nbytes
        self._start(task)

    def _start(self, task: Task) -> None:
        task.progress = StepProgress()
        future = self._executor.submit(task.run, self.metrics, task.progress)
        task.future = future
        future.add_done_callback(lambda _: self._completed(self, task))

    def take(self, task: Task) -> tuple[Any, StepProgress] | None:
        """The outcome of a task that ended; None when it was left behind or restarted meanwhile."""
        future = task.future
        if task not in self.tasks or future is None or not future.done() or future.cancelled():
            return None
        self.tasks.discard(task)
        self.nbytes -= task.nbytes
        task.future = (
            None  # future and task hold each other, and the task its rows: they must go now, not with the next gc
        )
        error = future.exception()
        if error is not None:  # not a metric's fault, those are caught: a fault of the engine itself
            log.error("a step of lane %r failed", self.name or "built-in", exc_info=error)
            task.progress.failures.update({state.metric.name: f"internal: {error}" for state in self.states})
            return None, task.progress
        return future.result(), task.progress

    def overdue(self, timeout: float) -> list[MetricState]:
        """Leave behind the metrics that have been running for longer than `timeout` seconds; the others start over."""
        now = time.monotonic()
        if now - self._looked > STILL:  # the process was stopped, or this thread: no metric's fault
            for task in self.tasks:
                task.progress.since += now - self._looked
        self._looked = now
        names = {
            task.progress.metric for task in self.tasks if task.progress.metric and now - task.progress.since > timeout
        }
        stuck = [state for state in self.states if state.metric.name in names]
        if not stuck:
            return []
        for state in stuck:
            state.stuck(timeout)
        executor, self._executor = self._executor, self._fresh()
        for task in self.tasks:
            if task.progress.metric in names:
                task.progress.abandoned = True
                self.left_behind += 1
                self._start(task)
            elif task.future is not None and task.future.cancel():
                self._start(task)  # it had not begun; what runs in a sound metric ends where it is
        executor.shutdown(wait=False)
        return stuck

    def shutdown(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
