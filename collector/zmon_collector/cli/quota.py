"""How many samples a window will emit, and whether a sink's quota carries them. Pure; for ``zmon validate``.

Counts are of the series that metrics declare, with the numbers of agents, features and classes that the configuration
expects, and whether there is a reference: what comes when every class, category and segment shows up in every window,
so an upper bound of the usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from zmon.contract import Metric, Series, Sink
from zmon_collector.compute.segments import MAX_SEGMENTS
from zmon_collector.config.series_selection import SeriesSelection

NOT_EXPECTED = {"feature_skipped_count"}  # of columns that are not captured
OF_SCORES = {"prediction_drift"}  # feat_name is the one number that stands for a prediction
Options = Callable[[Metric[Any]], Mapping[str, Any]]


class Load(NamedTuple):
    """Samples of one window: of the rollup, of each agent, and of each agent in the minimal preset alone."""

    rollup: int
    agent: int
    health: int

    def total(self, agents: int, mode: str) -> int:
        """Of the rollup and so many agents; `mode` is ``"all"`` or ``"health"``."""
        return self.rollup + agents * (self.health if mode == "health" else self.agent)


class Quota(NamedTuple):
    """What a sink sends of the agents' series, and how many samples a second it may send; None for no limit."""

    agents: str
    per_second: float | None


def load(metrics: Sequence[Metric[Any]], choice: SeriesSelection, expect: Mapping[str, int], options: Options) -> Load:
    """The samples of a model's window."""
    whole = _samples(metrics, choice, expect, options)
    health = _samples(metrics, replace(choice, preset="minimal", add=()), {**expect, "segments": 0}, options)
    return Load(whole, whole, min(whole, health))


def quota(sink: Sink, table: Mapping[str, Any]) -> Quota:
    """A sink's quota: its configuration's, else its own attributes `samples_per_second` and `agents`."""
    per_second = table.get("samples_per_second", getattr(sink, "samples_per_second", None))
    agents = table.get("agents", getattr(sink, "agents", "all" if per_second is None else "health"))
    return Quota(str(agents), per_second)


def undeclared(metrics: Sequence[Metric[Any]]) -> list[str]:
    """Metrics that do not say what they emit: they are not counted."""
    return [metric.name for metric in metrics if getattr(metric, "series", None) is None]


def _samples(
    metrics: Sequence[Metric[Any]], choice: SeriesSelection, expect: Mapping[str, int], options: Options
) -> int:
    task = "classification" if expect["classes"] else "regression"
    total = 0
    for metric in metrics:
        if getattr(metric, "task", task) != task:
            continue
        own = options(metric)
        total += sum(_names(metric, s, choice, expect, own) * len(stats) for s, stats in choice.emitted(metric))
        if own.get("segments"):
            parts = _bounded(expect["segments"], own.get("max_segments", MAX_SEGMENTS))
            for series, stats in choice.emitted(metric, segment=True):
                if not series.what.startswith("rows_"):  # rows that are in no window are in no segment
                    total += parts * _names(metric, series, choice, expect, own) * len(stats)
    return total


def _names(
    metric: Metric[Any], series: Series, choice: SeriesSelection, expect: Mapping[str, int], options: Mapping[str, Any]
) -> int:
    """How many combinations of names a series has."""
    if series.what in NOT_EXPECTED or (series.reference and not expect.get("reference")):
        return 0
    categorical = min(expect["categorical"], expect["features"])
    features = expect["features"]
    if "codes" in metric.needs or "category" in series.keys:
        features = categorical
    elif "inputs" in metric.needs:
        features -= categorical
    numbers = {
        "class_name": _literal(choice.classes, expect["classes"]),
        "predicted": expect["classes"],
        "feat_name": 1 if series.what in OF_SCORES else _literal(choice.features, features),
        "category": _bounded(expect["categories"], options.get("max_categories", 50)),
    }
    return prod(numbers.get(key, 1) for key in series.keys)


def _literal(globs: Sequence[str], count: int) -> int:
    """How many names are emitted: no more than are listed, when they are listed without wildcards."""
    if globs and not any(set(glob) & set("*?[") for glob in globs):
        return min(count, len(globs))
    return count


def _bounded(count: int, most: int) -> int:
    """Names that are given, and one more for the rest where there are too many."""
    return count if count <= most else most + 1
