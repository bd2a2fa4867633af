"""What a metric is told of where it computes, and what it keeps from one window to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zmon.contract import Context, RowCounts, Window
from zmon_collector.compute.executors import MetricExecutor
from zmon_collector.compute.window_state import ModelKey, WindowState
from zmon_collector.config.policy import PolicyStore
from zmon_collector.windows.window import OpenWindow

Memory = dict[tuple[str, str | None], dict[str, Any]]  # by (metric, agent)


class Contexts:
    """Makes contexts, and holds the memory of all models."""

    def __init__(self, policies: PolicyStore) -> None:
        self._policies = policies
        self._memory: dict[ModelKey, Memory] = {}

    def memory(self, model: ModelKey) -> Memory:
        """What the metrics keep of this model."""
        return self._memory.setdefault(model, {})

    def remember(self, model: ModelKey, metric: str, agent: str | None, kept: dict[str, Any]) -> None:
        """What a metric has kept in an earlier run."""
        self.memory(model)[metric, agent] = kept

    def forget(self, model: ModelKey, agents: Sequence[str]) -> None:
        """Drop what is kept for agents that are gone."""
        memory = self.memory(model)
        for key in [key for key in memory if key[1] in agents]:
            del memory[key]

    def drop(self, model: ModelKey) -> None:
        """Drop all that is kept of a model."""
        self._memory.pop(model, None)

    def bare(self, share: WindowState, agent: str | None) -> Context:
        """No metric's own."""
        model, version = share.model
        window = share.window
        return Context(model, version, agent, window.schema, Window(window.start, window.end))

    def of(
        self, share: WindowState, agent: str | None, lane: MetricExecutor, *, closing: bool = False
    ) -> dict[str, Context]:
        """The context of each of the lane's metrics, by metric; with rows, memory and sample when closing."""
        model, version = share.model
        window = share.window
        rows, sample = RowCounts(), None
        if closing:
            rows = _rows(window, agent)
            found = (share.merged or {}).get(agent)
            sample = found.batch if found else None
        memory, policy = self._memory.get(share.model, {}), self._policies.of(model)
        return {
            state.metric.name: Context(
                model,
                version,
                agent,
                window.schema,
                Window(window.start, window.end),
                options=policy.options(state.metric.name, state.plugin),
                reference=share.reference,
                memory=memory.get((state.metric.name, agent), {}) if closing else {},
                rows=rows,
                sample=sample,
            )
            for state in lane.states
        }


def _rows(window: OpenWindow, agent: str | None) -> RowCounts:
    if agent is not None:
        tally = window.tallies.get(agent)
        return tally.frozen() if tally else RowCounts()
    return RowCounts(
        received=sum(tally.received for tally in window.tallies.values()),
        late=sum(tally.late for tally in window.tallies.values()),
        lost=sum(tally.lost for tally in window.tallies.values()),
        sampled_out=sum(tally.sampled_out for tally in window.tallies.values()),
    )
