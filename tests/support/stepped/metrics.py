"""The plugins of a stepped collector: one that is sound and says which rows and labels it saw, and one that is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import zmon_plugins
from zmon_collector.plugins import Registry
from zmon_plugins.metrics.late_labels import OUTCOMES
from zmon_plugins.metrics.rows import WindowRows

import zmon
from tests.support.stepped.lanes import hang
from tests.support.stepped.publishers import SCALE
from zmon.batch import Batch
from zmon.contract import Context, Metric, Value
from zmon.hooks import hookimpl


class Kept(zmon.MetricBase[list[Any]]):
    """Each row by its number, how often it is there, and with which option it was computed."""

    name = "kept"
    needs = frozenset({"inputs"})

    def create(self, ctx: Context) -> list[Any]:
        return [[], 0.0]

    def update(self, acc: list[Any], batch: Batch, ctx: Context) -> list[Any]:
        numbers = batch.inputs[:, batch.schema.numeric.index("number")].astype(int).tolist()
        return [[*acc[0], *numbers], acc[1] + ctx.options.get("scale", 1) * batch.rows]

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        return [[*left[0], *right[0]], left[1] + right[1]]

    def result(self, acc: list[Any], ctx: Context) -> Iterable[Value]:
        numbers, scaled = acc
        for number in sorted(set(numbers)):
            yield Value("row", float(numbers.count(number)), feat_name=str(number))
        yield Value("scaled", scaled)
        ctx.memory["total"] = ctx.memory.get("total", 0) + len(numbers)
        yield Value("total", float(ctx.memory["total"]))


class Labelled(zmon.MetricBase[list[Any]]):
    """Late labels by their outcome, and each that was joined by its row's number."""

    name = "labelled"
    needs = frozenset({"label_outcomes"})

    def create(self, ctx: Context) -> list[Any]:
        return [[], []]

    def update(self, acc: list[Any], batch: Batch, ctx: Context) -> list[Any]:
        columns, joined = batch.raw(), []
        if "probabilities" in columns:
            numbers = np.rint(columns["probabilities"][:, 1] * SCALE).astype(int).tolist()
            joined = [list(pair) for pair in zip(numbers, columns["labels"].tolist(), strict=True)]
        return [[*acc[0], *columns["label_outcomes"].tolist()], [*acc[1], *joined]]

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        return [[*left[0], *right[0]], [*left[1], *right[1]]]

    def result(self, acc: list[Any], ctx: Context) -> Iterable[Value]:
        outcomes, joined = acc
        for outcome in sorted(set(outcomes)):
            yield Value("label", float(outcomes.count(outcome)), category=OUTCOMES[outcome])
        for number, label in joined:
            yield Value("joined", float(label), feat_name=str(number))


class Count(zmon.MetricBase[int]):
    """Counts rows, unless it misbehaves as the test says."""

    needs = frozenset({"inputs"})

    def __init__(self, name: str, moods: Mapping[str, str]) -> None:
        self.name = name
        self._moods = moods  # of the process: (hook: what it does there)

    def _feel(self, hook: str) -> str:
        mood = self._moods.get(hook, "")
        if mood == "raise":
            raise ValueError(f"{self.name} fails in {hook}")
        if mood == "hang":
            hang()
        return mood

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> Any:
        return {1, 2} if self._feel("update") == "nonsense" else acc + batch.rows

    def merge(self, left: int, right: int) -> Any:
        return object() if self._feel("merge") == "nonsense" else left + right

    def result(self, acc: int, ctx: Context) -> Iterator[Any]:
        if self._feel("result") == "nonsense":
            yield from (Value(self.name, float("nan")), Value("", 1.0))
            yield "no value"
        if self._moods.get("memory"):
            ctx.memory["odd"] = {"set": {1}, "surrogate": "\ud800", "number": 2**70}[self._moods["memory"]]
        yield Value(self.name, float(acc))


class _Plugin:
    """A plugin with these metrics."""

    def __init__(self, *metrics: Metric[Any]) -> None:
        self._metrics = metrics

    def __dir__(self) -> Iterable[str]:
        return ["register_metrics"]  # else most of a start's time would go into a look at what all objects have

    @hookimpl
    def register_metrics(self, register: Any, options: Any) -> None:
        for metric in self._metrics:
            register(metric)


def registry(moods: Mapping[str, str]) -> Registry:
    """The plugins of one process; `moods` says what the unsound one does in its hooks."""
    plugins = Registry()
    plugins.register(_Plugin(WindowRows(), Kept(), Labelled()), "sound", f"{zmon_plugins.__name__}.sound")
    plugins.register(_Plugin(Count("odd", moods), Count("neighbour", {})), "odd")
    return plugins
