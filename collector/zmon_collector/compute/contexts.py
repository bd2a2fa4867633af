"""The context of a metric: model, window, options, reference and, when the window closes, memory and sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from zmon.contract import Context, RowCounts, Window
from zmon_collector.compute.executors import MetricExecutor
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.merge import MetricContexts
from zmon_collector.compute.window_state import WindowState
from zmon_collector.windows.window import OpenWindow


class ContextFactory:
    """Makes the contexts of metrics from the windows' contracts and what metrics remember."""

    def __init__(self, memory: MetricMemory) -> None:
        self.memory = memory

    def bare(self, state: WindowState, agent: str | None) -> Context:
        """Make a context without anything that belongs to one metric."""
        window = state.window
        span = Window(window.start, window.end)
        return Context(*state.model, agent, window.schema, span, reference=state.reference)

    def for_rows(self, state: WindowState, agent: str, executor: MetricExecutor) -> dict[str, Context]:
        """Make the contexts in which an agent's rows are accumulated, by metric."""
        bare, options = self.bare(state, agent), state.contract.policy.options
        return {name: _with_options(bare, options.get(name, {})) for name in executor.names}

    def for_closing(self, state: WindowState, agents: Iterable[str], executor: MetricExecutor) -> MetricContexts:
        """Make the contexts in which metrics finish, by metric and agent, None for the rollup.

        Samples and memory come later.
        """
        policy = state.contract.policy
        bare = {agent: replace(self.bare(state, agent), rows=_rows(state.window, agent)) for agent in [*agents, None]}
        contexts = {}
        for name in executor.names:
            options = policy.options.get(name, {})
            contexts[name] = {agent: _with_options(ctx, options) for agent, ctx in bare.items()}
        return contexts


def _with_options(bare: Context, options: Mapping[str, Any]) -> Context:
    """Return a context for one metric. There is one for each agent and metric: `replace` takes eight times as long."""
    source = bare.model, bare.version, bare.agent_id, bare.schema, bare.window
    return Context(*source, options, bare.reference, bare.memory, bare.rows)


def _rows(window: OpenWindow, agent: str | None) -> RowCounts:
    if agent is not None:
        tally = window.tallies.get(agent)
        return tally.frozen() if tally else RowCounts()
    columns = ("received", "late", "lost", "sampled_out")
    return RowCounts(**{name: sum(getattr(tally, name) for tally in window.tallies.values()) for name in columns})
