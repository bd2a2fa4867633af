"""One stateless step: rows of one agent in one window become accumulators and a sample. Pure."""

from __future__ import annotations

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

Numbers = int | NDArray[np.uint64]  # of the first of consecutive rows, or of each row


@dataclass(slots=True)
class AgentRows:
    """Rows of one agent for a window, with the stream seed and the row numbers by which the sample is drawn."""

    agent: str
    batch: Batch
    seed: int = 0
    numbers: Numbers = 0


@dataclass(slots=True)
class StepProgress:
    """Progress of a running step. The executor reads it, and sets `abandoned` when the step is no longer needed."""

    metric: str = ""
    since: float = 0.0
    abandoned: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def guard(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `call` returns for the arguments; None, and a failure of the metric `name`, when it raises."""
        if self.abandoned or name in self.failures:
            return None
        self.since = started = time.monotonic()
        self.metric = name
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything and costs only its own values
            self.failures[name] = _location(error)
            return None
        finally:
            self.metric = ""
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(slots=True)
class Partial:
    """Accumulators of some of an agent's rows in a window, by metric and by segment (segments.py), and their sample."""

    accumulators: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    sample: Sample | None = None


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


def _location(error: BaseException) -> str:
    """Return the error and the line of the plugin that raised it: enough for a log line, without a stack trace."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"[:500]
