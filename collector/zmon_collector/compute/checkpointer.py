"""Windows are brought to rest while they stay open, and packed: so the raw rows behind them need not be kept.

Rows that arrive meanwhile gather and are computed on afterwards. Runs on the collector's thread; the lanes do the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zmon.contract import Metric
from zmon_collector.compute import checkpoint_codec, merge
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.compute.checkpoint_codec import AgentState, Checkpoint
from zmon_collector.compute.executors import Task
from zmon_collector.compute.window_state import WindowState
from zmon_collector.plugins import Registry

if TYPE_CHECKING:
    from zmon_collector.compute.engine import Engine

PATIENCE = 1.0  # seconds that rows gather for a slow plugin's sake; then it loses its values in this window


@dataclass(slots=True)
class Barrier:
    share: WindowState
    done: Callable[[bytes], None]
    since: float
    rows: dict[str, int]
    folded: bool = False
    given_up: set[str] = field(default_factory=set)


class Checkpointer:
    """The checkpoints that are being made."""

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry
        self._pauses: list[Barrier] = []

    def begin(self, share: WindowState, done: Callable[[bytes], None]) -> None:
        """Bring the window to rest; `done` gets the bytes unless the window closes before."""
        self._engine.hold(share)
        rows = {agent: cell.rows for agent, cell in share.cells.items()}
        self._pauses.append(Barrier(share, done, time.monotonic(), rows))

    def advance(self) -> None:
        """Take the next step wherever the last one has ended."""
        for pause in list(self._pauses):
            if pause.share.closing:
                self._pauses.remove(pause)
            elif self._at_rest(pause):
                if pause.folded:
                    self._pauses.remove(pause)
                    self._pack(pause)
                else:
                    pause.folded = True
                    self._fold(pause)

    def _at_rest(self, pause: Barrier) -> bool:
        share = pause.share
        busy = {lane for lane, steps in share.outstanding.items() if steps} - pause.given_up
        if busy - {""} and time.monotonic() - pause.since > PATIENCE:
            for name in busy - {""}:
                pause.given_up.add(name)
                for state in self._engine.lanes[name].states:
                    share.failed.setdefault(
                        state.metric.name, f"too slow: not done {PATIENCE:g} s after a checkpoint began"
                    )
            busy &= {""}
        return not busy

    def _fold(self, pause: Barrier) -> None:
        share = pause.share
        for cell in share.cells.values():
            for lane in self._engine.lanes.values():
                if lane.name not in pause.given_up and len(cell.partials.get(lane.name, [])) > 1:
                    self._engine.fold(share, cell, lane)
            size = self._engine.sample_size(share, cell)
            sample = merge.fold_samples(cell.samples, size)
            if sample is not None:
                cell.samples, cell.bound = [sample], sample.bound

    def _pack(self, pause: Barrier) -> None:
        share = pause.share
        made = Checkpoint(
            metrics=[name for name in self._registry.metrics if name not in share.absent],
            failed=dict(share.failed),
            agents={
                agent: AgentState(
                    rows=pause.rows.get(agent, 0),
                    partials={
                        lane: partials[0]
                        for lane, partials in cell.partials.items()
                        if partials and lane not in pause.given_up
                    },
                    sample=cell.samples[0] if cell.samples else None,
                )
                for agent, cell in share.cells.items()
            },
        )

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> bytes:
            return checkpoint_codec.encode(made, progress.failures)

        def done(data: Any, _: StepProgress) -> None:
            if not share.closing:
                self._engine.release(share)
                if data is not None:
                    pause.done(data)

        self._engine.start(share, self._engine.lanes[""], Task(run, done))
