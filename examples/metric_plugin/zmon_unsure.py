"""A metric in one file: how often the model is unsure.

Configuration::

    [plugins.unsure]
    below = 0.6             # a row is unsure when its highest probability is below this; 0.5 unless given
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zmon import Batch, ConfigurationError, Context, Metric, Series, Value
from zmon.hooks import hookimpl


class Unsure:
    """Share of rows whose highest probability is below a bound, in [0, 1]."""

    name = "unsure"
    needs = frozenset({"probabilities"})
    series = (Series("unsure_freq", "share of rows whose highest probability is below the bound"),)

    def create(self, ctx: Context) -> dict[str, int]:
        return {"rows": 0, "unsure": 0}

    def update(self, acc: dict[str, int], batch: Batch, ctx: Context) -> dict[str, int]:
        below = batch.probabilities.max(axis=1) < ctx.options.get("below", 0.5)
        return {"rows": acc["rows"] + batch.rows, "unsure": acc["unsure"] + int(below.sum())}

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return {key: left[key] + right[key] for key in left}

    def result(self, acc: dict[str, int], ctx: Context) -> Iterable[Value]:
        if acc["rows"]:
            yield Value("unsure_freq", acc["unsure"] / acc["rows"])


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    below = options.get("below", 0.5)
    if not isinstance(below, float) or not 0 < below <= 1:
        raise ConfigurationError(f"[plugins.unsure] below: {below!r} does not lie in (0, 1]")
    register(Unsure())
