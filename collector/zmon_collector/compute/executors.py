"""Executors that run metrics: the built-in metrics share one, and every other plugin has its own.

So a slow plugin delays only itself. A Python thread cannot be killed: when a metric does not return in time, its thread
is abandoned and the executor gets fresh threads. Steps are stateless, so what the thread was working on, and
what was queued behind it, is run again and nothing is lost but the stuck metric's values in that model.

Time is that of single calls, not of steps: a step over many agents and features makes many calls, and takes as long as
it needs. A long one is cut into slices (merge.py), each of which queues behind the others' steps.
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
from zmon_collector.compute.window_state import WindowState
from zmon_collector.metric_state import MetricState

log = logging.getLogger("zmon.collector")

STALL = 1.0  # seconds between two checks for overdue metrics, which usually come every 0.05

Run = Callable[[Sequence[Metric[Any]], StepProgress], Any]
Ended = Callable[["MetricExecutor", "Step"], None]


@dataclass(slots=True, eq=False)
class Step:
    """Work for an executor.

    Attributes
    ----------
    window : WindowState
        The window that the step belongs to, which closes after it.
    run : callable
        ``run(metrics, progress)``, on the executor's thread.
    done : callable
        ``done(outcome, progress)``, on the collector's thread; True when the step has more to do, and is to run again
        behind the others. After an error of the engine itself the outcome is None, and ``progress.defect`` says what
        it was.
    nbytes : int
        Of the rows that it holds.
    trial : bool
        Whether its failures and its time are not the window's.
    """

    window: WindowState
    run: Run
    done: Callable[[Any, StepProgress], bool | None]
    nbytes: int = 0
    trial: bool = False
    progress: StepProgress = field(default_factory=StepProgress)
    future: Future[Any] | None = None


class MetricExecutor:
    """Runs steps with the metrics of one plugin, or with all built-in ones.

    Parameters
    ----------
    name : str
        The plugin; empty for the built-in ones.
    metric_states : sequence of MetricState
    workers : int
    ended : callable
        ``ended(executor, step)``, called from the executor's thread when a step has ended.
    """

    def __init__(self, name: str, metric_states: Sequence[MetricState], workers: int, ended: Ended) -> None:
        self.name = name
        self.metric_states = metric_states
        self.names = [state.metric.name for state in metric_states]
        self.nbytes = 0  # of the rows that wait
        self.steps: set[Step] = set()
        self.ended_steps = 0  # a sign of life
        self._workers = workers
        self._ended = ended
        self._threads = self._fresh_threads()
        self._checked = time.monotonic()

    def _fresh_threads(self) -> Executor:
        return ThreadPoolExecutor(self._workers, thread_name_prefix=f"zmon-metrics-{self.name or 'built-in'}")

    def sign(self) -> int | None:
        """Return a number that changes whenever a step has ended; None while there are no steps."""
        return self.ended_steps if self.steps else None

    def metrics(self, window: WindowState) -> list[Metric[Any]]:
        """Return the metrics that may give values for a window."""
        lost = window.failed.keys() | window.absent
        return [
            state.metric
            for state in self.metric_states
            if state.metric.name not in lost and not state.is_stuck(window.model)
        ]

    def submit(self, step: Step) -> None:
        """Queue a step."""
        self.steps.add(step)
        self.nbytes += step.nbytes
        self._start(step)

    def _start(self, step: Step) -> None:
        step.progress = StepProgress()
        future = self._threads.submit(step.run, self.metrics(step.window), step.progress)
        step.future = future
        future.add_done_callback(lambda _: self._note_end(step))

    def _note_end(self, step: Step) -> None:
        self.ended_steps += 1
        self._ended(self, step)

    def outcome(self, step: Step) -> tuple[Any, StepProgress] | None:
        """Return the outcome of a step that has ended; None when it was abandoned or restarted meanwhile."""
        future = step.future
        if step not in self.steps or future is None or not future.done() or future.cancelled():
            return None
        self.steps.discard(step)
        self.nbytes -= step.nbytes
        # Future and step hold each other, and the step its rows: free them now, not with the next garbage collection.
        step.future = None
        error = future.exception()
        if error is not None:  # not from a metric, whose errors are caught: a defect of the engine itself
            log.error("a step of the executor %r failed", self.name or "built-in", exc_info=error)
            step.progress.defect = f"internal: {type(error).__name__}: {error}"[:500]
            return None, step.progress
        return future.result(), step.progress

    def abandon_overdue(self, timeout: float) -> list[MetricState]:
        """Abandon metrics whose call has been running for longer than `timeout` seconds, and return them.

        A step that a stuck metric holds starts again on fresh threads without it, and so do those that have not begun.
        A step that is in a sound metric ends where it is.
        """
        now = time.monotonic()
        if now - self._checked > STALL:  # the process was stopped, or this thread: not the fault of a metric
            for step in self.steps:
                step.progress.excuse(now - self._checked)
        self._checked = now
        by_name = {state.metric.name: state for state in self.metric_states}
        held = [(step, by_name[name]) for step in self.steps if (name := step.progress.abandon(timeout))]
        if not held:
            return []
        for step, state in held:
            state.mark_stuck(step.window.model, timeout)
        threads, self._threads = self._threads, self._fresh_threads()
        abandoned = {step for step, _ in held}
        for step in self.steps:
            if step in abandoned or (step.future is not None and step.future.cancel()):
                self._start(step)
        threads.shutdown(wait=False)
        return list({id(state): state for _, state in held}.values())

    def shutdown(self) -> None:
        """Drop what is queued; a running step ends on its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)
