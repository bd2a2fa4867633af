"""Accumulators and samples of many steps become one window's values, per agent and rolled up. Pure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zmon import bases
from zmon.contract import Context, Metric, Point, Value
from zmon_collector.compute import details, sample, segments
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.details import Details
from zmon_collector.compute.sample import Sample

Choice = Callable[[Metric[Any], Value], bool]


def fold(metrics: Sequence[Metric[Any]], partials: Sequence[Partial], progress: StepProgress) -> Partial:
    """One partial out of several; the first one's accumulators may be changed in place."""
    merged = Partial()
    for metric in metrics:
        parts = [each.accumulators[metric.name] for each in partials if metric.name in each.accumulators]
        if not parts:
            continue

        accumulator = progress.guard(metric.name, lambda m=metric, p=parts: _merged(m, p))  # type: ignore[misc]
        if metric.name not in progress.failures:
            merged.accumulators[metric.name] = accumulator
    merged.segments = segments.fold(metrics, [each.segments for each in partials], progress.guard)
    return merged


def fold_samples(samples: Iterable[Sample | None], size: int) -> Sample | None:
    """The sample of all rows behind these samples."""
    found = [each for each in samples if each is not None]
    return sample.merge(found, size) if len(found) > 1 else next(iter(found), None)


@dataclass(slots=True)
class FinishedWindow:
    """What some metrics gave for a window: points by metric, details, and the memory to keep by (metric, agent)."""

    points: dict[str, list[Point]] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    memory: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)


def finish(
    metrics: Sequence[Metric[Any]],
    partials: Mapping[str, Sequence[Partial]],
    contexts: Mapping[str, Mapping[str | None, Context]],
    choose: Choice,
    progress: StepProgress,
    finished: FinishedWindow,
) -> FinishedWindow:
    """Results of each metric: per agent, agents compared, and over all of them together.

    `contexts` gives each metric's context by agent, None for the rollup. Metrics that `finished` holds are done: a step
    that was left behind in one metric goes on with the others.
    """
    for metric in metrics:
        if metric.name in finished.points:
            continue
        result = progress.guard(metric.name, lambda m=metric: _one(m, partials, contexts[m.name], choose))  # type: ignore[misc]
        if progress.abandoned:
            break
        if result is not None:
            points, found, memory = result
            finished.details.update(found)
            finished.memory.update({(metric.name, agent): kept for agent, kept in memory.items()})
            finished.points[metric.name] = points
    return finished


def _one(
    metric: Metric[Any],
    partials: Mapping[str, Sequence[Partial]],
    contexts: Mapping[str | None, Context],
    choose: Choice,
) -> tuple[list[Point], Details, dict[str | None, dict[str, Any]]]:
    # The last window's memory stays as it is until this one has closed: plugins work on a copy.
    contexts = {agent: replace(ctx, memory=copy.deepcopy(ctx.memory)) for agent, ctx in contexts.items()}
    by_agent: dict[str, Any] = {}
    split: dict[str, segments.Segments] = {}
    for agent, parts in partials.items():
        ctx = contexts[agent]
        own = [part.accumulators[metric.name] for part in parts if metric.name in part.accumulators]
        if own or not metric.needs:
            by_agent[agent] = _merged(metric, own or [metric.create(ctx)])
        split[agent] = segments.fold([metric], [part.segments for part in parts], _call)
    points: list[Point] = []
    found: Details = {}
    for agent, accumulator in by_agent.items():
        details.add(found, metric, accumulator, contexts[agent])
        _add(points, metric, agent, metric.result(accumulator, contexts[agent]), choose)
        _add(points, metric, agent, segments.values(metric, split[agent], contexts[agent]), choose)
    rollup = contexts[None]
    if len(by_agent) > 1:
        _add(points, metric, None, bases.compare(metric, by_agent, rollup), choose)
    if by_agent:  # last, because merging may change the first agent's accumulator
        whole = _merged(metric, list(by_agent.values()))
        details.add(found, metric, whole, rollup)
        _add(points, metric, None, metric.result(whole, rollup), choose)
        folded = segments.fold([metric], list(split.values()), _call)
        _add(points, metric, None, segments.values(metric, folded, rollup), choose)
    return points, found, {agent: ctx.memory for agent, ctx in contexts.items() if ctx.memory}


def _call(_: str, call: Callable[[], Any]) -> Any:
    """No guard: the whole of a metric's finish is guarded."""
    return call()


def _merged(metric: Metric[Any], parts: Sequence[Any]) -> Any:
    accumulator = parts[0]
    for part in parts[1:]:
        accumulator = metric.merge(accumulator, part)
    return accumulator


def _add(
    points: list[Point], metric: Metric[Any], agent: str | None, values: Iterable[Value | Point], choose: Choice
) -> None:
    for each in values:
        point = each if isinstance(each, Point) else Point(agent, each)
        if not math.isfinite(point.value.value):
            raise ValueError(f"{point.value.what} is {point.value.value}; leave undefined values out")
        try:
            "".join((point.agent_id or "", point.value.what, *point.value[2:]))
        except TypeError:
            raise TypeError(f"a name of {point.value!r:.200} is no text; a name that does not apply is empty") from None
        if choose(metric, point.value):
            points.append(point)
