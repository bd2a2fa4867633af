"""Accumulators and samples of many steps become one window's values, by agent and rolled up. Pure.

Finishing a metric is cut into units: an agent's merge, some hundred values. Each is a guarded call of its own, so the
timeout is for a unit, and a close takes as long as its agents and features need. Between two units it may pause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from zmon import bases
from zmon.contract import Context, Metric, Point, Value
from zmon_collector.compute import details, packing, sample, segments
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.details import Details
from zmon_collector.compute.sample import AgentSamples, Sample
from zmon_collector.windows.window import OTHER

UNIT_POINTS = 256
MOST_VALUES = 2**23  # of one metric in one window

MetricContexts = Mapping[str, Mapping[str | None, Context]]  # by metric and agent, None for the rollup
PackedMemory = Mapping[tuple[str, str | None], bytes]  # by (metric, agent), None for the rollup


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
    memory : mapping
        What metrics keep from the window before.
    """

    partials: Mapping[str, Sequence[Partial]]
    contexts: MetricContexts
    samples: AgentSamples
    emits: Callable[[Metric[Any], Value], bool]
    memory: PackedMemory = MappingProxyType({})


@dataclass(slots=True)
class MetricResults:
    """Results of some metrics for a window.

    Attributes
    ----------
    points : dict
        Points by metric.
    packed : dict
        The same as bytes, by metric.
    details : dict
    memory : dict
        What metrics keep, where it has changed.
    begun : dict
        Units to come of the metric that is under way, by its name.
    failed : set
        Metrics that failed: a later slice does not begin with them again.
    """

    points: dict[str, list[Point]] = field(default_factory=dict)
    packed: dict[str, bytes] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    memory: dict[tuple[str, str | None], bytes] = field(default_factory=dict)
    begun: dict[str, Units] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def nbytes(self, metric: str) -> int:
        """Return the bytes that a metric adds to the report."""
        return len(self.packed[metric]) + sum(len(data) for key, data in self.details.items() if key[1] == metric)

    def add(self, other: MetricResults) -> None:
        """Add the results of a further metric."""
        for name in ("points", "packed", "details", "memory"):
            getattr(self, name).update(getattr(other, name))


Units = Iterator[MetricResults | None]  # None after each unit, and the results at the end


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
    merged.covered = {
        metric.name: sum(part.covered.get(metric.name, 0) for part in partials)
        for metric in metrics
        if metric.name not in progress.failures
    }
    return merged


def fold_samples(samples: Iterable[Sample | None], size: int) -> Sample | None:
    """Merge samples into one of all their rows; return None without samples."""
    present = [kept for kept in samples if kept is not None]
    return sample.merge(present, size) if len(present) > 1 else next(iter(present), None)


def merge_samples(
    samples: Mapping[str, Sequence[Sample]],
    sizes: Mapping[str, int],
    merged: AgentSamples,
    pauses: Callable[[], bool] = lambda: False,
) -> AgentSamples:
    """Merge each agent's samples to the size that it may have, and at last those of all agents, under None.

    When `pauses` says so it returns after an agent; called again with the same `merged` it goes on.
    """
    for agent in samples:
        if agent not in merged:
            merged[agent] = fold_samples(samples[agent], sizes[agent])
            if pauses():
                return merged
    if None not in merged:
        merged[None] = fold_samples(list(merged.values()), min(sizes.values(), default=1))
    return merged


def finish(
    metrics: Sequence[Metric[Any]],
    parts: WindowParts,
    progress: StepProgress,
    results: MetricResults,
    pauses: Callable[[], bool] = lambda: False,
) -> MetricResults:
    """Add each metric's values to `results`: per agent, agents compared, and over all of them together.

    Metrics that `results` has already are done: a step that was abandoned in one metric goes on with the others. When
    `pauses` says so it returns between two units, with the metric under way in ``results.begun``; called again it goes
    on.
    """
    for name in results.begun.keys() - {metric.name for metric in metrics}:
        del results.begun[name]  # it got stuck in another window, or failed: else this one would wait for it for ever
    for metric in metrics:
        if metric.name in results.points or metric.name in results.failed:
            continue
        units = results.begun.pop(metric.name, None) or _units(metric, parts)
        while metric.name not in results.points:
            if pauses():
                results.begun[metric.name] = units
                return results
            finished = progress.guard(metric.name, next, units)
            if progress.abandoned:
                return results
            if metric.name in progress.failures:
                results.failed.add(metric.name)
                break
            if finished is not None:
                results.add(finished)
    return results


