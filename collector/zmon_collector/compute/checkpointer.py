"""Windows are brought to rest while they stay open, and packed, so that the raw rows behind them need not be kept.

The checkpoint barrier: a checkpoint must contain exactly the rows that were added before it began, because the journal
deletes these rows in the transaction that writes it. So the window is held: steps for all rows so far are started, rows
that come from then on only gather, and once no step is under way every row lies in a partial result. These are folded
to one per agent and executor and packed, and the window is open again. Only this window is held; receiving goes on.

A slow plugin must not hold a window for long, because its rows pile up in memory meanwhile. After PATIENCE seconds the
checkpoint goes on without that plugin, whose metrics lose their values in this window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zmon.contract import Metric
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.compute.batcher import MicroBatcher
from zmon_collector.compute.checkpoint_codec import AgentState, Checkpoint
from zmon_collector.compute.executors import Step
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_state import Phase, WindowState

PATIENCE = 1.0  # seconds that rows gather for the sake of a slow plugin


@dataclass(slots=True)
class Barrier:
    """A window that is brought to rest.

    `rows` are the agents' rows when it began: what the checkpoint covers.
    """

    state: WindowState
    done: Callable[[bytes], None]
    since: float
    rows: dict[str, int]
    folded: bool = False
    given_up: set[str] = field(default_factory=set)  # executors


class Checkpointer:
    """The checkpoints that are being made."""

    def __init__(self, scheduler: Scheduler, batcher: MicroBatcher) -> None:
        self._scheduler = scheduler
        self._batcher = batcher
        self._barriers: list[Barrier] = []

    def begin(self, state: WindowState, done: Callable[[bytes], None]) -> None:
        """Hold an open window; `done` gets the checkpoint's bytes unless the window closes first."""
        self._batcher.flush(state)
        state.enter(Phase.HELD)
        rows = {name: agent.rows for name, agent in state.agents.items()}
        self._barriers.append(Barrier(state, done, time.monotonic(), rows))

    def advance(self) -> None:
        """Take the next step for every window whose last one has ended."""
        for barrier in list(self._barriers):
            if barrier.state.phase is not Phase.HELD:  # it has closed meanwhile
                self._barriers.remove(barrier)
            elif self._at_rest(barrier):
                if barrier.folded:
                    self._barriers.remove(barrier)
                    self._pack(barrier)
                else:
                    barrier.folded = True
                    self._batcher.fold(barrier.state, except_for=barrier.given_up)

    def _at_rest(self, barrier: Barrier) -> bool:
        state, builtin = barrier.state, self._scheduler.builtin.name
        busy = {name for name, steps in state.outstanding.items() if steps} - barrier.given_up
        slow = busy - {builtin}
        if slow and time.monotonic() - barrier.since > PATIENCE:
            barrier.given_up |= slow
            for name in slow:
                for registered in self._scheduler.executors[name].metric_states:
                    state.fail(registered.metric.name, f"too slow: not done {PATIENCE:g} s after a checkpoint began")
            busy -= slow
        return not busy

    def _pack(self, barrier: Barrier) -> None:
        state = barrier.state
        agents = {}
        for name, agent in state.agents.items():
            by_executor = agent.partials.items()
            partials = {key: kept[0] for key, kept in by_executor if kept and key not in barrier.given_up}
            agents[name] = AgentState(barrier.rows.get(name, 0), partials, next(iter(agent.samples), None))
        metrics = [name for name in self._scheduler.metrics if name not in state.absent]
        checkpoint = Checkpoint(metrics, dict(state.failed), agents)

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> bytes:
            return checkpoint_codec.encode(checkpoint, progress.failures)

        def done(data: bytes | None, _: StepProgress) -> None:
            if state.phase is Phase.HELD:
                state.enter(Phase.OPEN)
                self._batcher.submit_full(state)
                if data is not None:
                    barrier.done(data)

        self._scheduler.start(self._scheduler.builtin, Step(state, run, done))
