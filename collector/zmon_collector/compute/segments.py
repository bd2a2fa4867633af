"""Accumulators by segment value, next to those of all rows: split, folded, and turned into values. Pure.

A segment column has accumulators for at most TRACKED of its values, and one for the rest. Beyond TRACKED the values
with the smallest hashes are kept: these are the same ones however the rows are split, and each of them is complete.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, RowCounts, Value

TRACKED = 256
OTHER = "__other__"
MAX_SEGMENTS = 20  # values given by name, unless the option max_segments says otherwise
TOP = 2**64 - 1
_IMMUTABLE = (int, float, str, bytes, bool, type(None))
HEAVY = {"inputs", "codes", "ids", "segments"}  # columns that are not copied for metrics that do not need them

GuardedCall = Callable[..., Any]  # guard(metric's name, call, *arguments), see StepProgress
Part = dict[str, Any]  # {"rows": n, "accumulators": {metric: accumulator}}
Segments = dict[str, Any]  # by segment name: {"values": {value: Part}, "other": Part, "bound": hash}


def unguarded(_: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call without a guard of its own, where everything that a metric does is guarded as a whole."""
    return call(*arguments)


def updated(metric: Metric[Any], batch: Batch, ctx: Context) -> Any:
    """Return a new accumulator of a batch's rows."""
    return metric.update(metric.create(ctx), batch, ctx)


def merged(metric: Metric[Any], accumulators: Sequence[Any]) -> Any:
    """Merge accumulators into one, and change none of them."""
    merging = Merging(metric)
    for accumulator in accumulators:
        merging.add(accumulator)
    return merging.outcome()


class Merging:
    """Merges a metric's accumulators one after the other, and changes none of them.

    `merge` may change its left argument, and what it returns may hold parts of the right one. So all but the last are
    copied: an accumulator when it is merged with the next one.
    """

    def __init__(self, metric: Metric[Any]) -> None:
        self._merge = metric.merge
        self._added = 0
        self._before: Any = None  # of all but the last
        self._last: Any = None

    def add(self, accumulator: Any) -> None:
        """Merge one more."""
        if self._added:
            own = copied(self._last)
            self._before = own if self._added == 1 else self._merge(self._before, own)
        self._last = accumulator
        self._added += 1

    def outcome(self) -> Any:
        """Return all of them as one; nothing can be added any more."""
        return self._last if self._added == 1 else self._merge(self._before, self._last)


