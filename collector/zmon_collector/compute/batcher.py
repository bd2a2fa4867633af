"""Rows gather into micro-batches; steps on executors turn these into partial results, which are merged when many."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

from zmon.contract import Metric
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import AgentRows, Partial, StepProgress, accumulate, draw, is_late
from zmon_collector.compute.checkpoint_codec import AgentState
from zmon_collector.compute.contexts import ContextFactory
from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.sample import Sample, row_bytes
from zmon_collector.compute.sample_budget import SampleBudget
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_state import AgentPartial, MicroBatch, Phase, WindowState

MICRO_ROWS = 32768  # rows joined into one step; fewer cost more of the interpreter's time per row
MICRO_BYTES = 4 * 2**20
MICRO_CELLS = 2**23  # rows times features of the window: a step gives its rows a column for each
MICRO_FORMS = 8  # schemas and sets of columns in which an agent's rows gather: each holds its schema
FOLD_AT = 16  # partial results of an agent before they are merged into one
QUEUE_BYTES = 64 * 2**20  # of rows that may wait for one executor


class MicroBatcher:
    """Gathers rows, and keeps the partial results of an agent's rows with its window."""

    def __init__(self, scheduler: Scheduler, contexts: ContextFactory, budget: SampleBudget) -> None:
        self._scheduler = scheduler
        self._contexts = contexts
        self._budget = budget
        self.nbytes = 0  # of rows in no step yet

    # --- rows in -----------------------------------------------------------------------------------------------------

    def add(self, state: WindowState, rows: AgentRows) -> None:
        """Add rows to a window, and start a step when enough of them have gathered."""
        most = MICRO_CELLS // max(1, len(state.window.schema.features))
        if rows.batch.rows > max(1, most):
            for start in range(0, rows.batch.rows, max(1, most)):
                self.add(state, rows.part(start, start + max(1, most)))
            return
        held, batch = state.phase is not Phase.OPEN, rows.batch
        if held and state.phase is not Phase.HELD:
            raise RuntimeError(f"window {state.key} is {state.phase.value} and takes no more rows")
        agent = state.agents.get(rows.agent) or self._add_agent(state, rows.agent)
        if not is_late(batch):
            if not agent.rows:
                # In the sample it has all columns of the window, of which these rows may lack many.
                agent.row_bytes = row_bytes(batch.take(slice(0, 1)).aligned(state.window.schema))
            agent.rows += batch.rows
        agent.added += batch.rows
        key = (id(batch.schema), frozenset(batch.raw()))
        micro_batch = agent.micro_batches.get(key)
        if micro_batch is None:
            micro_batch = agent.micro_batches[key] = MicroBatch()
            if len(agent.micro_batches) > MICRO_FORMS:
                agent.full.append(agent.micro_batches.pop(next(iter(agent.micro_batches))))
        nbytes = batch.nbytes
        micro_batch.parts.append(rows)
        micro_batch.rows += batch.rows
        micro_batch.nbytes += nbytes
        self.nbytes += nbytes
        if micro_batch.rows >= min(MICRO_ROWS, most) or micro_batch.nbytes >= MICRO_BYTES:
            agent.full.append(agent.micro_batches.pop(key))
        if agent.full and not held:
            self._submit_full(state, agent)

    def _add_agent(self, state: WindowState, name: str) -> AgentPartial:
        agent = state.agents[name] = AgentPartial()
        self._budget.enlist()
        return agent

    def flush(self, state: WindowState, pause: Callable[[], bool] = lambda: False) -> bool:
        """Start steps for all rows that have gathered, however few; return whether no `pause` has come before the end.

        To go on after a pause, call it again.
        """
        for agent in state.agents.values():
            if agent.micro_batches or agent.full:
                while agent.micro_batches:
                    agent.full.append(agent.micro_batches.popitem()[1])
                self._submit_full(state, agent)
                if pause():
                    return False
        return True

    def submit_full(self, state: WindowState) -> None:
        """Start steps for the micro-batches that are full."""
        for agent in state.agents.values():
            self._submit_full(state, agent)

    def _submit_full(self, state: WindowState, agent: AgentPartial) -> None:
        full, agent.full = agent.full, []
        for micro_batch in full:
            self._submit(state, agent, micro_batch)

    def _submit(self, state: WindowState, agent: AgentPartial, micro_batch: MicroBatch) -> None:
        self.nbytes -= micro_batch.nbytes
        for executor in self._scheduler.executors.values():
            if executor.name and executor.nbytes > QUEUE_BYTES:
                for registered in executor.metric_states:
                    state.fail(registered.metric.name, f"too slow: {QUEUE_BYTES >> 20} MiB of rows were waiting for it")
            else:
                self._scheduler.start(executor, self._accumulation(state, agent, executor, micro_batch))

    def _accumulation(
        self, state: WindowState, agent: AgentPartial, executor: MetricExecutor, micro_batch: MicroBatch
    ) -> Step:
        parts = micro_batch.parts
        batches = [part.batch for part in parts]
        bare = self._contexts.bare(state, parts[0].agent)
        contexts = {"": bare, **self._contexts.for_rows(state, parts[0].agent, executor)}
        size, bound = self._budget.size(state, agent), agent.bound
        sampled = executor is self._scheduler.builtin and not is_late(batches[0])

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> Partial:
            partial = accumulate(metrics, batches, contexts, progress)
            if sampled:
                partial.sample = draw(parts, bare.schema, size, bound)
            return partial

        def done(partial: Partial | None, progress: StepProgress) -> None:
            if partial is None:
                state.fail_all(executor.names, progress.defect)
            else:
                self._gather(state, agent, executor, partial)

        return Step(state, run, done, micro_batch.nbytes)

    # --- partial results ---------------------------------------------------------------------------------------------

    def restore(self, state: WindowState, name: str, kept: AgentState) -> None:
        """Add what a checkpoint has of an agent: to the executors that its metrics have now.

        Metrics that came from several plugins into one would bring their rows several times: those of one plugin stay,
        and the others do not cover the window any more.
        """
        agent = state.agents.get(name) or self._add_agent(state, name)
        agent.rows += kept.rows
        agent.added += kept.added
        if kept.sample is not None:
            agent.row_bytes = row_bytes(kept.sample.batch)
            agent.bound = min(agent.bound, kept.sample.bound)
            self._add_sample(state, agent, kept.sample)
        for executor in self._scheduler.executors.values():
            held = {
                key: part for key, part in kept.partials.items() if not part.covered.keys().isdisjoint(executor.names)
            }
            part = held.get(executor.name) or next(iter(held.values()), None)
            if part is not None:
                self._gather(state, agent, executor, replace(part, sample=None))

    def _gather(self, state: WindowState, agent: AgentPartial, executor: MetricExecutor, partial: Partial) -> None:
        """Keep a partial result, and merge an agent's samples and accumulators when there are many."""
        if partial.sample is not None:
            self._add_sample(state, agent, partial.sample)
        partials = agent.partials.setdefault(executor.name, [])
        partials.append(partial)
        if len(partials) >= FOLD_AT:
            self._fold(state, agent, executor)

    def _add_sample(self, state: WindowState, agent: AgentPartial, sample: Sample) -> None:
        agent.samples.append(sample)
        agent.sample_bytes += sample.nbytes
        size = self._budget.size(state, agent)
        too_many = sum(len(sample.keys) for sample in agent.samples) > 2 * size
        if (len(agent.samples) > 1 and too_many) or self._budget.is_over(agent):
            self._fold_samples(agent, size)

    def fold(self, state: WindowState, except_for: Container[str]) -> None:
        """Merge each agent's samples and partial results into one, those of the named executors excepted."""
        for agent in state.agents.values():
            for executor in self._scheduler.executors.values():
                if executor.name not in except_for and len(agent.partials.get(executor.name, [])) > 1:
                    self._fold(state, agent, executor)
            self._fold_samples(agent, self._budget.size(state, agent))

    def _fold(self, state: WindowState, agent: AgentPartial, executor: MetricExecutor) -> None:
        partials = agent.partials[executor.name]
        agent.partials[executor.name] = []

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> Partial:
            return merge.fold(metrics, partials, progress)

        def done(folded: Partial | None, progress: StepProgress) -> None:
            if folded is None:
                state.fail_all(executor.names, progress.defect)
            else:
                agent.partials.setdefault(executor.name, []).append(folded)

        self._scheduler.start(executor, Step(state, run, done))

    def _fold_samples(self, agent: AgentPartial, size: int) -> None:
        folded = merge.fold_samples(agent.samples, size)
        if folded is not None:
            folded = self._budget.cut(folded)
            agent.samples, agent.bound, agent.sample_bytes = [folded], folded.bound, folded.nbytes