def _units(metric: Metric[Any], parts: WindowParts) -> Units:
    finishing = _Finishing(metric, parts)
    by_agent: dict[str, Any] = {}
    split: dict[str, segments.Segments] = {}
    for agent, partials in parts.partials.items():
        ctx = finishing.context(agent)
        accumulators = [part.accumulators[metric.name] for part in partials if metric.name in part.accumulators]
        if accumulators or not metric.needs:
            by_agent[agent] = segments.merged(metric, accumulators or [metric.create(ctx)])
        split[agent] = segments.fold([metric], [part.segments for part in partials], segments.unguarded)
        yield None
    for agent, accumulator in by_agent.items():
        ctx = finishing.context(agent)
        finishing.add_detail(accumulator, ctx)
        yield from finishing.emit(agent, metric.result(accumulator, ctx))
        yield from finishing.emit(agent, segments.values(metric, split[agent], ctx))
        yield None
    rollup = finishing.context(None)
    if len(by_agent) > 1:  # copies: it is natural to merge them there
        yield from finishing.emit(None, bases.compare(metric, segments.copied(by_agent), rollup))
    if by_agent:
        merging = segments.Merging(metric)
        for accumulator in by_agent.values():
            merging.add(accumulator)
            yield None
        whole = merging.outcome()
        finishing.add_detail(whole, rollup)
        yield from finishing.emit(None, metric.result(whole, rollup))
        folded = segments.fold([metric], list(split.values()), segments.unguarded)
        yield None
        yield from finishing.emit(None, segments.values(metric, folded, rollup))
    yield from finishing.pack_memory()
    yield finishing.results()


class _Finishing:
    """What a metric has given so far in a window, packed as it comes."""

    def __init__(self, metric: Metric[Any], parts: WindowParts) -> None:
        self._metric, self._parts = metric, parts
        self._contexts: dict[str | None, Context] = {}
        self._points: list[Point] = []
        self._packed: list[bytes] = []
        self._packed_bytes = self._values = 0
        self._details: Details = {}
        self._memory: dict[tuple[str, str | None], bytes] = {}

    def context(self, agent: str | None) -> Context:
        """Return the context of an agent or the rollup, with its sample, and a memory that the plugin may change."""
        if agent not in self._contexts:
            ctx = self._parts.contexts[self._metric.name][agent]
            kept = self._parts.samples.get(agent)
            # The last window's memory stays as it is until this one has closed: plugins work on a copy.
            memory = packing.unpack_memory(self._parts.memory.get((self._metric.name, agent)))
            self._contexts[agent] = replace(ctx, memory=memory, sample=None if kept is None else kept.batch)
        return self._contexts[agent]

    def add_detail(self, accumulator: Any, ctx: Context) -> None:
        if ctx.agent_id != OTHER:
            details.add(self._details, self._metric, accumulator, ctx)

    def emit(self, agent: str | None, values: Iterable[Value | Point]) -> Iterator[None]:
        checked = _checked(agent, values)
        while some := list(islice(checked, UNIT_POINTS)):
            self._values += len(some)  # a metric may yield without end
            if self._values > MOST_VALUES:
                raise ValueError(f"it gives more than {MOST_VALUES:,} values in one window")
            emitted = [point for point in some if _has_series(point) and self._parts.emits(self._metric, point.value)]
            packed = packing.pack_points(emitted)
            self._points += emitted
            self._packed.append(packed)
            self._packed_bytes += len(packed)
            packing.check_size("the values", self._packed_bytes, packing.REPORT_BYTES)
            yield None

    def pack_memory(self) -> Iterator[None]:
        """Pack what has changed in the memories."""
        for agent in self._parts.contexts[self._metric.name]:
            key, memory = (self._metric.name, agent), self.context(agent).memory
            before = self._parts.memory.get(key)
            if memory or before is not None:
                packed = packing.pack_memory(memory)
                if packed != before:
                    self._memory[key] = packed
            yield None

    def results(self) -> MetricResults:
        name, kept = self._metric.name, (*self._memory.values(), *self._details.values())
        packing.check_size("memory and details", sum(map(len, kept)))
        return MetricResults({name: self._points}, {name: b"".join(self._packed)}, self._details, self._memory)


def _checked(agent: str | None, values: Iterable[Value | Point]) -> Iterator[Point]:
    """Make points of a metric's values; raise when one could not be emitted by any sink."""
    for item in values:
        point = item if isinstance(item, Point) else Point(agent, item)
        value = point.value
        if not math.isfinite(value.value):
            raise ValueError(f"{value.what} is {value.value}; leave undefined values out")
        try:
            "".join((point.agent_id or "", value.what, *value[2:])).encode()
        except TypeError:
            raise TypeError(
                f"a name of {value!r:.200} is not a string; leave a name that does not apply empty"
            ) from None
        except UnicodeEncodeError:
            raise ValueError(f"a name of {value!r:.200} is not valid Unicode; replace its lone surrogates") from None
        if type(value.value) is not float and (type(value.value) is not int or abs(value.value) >= 2**63):
            point = point._replace(value=value._replace(value=float(value.value)))  # NumPy's scalars, large integers
        yield point


def _has_series(point: Point) -> bool:
    """Return whether a point has a series: agents beyond the limit have none of their own but their row counts."""
    return point.agent_id != OTHER or point.value.what.startswith("rows_") or point.value.what == "buffer_count"