def copied(value: Any) -> Any:
    """Return a copy of an accumulator; plain data is copied in a tenth of the time that `copy.deepcopy` takes."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    if kind is np.ndarray and not value.dtype.hasobject:
        return value.copy()
    return value if kind in _IMMUTABLE else copy.deepcopy(value)


def segmented(metrics: Sequence[Metric[Any]], contexts: Mapping[str, Context]) -> list[Metric[Any]]:
    """Return the metrics that are computed per segment: those with the option `segments`."""
    return [metric for metric in metrics if contexts[metric.name].options.get("segments")]


def split(
    batch: Batch, metrics: Sequence[Metric[Any]], contexts: Mapping[str, Context], guard: GuardedCall
) -> Segments:
    """Accumulate a batch by segment value; rows without a value are in none."""
    needs: frozenset[str] = frozenset().union(*(metric.needs for metric in metrics))
    if "predicted" in batch.columns:
        batch.predicted  # noqa: B018 - derived once, and kept with the rows
    slim = batch.only(batch.raw().keys() - (HEAVY - needs))

    def part(rows: Array) -> Part:
        taken = slim.take(rows)
        accumulators = {m.name: guard(m.name, updated, m, taken, contexts[m.name]) for m in metrics}
        return {"rows": taken.rows, "accumulators": accumulators}

    segments: Segments = {}
    for i, name in enumerate(batch.schema.segments):
        codes, names = batch.segments[:, i], batch.dictionaries["segments"][i]
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        groups = {int(code): rows for code, rows in zip(present, np.split(order, starts[1:]), strict=True) if code >= 0}
        ranked = sorted(groups, key=lambda code: _hash(names[code]))
        rest = [groups[code] for code in ranked[TRACKED:]]
        segments[name] = {
            "values": {names[code]: part(groups[code]) for code in ranked[:TRACKED]},
            "other": part(np.concatenate(rest)) if rest else {"rows": 0, "accumulators": {}},
            "bound": TOP if len(ranked) <= TRACKED else _hash(names[ranked[TRACKED]]),
        }
    return segments


def fold(metrics: Sequence[Metric[Any]], partials: Sequence[Segments], guard: GuardedCall) -> Segments:
    """Merge segments of several partial results, and change none of them."""
    folded: Segments = {}
    for name in dict.fromkeys(name for segments in partials for name in segments):
        columns = [segments[name] for segments in partials if name in segments]
        gathered: dict[str, list[Part]] = {}
        for column in columns:
            for value, part in column["values"].items():
                gathered.setdefault(value, []).append(part)
        bound = min(column["bound"] for column in columns)
        ranked = sorted((value for value in gathered if _hash(value) < bound), key=_hash)
        if len(ranked) > TRACKED:
            bound = _hash(ranked[TRACKED])
            ranked = ranked[:TRACKED]
        kept = set(ranked)
        rest = [part for value, parts in gathered.items() if value not in kept for part in parts]
        folded[name] = {
            "values": {value: _merged_part(metrics, gathered[value], guard) for value in ranked},
            "other": _merged_part(metrics, [column["other"] for column in columns] + rest, guard),
            "bound": bound,
        }
    return folded


def _merged_part(metrics: Sequence[Metric[Any]], parts: Sequence[Part], guard: GuardedCall) -> Part:
    folded = {}
    for metric in metrics:
        accumulators = [part["accumulators"][metric.name] for part in parts if metric.name in part["accumulators"]]
        if accumulators:
            folded[metric.name] = guard(metric.name, merged, metric, accumulators)
    return {"rows": sum(part["rows"] for part in parts), "accumulators": folded}


def values(metric: Metric[Any], segments: Segments, ctx: Context) -> Iterator[Value]:
    """Yield the metric's values per segment: of the most frequent values by name, and of the rest together."""
    most = ctx.options.get("max_segments", MAX_SEGMENTS)
    for name, column in segments.items():
        by_value = column["values"]
        ranked = sorted(by_value, key=lambda value: (value == OTHER, -by_value[value]["rows"], value))
        named = [value for value in ranked[:most] if value != OTHER]
        rest = [column["other"], *(by_value[value] for value in ranked if value not in set(named))]
        parts = {value: by_value[value] for value in named}
        if sum(part["rows"] for part in rest):
            parts[OTHER] = _merged_part([metric], rest, unguarded)
        places = _places(ctx, name, named)
        for i, (value, part) in enumerate(parts.items()):
            accumulator = part["accumulators"].get(metric.name)
            if accumulator is None:
                continue
            sample = None if places is None or ctx.sample is None else ctx.sample.take(np.flatnonzero(places == i))
            rows = RowCounts(received=part["rows"])
            segment_ctx = replace(ctx, rows=rows, sample=sample, memory={}, segment=(name, value))
            for item in metric.result(accumulator, segment_ctx):
                yield item._replace(segment_name=name, segment_value=value)


def _places(ctx: Context, name: str, named: Sequence[str]) -> Array | None:
    """Return each sample row's place of its segment value among the named ones; their number for the rest."""
    if ctx.sample is None or "segments" not in ctx.sample.columns:
        return None
    i = ctx.sample.schema.segments.index(name)
    place = {value: at for at, value in enumerate(named)}
    codes = [place.get(value, len(named)) for value in ctx.sample.dictionaries["segments"][i]]
    places: Array = np.array([*codes, -1], dtype=np.int64)[ctx.sample.segments[:, i]]  # missing is code -1: the last
    return places


@lru_cache(maxsize=2**14)
def _hash(value: str) -> int:
    return int.from_bytes(blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
