"""Which values are emitted: the presets, by what each metric declares of its series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zmon.contract import DIMENSIONS, PRESETS, Metric, Value

Identity = tuple[str, tuple[bool, ...], str]
_KEYS = tuple(name for name in DIMENSIONS if name != "stat")


def chooser(preset: Callable[[str], str]) -> Callable[[str, Metric[Any], Value], bool]:
    """A function that says whether a value of a metric is emitted for a model, given each model's preset.

    What a metric does not declare in its `series` is emitted always.
    """
    declared: dict[str, dict[Identity, int]] = {}

    def choose(model: str, metric: Metric[Any], value: Value) -> bool:
        ranks = declared.get(metric.name)
        if ranks is None:
            ranks = declared[metric.name] = _ranks(metric)
        named = tuple(bool(getattr(value, key)) for key in _KEYS)
        return ranks.get((value.what, named, value.stat), 0) <= PRESETS.index(preset(model))

    return choose


def smallest(metrics: Callable[[], Iterable[Metric[Any]]]) -> Callable[[Value], str]:
    """A function that names the smallest preset that emits a value, whichever metric gave it.

    What no metric declares is emitted always: ``"minimal"``. The metrics are asked for at the first value.
    """
    ranks: dict[Identity, int] = {}
    known = False

    def preset_of(value: Value) -> str:
        nonlocal known
        if not known:
            for metric in metrics():
                for identity, rank in _ranks(metric).items():
                    ranks[identity] = min(rank, ranks.get(identity, rank))
            known = True
        named = tuple(bool(getattr(value, key)) for key in _KEYS)
        return PRESETS[ranks.get((value.what, named, value.stat), 0)]

    return preset_of


def _ranks(metric: Metric[Any]) -> dict[Identity, int]:
    ranks = {}
    for series in getattr(metric, "series", ()):
        named = tuple(key in series.keys for key in _KEYS)
        for stat in series.stats or ("",):
            ranks[series.what, named, stat] = PRESETS.index(series.preset)
    return ranks
