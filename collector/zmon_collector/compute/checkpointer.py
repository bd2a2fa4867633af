"""Windows are brought to rest while they stay open, and packed, so that the raw rows behind them need not be kept.

The checkpoint barrier: a checkpoint must contain exactly the rows that were added before it began, because the journal
deletes these rows in the transaction that writes it. So the window is held: steps for all rows so far are started, rows
that come from then on only gather, and once no step is under way every row lies in a partial result. These are folded
to one per agent and executor, packed by the executors and put together, and the window is open again. Only this window
is held; receiving goes on.

A slow plugin must not hold a window for long, because its rows pile up in memory meanwhile. After PATIENCE seconds the
checkpoint goes on without that plugin, whose metrics lose their values in this window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zmon.contract import Metric
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.batcher import MicroBatcher
from zmon_collector.compute.checkpoint_codec import AgentState, PackedPartial
from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_state import Phase, WindowState

PATIENCE = 1.0  # seconds that rows gather for the sake of a slow plugin, in each stage

Done = Callable[[bytes | None], None]


@dataclass(slots=True)
class Barrier:
    """A window that is brought to rest.

    `agents` has the agents' rows when it began: what the checkpoint covers.
    """

    state: WindowState
    done: Done
    since: float  # the present stage
    agents: dict[str, AgentState]
    folded: bool = False
    packing: bool = False
    packed: dict[str, dict[str, PackedPartial]] = field(default_factory=dict)  # by executor and agent
    given_up: set[str] = field(default_factory=set)  # executors


class Checkpointer:
    """The checkpoints that are being made.

    Parameters
    ----------
    scheduler : Scheduler
    batcher : MicroBatcher
    patience : float, optional
        Seconds that each stage of a checkpoint waits for plugins, by default PATIENCE. A job that reads files has no
        rows that pile up meanwhile, and waits for as long as a metric may take.
    """

    def __init__(self, scheduler: Scheduler, batcher: MicroBatcher, patience: float | None) -> None:
        self._scheduler = scheduler
        self._batcher = batcher
        self._patience = patience
        self._barriers: list[Barrier] = []

    def begin(self, state: WindowState, done: Done) -> None:
        """Hold an open window; `done` gets the checkpoint's bytes unless the window closes first.

        It gets None when an error of the engine itself prevented the checkpoint. The window is open again in any case:
        its steps end, because a metric that does not return is abandoned, and so does each stage of the checkpoint.
        """
        self._batcher.flush(state)
        state.enter(Phase.HELD)
        agents = {name: AgentState(agent.rows, agent.added) for name, agent in state.agents.items()}
        self._barriers.append(Barrier(state, done, time.monotonic(), agents))

    def advance(self) -> None:
        """Take the next step for every window whose last one has ended."""
        for barrier in list(self._barriers):
            if barrier.state.phase is not Phase.HELD:  # it has closed meanwhile
                self._barriers.remove(barrier)
            elif self._at_rest(barrier):
                barrier.since = time.monotonic()
                if not barrier.folded:
                    barrier.folded = True
                    self._batcher.fold(barrier.state, except_for=barrier.given_up)
                elif not barrier.packing:
                    barrier.packing = True
                    self._pack(barrier)
                else:
                    self._barriers.remove(barrier)
                    self._write(barrier)

    def _at_rest(self, barrier: Barrier) -> bool:
        state, builtin = barrier.state, self._scheduler.builtin.name
        patience = PATIENCE if self._patience is None else self._patience
        busy = {name for name, steps in state.outstanding.items() if steps} - barrier.given_up
        slow = busy - {builtin}
        if slow and time.monotonic() - barrier.since > patience:
            barrier.given_up |= slow
            for name in slow:
                for metric in self._scheduler.executors[name].names:
                    state.fail(metric, f"too slow: not done {patience:g} s after a checkpoint began")
            busy -= slow
        return not busy

    def _pack(self, barrier: Barrier) -> None:
        """Pack the accumulators, which are merged to one of each agent, on the executors of their plugins."""
        state = barrier.state
        for executor in self._scheduler.executors.values():
            if executor.name in barrier.given_up:
                continue
            partials = {name: agent.partials.get(executor.name) for name, agent in state.agents.items()}
            merged = {name: kept[0] for name, kept in partials.items() if kept}
            self._scheduler.start(executor, self._packing(barrier, executor, merged))

    @staticmethod
    def _packing(barrier: Barrier, executor: MetricExecutor, partials: Mapping[str, Partial]) -> Step:
        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> dict[str, PackedPartial]:
            return checkpoint_codec.pack_partials(metrics, partials, progress)

        def done(packed: dict[str, PackedPartial] | None, progress: StepProgress) -> None:
            if packed is None:
                barrier.state.fail_all(executor.names, progress.defect)
            else:
                barrier.packed[executor.name] = packed

        return Step(barrier.state, run, done)

    def _write(self, barrier: Barrier) -> None:
        """Put the checkpoint together, and let the window go on."""
        state = barrier.state
        for name, agent in barrier.agents.items():
            agent.sample = next(iter(state.agents[name].samples), None)
        failed, packed = dict(state.failed), {**barrier.packed}
        for name in barrier.given_up:
            packed.pop(name, None)

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> bytes:
            data, lost = checkpoint_codec.encode(barrier.agents, packed, failed)
            progress.failures.update(lost)
            return data

        def done(data: bytes | None, _: StepProgress) -> None:
            if state.phase is Phase.HELD:
                state.enter(Phase.OPEN)
                self._batcher.submit_full(state)
                barrier.done(data)

        self._scheduler.start(self._scheduler.builtin, Step(state, run, done))
