"""One stateless step: rows of one agent in one window become accumulators and a sample. Pure."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmon.bases import is_for, wants_late_labels
from zmon.batch import Batch, Schema, concat
from zmon.contract import Context, Metric
from zmon_collector.compute import sample, segments
from zmon_collector.compute.sample import Sample

SLICE = 0.1  # seconds of a close or a preview, after which an executor turns to the steps of other windows

Numbers = int | NDArray[np.uint64]  # of the first of consecutive rows, or of each row


@dataclass(slots=True)
class AgentRows:
    """Rows of one agent for a window, with the stream seed and the row numbers by which the sample is drawn."""

    agent: str
    batch: Batch
    seed: int = 0
    numbers: Numbers = 0

    def part(self, start: int, stop: int) -> AgentRows:
        """Return the rows from `start` to before `stop`."""
        numbers = self.numbers + start if isinstance(self.numbers, int) else self.numbers[start:stop]
        return AgentRows(self.agent, self.batch.take(slice(start, stop)), self.seed, numbers)


@dataclass(slots=True)
class StepProgress:
    """Progress of a running step, which the executor reads.

    A call either ends, and counts, or is abandoned: the lock leaves nothing between. So an abandoned step that comes
    back late changes nothing any more.
    """

    metric: str = ""  # whose call is under way
    since: float = 0.0
    abandoned: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    defect: str = ""  # an error of the engine itself, which ended the step
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def guard(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `call` returns for the arguments; None, and a failure of the metric `name`, when it raises.

        The call is one unit of work: only if it alone takes longer than the timeout is the metric stuck.
        """
        with self._lock:
            if self.abandoned or name in self.failures:
                return None
            self.since = started = time.monotonic()
            self.metric = name
        outcome, failure = None, ""
        try:
            outcome = call(*arguments)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and costs only its own values
            failure = _location(error)
        with self._lock:
            self.metric = ""
            if self.abandoned:
                return None
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
            if failure:
                self.failures[name] = failure
        return outcome

    def fail(self, name: str, error: str) -> None:
        """Let a metric lose its values."""
        self.failures.setdefault(name, error)

    def abandon(self, timeout: float) -> str:
        """Abandon the step if a call has taken longer than `timeout` seconds; return its metric's name, or ""."""
        with self._lock:
            if not self.metric or time.monotonic() - self.since <= timeout:
                return ""
            self.abandoned = True
            return self.metric

    def excuse(self, seconds: float) -> None:
        """Do not count time in which nothing could run."""
        with self._lock:
            self.since += seconds


@dataclass(slots=True)
class Partial:
    """Accumulators of some of an agent's rows in a window, by metric and by segment (segments.py), and their sample.

    `covered` has the number of these rows that each metric has seen, whether it had a use for them or not: a metric
    that did not see all rows of a window, because it was disabled or absent for some, gives no values for it.
    """

    accumulators: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    sample: Sample | None = None
    covered: dict[str, int] = field(default_factory=dict)


def accumulate(
    metrics: Sequence[Metric[Any]], batches: Sequence[Batch], contexts: dict[str, Context], progress: StepProgress
) -> Partial:
    """Accumulate batches, which hold the same columns, with every metric whose columns they have."""
    schema = next(iter(contexts.values())).schema
    batch = concat(batches[0].schema, batches).aligned(schema)
    partial = Partial()
    task = batch.schema.task
    late = is_late(batch)
    reading = [
        metric
        for metric in metrics
        if metric.needs <= batch.columns and is_for(metric, task) and (not late or reads_late_labels(metric))
    ]
    for metric in reading:
        accumulator = progress.guard(metric.name, segments.updated, metric, batch, contexts[metric.name])
        if metric.name not in progress.failures:
            partial.accumulators[metric.name] = accumulator
    segmented = segments.segmented(reading, contexts)
    if segmented and "segments" in batch.columns:
        partial.segments = segments.split(batch, segmented, contexts, progress.guard)
    partial.covered = {metric.name: batch.rows for metric in metrics if metric.name not in progress.failures}
    return partial


def is_late(batch: Batch) -> bool:
    """Return whether these are labels that came after their predictions, rather than rows of the window."""
    return "label_outcomes" in batch.raw()


def reads_late_labels(metric: Metric[Any]) -> bool:
    """Return whether late labels are for this metric: always when it reads labels; others declare it."""
    return "labels" in metric.needs or "label_outcomes" in metric.needs or wants_late_labels(metric)


def draw(parts: Sequence[AgentRows], schema: Schema, size: int, bound: int) -> Sample:
    """Draw the sample of these rows, with the columns of `schema`."""
    lengths = [part.batch.rows for part in parts]
    numbers = np.concatenate(
        [
            np.arange(part.numbers, part.numbers + rows, dtype=np.uint64)
            if isinstance(part.numbers, int)
            else part.numbers
            for part, rows in zip(parts, lengths, strict=True)
        ]
    )
    seeds = np.repeat(np.array([part.seed for part in parts], dtype=np.uint64), lengths)
    slim = [part.batch.only(part.batch.raw().keys() - {"ids"}) for part in parts]
    drawn = sample.draw(slim, sample.row_keys(seeds, numbers), size, bound)
    if "predicted" in drawn.batch.columns:
        drawn.batch.predicted  # noqa: B018 - derived here, by the publisher's own threshold, and kept with the rows
    return replace(drawn, batch=drawn.batch.aligned(schema))


def pause_after(seconds: float = SLICE) -> Callable[[], bool]:
    """Return a function that says whether it is the turn of other windows' steps: so many seconds after now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def _location(error: BaseException) -> str:
    """Return the error and the line of the plugin that raised it: enough for a log line, without a stack trace."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a plugin's exception may fail to say what it is
        text = "(its message cannot be read)"
    return f"{type(error).__name__}: {text}{place}"[:500].encode(errors="replace").decode()  # no lone surrogates
