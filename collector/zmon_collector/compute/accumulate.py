"""One stateless step of the engine: some batches of one agent and window become accumulators and a sample. Pure."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmon.bases import is_for, wants_late_labels
from zmon.batch import Batch, concat
from zmon.contract import Context, Metric
from zmon_collector.compute import sample, segments
from zmon_collector.compute.sample import Sample

Numbers = int | NDArray[np.uint64]


@dataclass(slots=True)
class StepProgress:
    """What a running step is at, for whoever waits for it; `abandoned` tells the step that nobody does any more."""

    metric: str = ""
    since: float = 0.0
    abandoned: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def guard(self, name: str, call: Callable[[], Any]) -> Any:
        """What `call` returns, or None after noting that metric `name` failed, and where."""
        if self.abandoned or name in self.failures:
            return None
        self.since = started = time.monotonic()
        self.metric = name
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything and costs only its own values
            self.failures[name] = _where(error)
            return None
        finally:
            self.metric = ""
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(slots=True)
class Partial:
    """Accumulators by metric, of some of an agent's rows in a window; and those by segment, see segments.py."""

    accumulators: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    sample: Sample | None = None


def accumulate(
    metrics: Sequence[Metric[Any]], batches: Sequence[Batch], contexts: dict[str, Context], progress: StepProgress
) -> Partial:
    """Accumulators of those metrics whose columns the batches have. All batches hold the same columns."""
    context = next(iter(contexts.values()))
    batch = concat(batches[0].schema, batches).aligned(context.schema)
    partial = Partial()
    task = batch.schema.task
    late = is_late(batch)
    reading = [
        each
        for each in metrics
        if each.needs <= batch.columns and is_for(each, task) and (not late or _takes_late(each))
    ]
    for metric in reading:

        def step(metric: Metric[Any] = metric) -> Any:
            ctx = contexts[metric.name]
            return metric.update(metric.create(ctx), batch, ctx)

        accumulator = progress.guard(metric.name, step)
        if metric.name not in progress.failures:
            partial.accumulators[metric.name] = accumulator
    split = segments.chosen(reading, contexts)
    if split and "segments" in batch.columns:
        partial.segments = segments.split(batch, split, contexts, progress.guard)
    return partial


def is_late(batch: Batch) -> bool:
    """Whether these are labels that came after their predictions, rather than rows of the window."""
    return "label_outcomes" in batch.columns


def _takes_late(metric: Metric[Any]) -> bool:
    """Metrics of labels see late ones beside those that came with their predictions; others say so themselves."""
    return "labels" in metric.needs or "label_outcomes" in metric.needs or wants_late_labels(metric)


def draw(
    batches: Sequence[Batch], seeds: Sequence[int], numbers: Sequence[Numbers], ctx: Context, size: int, bound: int
) -> Sample:
    """The sample of the batches' rows; `seeds` and `numbers` give each batch's stream and row numbers."""
    lengths = [batch.rows for batch in batches]
    rows = np.concatenate(
        [
            np.arange(first, first + count, dtype=np.uint64) if isinstance(first, int) else first
            for first, count in zip(numbers, lengths, strict=True)
        ]
    )
    keys = sample.row_keys(np.repeat(np.array(seeds, dtype=np.uint64), lengths), rows)
    found = sample.draw([batch.only(batch.raw().keys() - {"ids"}) for batch in batches], keys, size, bound)
    if "predicted" in found.batch.columns:
        found.batch.predicted  # noqa: B018 - derived here, by the publisher's own threshold, and kept with the rows
    return replace(found, batch=found.batch.aligned(ctx.schema))


def _where(error: BaseException) -> str:
    """The error and the line of the plugin it came from: enough for a log line, without a stack trace."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"[:500]
