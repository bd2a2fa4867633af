"""Accumulators and samples of many steps become one window's values, by agent and rolled up. Pure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from zmon import bases
from zmon.contract import Context, Metric, Point, Value
from zmon_collector.compute import details, sample, segments
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.details import Details
from zmon_collector.compute.sample import AgentSamples, Sample

MetricContexts = Mapping[str, Mapping[str | None, Context]]  # by metric and agent, None for the rollup


class WindowParts(NamedTuple):
    """Parts of a window from which its metrics are finished.

    Attributes
    ----------
    partials : mapping
        Partial results by agent.
    contexts : mapping
        Each metric's context by agent, None for the rollup.
    samples : mapping
        Samples by agent, None for the rollup.
    emits : callable
        ``emits(metric, value)``: whether a value is emitted.
    """

    partials: Mapping[str, Sequence[Partial]]
    contexts: MetricContexts
    samples: AgentSamples
    emits: Callable[[Metric[Any], Value], bool]


@dataclass(slots=True)
class MetricResults:
    """Results of some metrics for a window: points by metric, details, and the memory to keep by (metric, agent)."""

    points: dict[str, list[Point]] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    memory: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)


def fold(metrics: Sequence[Metric[Any]], partials: Sequence[Partial], progress: StepProgress) -> Partial:
    """Merge partial results into one, and change none of them: the step may be run again, see executors.py."""
    merged = Partial()
    for metric in metrics:
        accumulators = [part.accumulators[metric.name] for part in partials if metric.name in part.accumulators]
        if accumulators:
            accumulator = progress.guard(metric.name, segments.merged, metric, accumulators)
            if metric.name not in progress.failures:
                merged.accumulators[metric.name] = accumulator
    merged.segments = segments.fold(metrics, [part.segments for part in partials], progress.guard)
    return merged


def fold_samples(samples: Iterable[Sample | None], size: int) -> Sample | None:
    """Merge samples into one of all their rows; return None without samples."""
    present = [kept for kept in samples if kept is not None]
    return sample.merge(present, size) if len(present) > 1 else next(iter(present), None)


def window_samples(samples: Mapping[str, Sequence[Sample]], sizes: Mapping[str, int]) -> AgentSamples:
    """Merge each agent's samples to the size that it may have, and those of all agents, under None."""
    merged: AgentSamples = {agent: fold_samples(samples[agent], sizes[agent]) for agent in samples}
    merged[None] = fold_samples(list(merged.values()), min(sizes.values(), default=1))
    return merged


def finish(
    metrics: Sequence[Metric[Any]], parts: WindowParts, progress: StepProgress, results: MetricResults
) -> MetricResults:
    """Add each metric's values to `results`: per agent, agents compared, and over all of them together.

    Metrics that `results` has already are done: a step that was abandoned in one metric goes on with the others.
    """
    for metric in metrics:
        if metric.name in results.points:
            continue
        finished = progress.guard(metric.name, _finish_metric, metric, parts)
        if progress.abandoned:
            break
        if finished is not None:
            results.details.update(finished.details)
            results.memory.update(finished.memory)
            results.points.update(finished.points)
    return results


def _finish_metric(metric: Metric[Any], parts: WindowParts) -> MetricResults:
    contexts = {}
    for agent, ctx in parts.contexts[metric.name].items():
        sample = parts.samples.get(agent)
        # The last window's memory stays as it is until this one has closed: plugins work on a copy.
        memory = copy.deepcopy(ctx.memory)
        contexts[agent] = replace(ctx, memory=memory, sample=None if sample is None else sample.batch)
    by_agent: dict[str, Any] = {}
    split: dict[str, segments.Segments] = {}
    for agent, partials in parts.partials.items():
        accumulators = [part.accumulators[metric.name] for part in partials if metric.name in part.accumulators]
        if accumulators or not metric.needs:
            by_agent[agent] = segments.merged(metric, accumulators or [metric.create(contexts[agent])])
        split[agent] = segments.fold([metric], [part.segments for part in partials], segments.unguarded)
    points: list[Point] = []
    kept: Details = {}

    def emit(agent: str | None, values: Iterable[Value | Point]) -> None:
        points.extend(point for point in _checked(agent, values) if parts.emits(metric, point.value))

    for agent, accumulator in by_agent.items():
        details.add(kept, metric, accumulator, contexts[agent])
        emit(agent, metric.result(accumulator, contexts[agent]))
        emit(agent, segments.values(metric, split[agent], contexts[agent]))
    rollup = contexts[None]
    if len(by_agent) > 1:
        emit(None, bases.compare(metric, by_agent, rollup))
    if by_agent:
        whole = segments.merged(metric, list(by_agent.values()))
        details.add(kept, metric, whole, rollup)
        emit(None, metric.result(whole, rollup))
        folded = segments.fold([metric], list(split.values()), segments.unguarded)
        emit(None, segments.values(metric, folded, rollup))
    memories = {(metric.name, agent): ctx.memory for agent, ctx in contexts.items() if ctx.memory}
    return MetricResults({metric.name: points}, kept, memories)


def _checked(agent: str | None, values: Iterable[Value | Point]) -> Iterator[Point]:
    """Make points of a metric's values; raise when one could not be emitted by any sink."""
    for item in values:
        point = item if isinstance(item, Point) else Point(agent, item)
        value = point.value
        if not math.isfinite(value.value):
            raise ValueError(f"{value.what} is {value.value}; leave undefined values out")
        try:
            "".join((point.agent_id or "", value.what, *value[2:]))
        except TypeError:
            raise TypeError(
                f"a name of {value!r:.200} is not a string; leave a name that does not apply empty"
            ) from None
        yield point
