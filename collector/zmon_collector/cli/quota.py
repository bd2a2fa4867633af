"""Compute how many samples a window emits, and compare it with a sink's quota. Pure; for ``zmon validate``.

The count covers the series that metrics declare, for the numbers of agents, features and classes that the
configuration expects, and depends on whether there is a reference. It is an upper bound: it assumes that every class,
category and segment occurs in every window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from zmon.bases import is_for, quota_of
from zmon.contract import Metric, Series, Sink
from zmon_collector.compute.segments import MAX_SEGMENTS
from zmon_collector.config.series_selection import SeriesSelection

NOT_EXPECTED = {"feature_skipped_count"}  # only for columns that are not captured
OF_SCORES = {"prediction_drift"}  # feat_name has one value: the number that stands for a prediction
Options = Callable[[Metric[Any]], Mapping[str, Any]]


class SampleLoad(NamedTuple):
    """Samples of one window: of the rollup, of each agent, and of each agent in the minimal preset."""

    rollup: int
    agent: int
    health: int

    def total(self, agents: int, mode: str) -> int:
        """Return the samples of the rollup and `agents` agents; `mode` is ``"all"`` or ``"health"``."""
        return self.rollup + agents * (self.health if mode == "health" else self.agent)


def load(
    metrics: Sequence[Metric[Any]], selection: SeriesSelection, expect: Mapping[str, int], options: Options
) -> SampleLoad:
    """Return the samples of a model's window."""
    everything = _samples(metrics, selection, expect, options)
    health = _samples(metrics, replace(selection, preset="minimal", add=()), {**expect, "segments": 0}, options)
    return SampleLoad(everything, everything, min(everything, health))


def quota(sink: Sink, table: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return which of the agents' series a sink sends, and its limit of samples a second, if it has one.

    Both are in its configuration, or its attributes `agents` and `samples_per_second`.
    """
    declared, agents = quota_of(sink)
    per_second = table.get("samples_per_second", declared)
    agents = table.get("agents", agents or ("all" if per_second is None else "health"))
    return str(agents), per_second


def _samples(
    metrics: Sequence[Metric[Any]], selection: SeriesSelection, expect: Mapping[str, int], options: Options
) -> int:
    task = "classification" if expect["classes"] else "regression"
    total = 0
    for metric in metrics:
        if not is_for(metric, task):
            continue
        given = options(metric)
        total += sum(_names(metric, s, selection, expect, given) * len(stats) for s, stats in selection.emitted(metric))
        if given.get("segments"):
            segments = _bounded(expect["segments"], given.get("max_segments", MAX_SEGMENTS))
            for series, stats in selection.emitted(metric, segment=True):
                if not series.what.startswith("rows_"):  # rows outside of windows belong to no segment
                    total += segments * _names(metric, series, selection, expect, given) * len(stats)
    return total


def _names(
    metric: Metric[Any], series: Series, selection: SeriesSelection, expect: Mapping[str, int], given: Mapping[str, Any]
) -> int:
    """Return how many combinations of names a series has."""
    if series.what in NOT_EXPECTED or (series.reference and not expect.get("reference")):
        return 0
    categorical = min(expect["categorical"], expect["features"])
    features = expect["features"]
    if "codes" in metric.needs or "category" in series.keys:
        features = categorical
    elif "hashes" in metric.needs:  # a column in which every row has another value is not expected
        features = 0
    elif "inputs" in metric.needs:
        features -= categorical
    numbers = {
        "class_name": _literal(selection.classes, expect["classes"]),
        "predicted": expect["classes"],
        "feat_name": 1 if series.what in OF_SCORES else _literal(selection.features, features),
        "category": _bounded(expect["categories"], given.get("max_categories", 50)),
    }
    return prod(numbers.get(key, 1) for key in series.keys)


def _literal(globs: Sequence[str], count: int) -> int:
    """Return how many names are emitted: at most the number of globs, if none of them has a wildcard."""
    if globs and not any(set(glob) & set("*?[") for glob in globs):
        return min(count, len(globs))
    return count


def _bounded(count: int, most: int) -> int:
    """Return `count`, or `most` and one more, for the rest, if there are more."""
    return count if count <= most else most + 1
