"""Accumulators per segment value, beside those of all rows: split, folded, and brought to values. Pure.

For each segment column: accumulators by value, of at most TRACKED values, and one for the rest. Beyond TRACKED the
values with the smallest hashes stay: the same ones however the rows are split, and each of them complete.
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
HEAVY = {"inputs", "codes", "ids", "segments"}  # columns that are not copied for metrics that do not need them

Guard = Callable[[str, Callable[[], Any]], Any]
Part = dict[str, Any]  # {"rows": n, "accumulators": {metric: accumulator}}
Segments = dict[str, Any]  # by segment name: {"values": {value: Part}, "other": Part, "bound": hash}


def chosen(metrics: Sequence[Metric[Any]], contexts: Mapping[str, Context]) -> list[Metric[Any]]:
    """The metrics that are given per segment: those whose option `segments` says so."""
    return [metric for metric in metrics if contexts[metric.name].options.get("segments")]


def split(batch: Batch, metrics: Sequence[Metric[Any]], contexts: Mapping[str, Context], guard: Guard) -> Segments:
    """Accumulators of the metrics by segment value; rows without a value are in none."""
    needs: frozenset[str] = frozenset().union(*(metric.needs for metric in metrics))
    if "predicted" in batch.columns:
        batch.predicted  # noqa: B018 - derived once, and kept with the rows
    slim = batch.only(batch.raw().keys() - (HEAVY - needs))
    found: Segments = {}
    for i, name in enumerate(batch.schema.segments):
        codes, names = batch.segments[:, i], batch.dictionaries["segments"][i]
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        groups = {int(code): rows for code, rows in zip(present, np.split(order, starts[1:]), strict=True) if code >= 0}
        ranked = sorted(groups, key=lambda code: _hash(names[code]))
        bound = TOP if len(ranked) <= TRACKED else _hash(names[ranked[TRACKED]])
        rest = [groups[code] for code in ranked[TRACKED:]]
        found[name] = {
            "values": {names[c]: _part(slim.take(groups[c]), metrics, contexts, guard) for c in ranked[:TRACKED]},
            "other": _part(slim.take(np.concatenate(rest)), metrics, contexts, guard) if rest else _nothing(),
            "bound": bound,
        }
    return found


def _part(batch: Batch, metrics: Sequence[Metric[Any]], contexts: Mapping[str, Context], guard: Guard) -> Part:
    part = _nothing()
    part["rows"] = batch.rows
    for metric in metrics:
        ctx = contexts[metric.name]
        part["accumulators"][metric.name] = guard(
            metric.name, lambda m=metric, c=ctx: m.update(m.create(c), batch, c)  # type: ignore[misc]
        )  # fmt: skip
    return part


def _nothing() -> Part:
    return {"rows": 0, "accumulators": {}}


def fold(metrics: Sequence[Metric[Any]], parts: Sequence[Segments], guard: Guard) -> Segments:
    """Those of all parts together; accumulators of the first ones may be changed in place."""
    folded: Segments = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        own = [part[name] for part in parts if name in part]
        gathered: dict[str, list[Part]] = {}
        for each in own:
            for value, part in each["values"].items():
                gathered.setdefault(value, []).append(part)
        bound = min(each["bound"] for each in own)
        ranked = sorted((value for value in gathered if _hash(value) < bound), key=_hash)
        if len(ranked) > TRACKED:
            bound = _hash(ranked[TRACKED])
            ranked = ranked[:TRACKED]
        kept = set(ranked)
        rest = [part for value, each in gathered.items() if value not in kept for part in each]
        folded[name] = {
            "values": {value: _together(metrics, gathered[value], guard) for value in ranked},
            "other": _together(metrics, [each["other"] for each in own] + rest, guard),
            "bound": bound,
        }
    return folded


def _together(metrics: Sequence[Metric[Any]], parts: Sequence[Part], guard: Guard) -> Part:
    joined = _nothing()
    joined["rows"] = sum(part["rows"] for part in parts)
    for metric in metrics:
        own = [part["accumulators"][metric.name] for part in parts if metric.name in part["accumulators"]]
        if own:
            joined["accumulators"][metric.name] = guard(metric.name, lambda m=metric, o=own: _merged(m, o))  # type: ignore[misc]
    return joined


def _merged(metric: Metric[Any], accumulators: Sequence[Any]) -> Any:
    merged = accumulators[0]
    for each in accumulators[1:]:
        merged = metric.merge(merged, each)
    return merged


def values(metric: Metric[Any], segments: Segments, ctx: Context) -> Iterator[Value]:
    """The metric's values per segment: of the most frequent values by name, of the rest together."""
    most = ctx.options.get("max_segments", MAX_SEGMENTS)
    for name, found in segments.items():
        ranked = sorted(found["values"], key=lambda value: (value == OTHER, -found["values"][value]["rows"], value))
        named = [value for value in ranked[:most] if value != OTHER]
        rest = [found["other"], *(found["values"][value] for value in ranked if value not in set(named))]
        parts = {value: found["values"][value] for value in named}
        if sum(part["rows"] for part in rest):
            # Copied: merging may change what the rollup over agents still needs.
            parts[OTHER] = _together([metric], copy.deepcopy(rest), _call)
        where = _codes(ctx, name, named)
        for i, (value, part) in enumerate(parts.items()):
            accumulator = part["accumulators"].get(metric.name)
            if accumulator is None:
                continue
            sample = None if where is None or ctx.sample is None else ctx.sample.take(np.flatnonzero(where == i))
            own = replace(ctx, rows=RowCounts(received=part["rows"]), sample=sample, memory={}, segment=(name, value))
            for each in metric.result(accumulator, own):
                yield each._replace(segment_name=name, segment_value=value)


def _codes(ctx: Context, name: str, named: Sequence[str]) -> Array | None:
    """For each row of the sample the place of its segment value among the named ones; their number for the rest."""
    if ctx.sample is None or "segments" not in ctx.sample.columns:
        return None
    i = ctx.sample.schema.segments.index(name)
    place = {value: at for at, value in enumerate(named)}
    names = ctx.sample.dictionaries["segments"][i]
    table = np.array([*(place.get(each, len(named)) for each in names), -1], dtype=np.int64)  # the last is for missing
    found: Array = table[ctx.sample.segments[:, i]]
    return found


def _call(_: str, call: Callable[[], Any]) -> Any:
    return call()


@lru_cache(maxsize=2**14)
def _hash(value: str) -> int:
    return int.from_bytes(blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
