"""The collector's engine with metrics of a test's own, and without a collector around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import ModelKey, OpenWindow

import zmon
from tests.support.waiting import until
from zmon.batch import Array, Batch, Schema
from zmon.contract import Context, Value
from zmon.hooks import hookimpl

FRAUD = ("fraud", "1")
SCHEMA = Schema(classes=("no", "yes"), segments=("zone",))
ZONES = ("north", "south", "west")
_NUMBERS = count(1)


class Sums(zmon.MetricBase[Array]):
    """Counts rows in an array that `merge` changes in place. `release` ends what a subclass waits for."""

    needs = frozenset({"probabilities"})

    def __init__(self, name: str = "sums") -> None:
        self.name = name
        self.release = threading.Event()

    def create(self, ctx: Context) -> Array:
        return np.zeros(1)

    def update(self, acc: Array, batch: Batch, ctx: Context) -> Array:
        acc += batch.rows
        return acc

    def merge(self, left: Array, right: Array) -> Array:
        left += right
        return left

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        yield Value(self.name, float(acc[0]))


class Calls(Sums):
    """Calls back wherever it is called: ``where(member, context)``, without a context in `merge`."""

    def __init__(self, name: str, where: Callable[[str, Context | None], None]) -> None:
        super().__init__(name)
        self.where = where

    def update(self, acc: Array, batch: Batch, ctx: Context) -> Array:
        self.where("update", ctx)
        return super().update(acc, batch, ctx)

    def merge(self, left: Array, right: Array) -> Array:
        self.where("merge", None)
        return super().merge(left, right)

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        self.where("result", ctx)
        yield from super().result(acc, ctx)


def batch(rows: int) -> Batch:
    """Rows of two classes in three zones."""
    columns = {"probabilities": np.full((rows, 2), 0.5), "segments": np.arange(rows)[:, np.newaxis] % 3}
    return Batch(SCHEMA, columns, dictionaries={"segments": (ZONES,)})


class EngineScene:
    """An engine with plugins: the metrics of each by its name, next to the built-in ones if these are wanted."""

    def __init__(
        self,
        plugins: Mapping[str, Sequence[Any]],
        builtin: bool = False,
        patience: float | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.registry = Registry()
        if builtin:
            self.registry.load()
        for name, metrics in plugins.items():
            self.registry.register(_plugin(metrics), name)
        tables = {"collector": {"metric_timeout": "60s"}, **(config or {})}
        self._metrics = [metric for metrics in plugins.values() for metric in metrics]
        parsed = parse(tables)
        self.policies = PolicyStore(parsed)
        self.engine = Engine(parsed, self.registry, self.policies, lambda: None, patience)
        self.reports: list[ClosedWindow] = []

    def window(self, start: int = 0) -> OpenWindow:
        return OpenWindow(start, start + 60, next(_NUMBERS), SCHEMA)

    def add(self, window: OpenWindow, rows: int, agent: str = "a", model: ModelKey = FRAUD) -> None:
        window.tally(agent).received += rows
        self.engine.add_rows(model, window, AgentRows(agent, batch(rows), seed=1, numbers=0))

    def advance(self) -> list[ClosedWindow]:
        closed = self.engine.advance()
        self.reports += closed
        return closed

    def settle(self) -> None:
        """Compute on all rows, and wait for it."""
        self.engine.flush()
        until(lambda: self.advance() or self.engine.idle, what="the steps")

    def close(self, window: OpenWindow, model: ModelKey = FRAUD) -> ClosedWindow:
        self.engine.close(model, window)
        return self.closed(window)

    def closed(self, window: OpenWindow) -> ClosedWindow:
        def report() -> ClosedWindow | None:
            self.advance()
            return next((each for each in self.reports if each.number == window.number), None)

        found: ClosedWindow = until(report, what="the closed window")
        return found

    def checkpoint(self, window: OpenWindow, model: ModelKey = FRAUD) -> bytes:
        made: list[bytes | None] = []
        assert self.engine.checkpoint(model, window, made.append)
        until(lambda: self.advance() or made, what="the checkpoint")
        assert made[0] is not None
        return made[0]

    def restore(self, data: bytes, window: OpenWindow, model: ModelKey = FRAUD) -> None:
        """As after a start: what the journal has of the window is with it."""
        checkpoint = checkpoint_codec.decode(data, SCHEMA)
        for agent, state in checkpoint.agents.items():
            window.tally(agent).received += state.rows
        self.engine.restore(model, window, checkpoint)

    def end(self) -> None:
        for metric in self._metrics:
            metric.release.set()
        self.engine.shutdown()


def values(closed: ClosedWindow, agent: str | None = None) -> dict[str, float]:
    """An agent's values over all rows, or the rollup's."""
    return {
        point.value.what: point.value.value
        for point in closed.points
        if point.agent_id == agent and not point.value.segment_name
    }


def _plugin(metrics: Sequence[Any]) -> object:
    class Plugin:
        @hookimpl
        def register_metrics(self, register: Any, options: Any) -> None:
            for metric in metrics:
                register(metric)

    return Plugin()
