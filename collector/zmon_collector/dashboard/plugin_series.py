"""Series of plugins: those that no built-in metric declares."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from zmon.bases import series_of
from zmon.contract import Metric
from zmon_collector.plugins import builtin_modules


class Declaration(NamedTuple):
    """A metric's declaration of one of its measures."""

    metric: str
    definition: str


Declarations = Mapping[str, Declaration]  # by `what`


def declarations(metrics: Iterable[Metric[Any]]) -> dict[str, Declaration]:
    """Return what metrics declare in their `series`."""
    return {
        series.what: Declaration(metric.name, series.definition) for metric in metrics for series in series_of(metric)
    }


def measures_of_plugins(measures: Iterable[str]) -> set[str]:
    """Return the measures that no built-in metric declares."""
    return set(measures) - _builtin()


@cache
def _builtin() -> frozenset[str]:
    metrics: list[Metric[Any]] = []
    for name in builtin_modules():
        register = getattr(importlib.import_module(name), "register_metrics", None)
        if register is not None:
            register(register=metrics.append, options={})
    return frozenset(declarations(metrics))
