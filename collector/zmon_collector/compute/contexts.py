"""What a metric is given next to its rows: model, window, options, reference and, at the close, memory and sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zmon.contract import Context, RowCounts, Window
from zmon_collector.compute.executors import MetricExecutor
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.sample import Sample
from zmon_collector.compute.window_state import WindowState
from zmon_collector.config.policy import PolicyStore
from zmon_collector.windows.window import OpenWindow


class ContextFactory:
    """Makes the contexts of metrics."""

    def __init__(self, policies: PolicyStore, memory: MetricMemory) -> None:
        self._policies = policies
        self._memory = memory

    def bare(self, state: WindowState, agent: str | None) -> Context:
        """Make a context without anything that belongs to one metric."""
        model, version = state.model
        window = state.window
        return Context(model, version, agent, window.schema, Window(window.start, window.end))

    def for_rows(self, state: WindowState, agent: str, executor: MetricExecutor) -> dict[str, Context]:
        """Make the contexts in which an agent's rows are accumulated, by metric."""
        model, version = state.model
        window, policy = state.window, self._policies.of(model)
        return {
            each.metric.name: Context(
                model,
                version,
                agent,
                window.schema,
                Window(window.start, window.end),
                options=policy.options(each.metric.name, each.plugin),
                reference=state.reference,
            )
            for each in executor.metric_states
        }

    def for_closing(
        self,
        state: WindowState,
        agents: Iterable[str],
        executor: MetricExecutor,
        samples: Mapping[str | None, Sample | None],
    ) -> dict[str, dict[str | None, Context]]:
        """Make the contexts in which metrics finish, by metric and agent, None for the rollup."""
        model, version = state.model
        window, policy, memory = state.window, self._policies.of(model), self._memory.of(state.model)
        everyone: list[str | None] = [*agents, None]
        rows = {agent: _rows(window, agent) for agent in everyone}
        contexts: dict[str, dict[str | None, Context]] = {}
        for each in executor.metric_states:
            name, options = each.metric.name, policy.options(each.metric.name, each.plugin)
            contexts[name] = {}
            for agent in everyone:
                sample = samples.get(agent)
                contexts[name][agent] = Context(
                    model,
                    version,
                    agent,
                    window.schema,
                    Window(window.start, window.end),
                    options=options,
                    reference=state.reference,
                    memory=memory.get((name, agent), {}),
                    rows=rows[agent],
                    sample=None if sample is None else sample.batch,
                )
        return contexts


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
