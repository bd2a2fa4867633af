"""Windows that take no more rows become reports: samples merged, metrics finished, in order for each model.

Runs on the collector's thread; the lanes do the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from zmon.contract import Metric, Point, RowCounts, Window
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.compute.contexts import Memory
from zmon_collector.compute.details import Details
from zmon_collector.compute.executors import Task
from zmon_collector.compute.sample import Sample
from zmon_collector.compute.window_state import ModelKey, WindowState
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import OTHER

if TYPE_CHECKING:
    from zmon_collector.compute.engine import Engine


class ClosedWindow(NamedTuple):
    """A closed window's values, before the outbox numbers them, and what metrics keep for the next one."""

    model: ModelKey
    window: Window
    number: int
    points: list[Point]
    rows: dict[str, RowCounts]
    memory: Memory
    details: Details


class WindowFinalizer:
    """The windows that are being finished, in order for each model."""

    def __init__(self, engine: Engine, registry: Registry, policies: PolicyStore) -> None:
        self._engine = engine
        self._registry = registry
        self._policies = policies
        self._queues: dict[ModelKey, deque[WindowState]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, share: WindowState) -> None:
        self._queues.setdefault(share.model, deque()).append(share)

    def advance(self) -> list[ClosedWindow]:
        """Take the next step wherever the last one has ended; the windows that are finished by it."""
        ready: list[ClosedWindow] = []
        for model, queue in list(self._queues.items()):
            while queue and not queue[0].outstanding.total():
                share = queue[0]
                if share.merged is None:
                    self._merge_samples(share)
                elif len(share.finished) < len(self._engine.lanes):
                    self._finish(share)
                else:
                    queue.popleft()
                    ready.append(self._report(share))
            if not queue:
                del self._queues[model]
        return ready

    def _merge_samples(self, share: WindowState) -> None:
        sizes = {agent: self._engine.sample_size(share, cell) for agent, cell in share.cells.items()}
        share.merged = {}

        def run(_: Sequence[Metric[Any]], progress: StepProgress) -> dict[str | None, Sample | None]:
            merged: dict[str | None, Sample | None] = {
                agent: merge.fold_samples(cell.samples, sizes[agent]) for agent, cell in share.cells.items()
            }
            merged[None] = merge.fold_samples(list(merged.values()), min(sizes.values(), default=1))
            return merged

        def done(merged: Any, _: StepProgress) -> None:
            share.merged = merged or {}

        self._engine.start(share, self._engine.lanes[""], Task(run, done))

    def _finish(self, share: WindowState) -> None:
        agents = sorted(share.window.tallies)
        for lane in self._engine.lanes.values():
            by_agent = {agent: self._engine.contexts.of(share, agent, lane, closing=True) for agent in [*agents, None]}
            contexts = {
                state.metric.name: {agent: found[state.metric.name] for agent, found in by_agent.items()}
                for state in lane.states
            }
            partials = {
                agent: share.cells[agent].partials.get(lane.name, []) if agent in share.cells else []
                for agent in agents
            }
            finished = share.finished[lane.name] = merge.FinishedWindow()
            failed = share.failed.keys() | share.absent
            choose = self._policies.of(share.model[0]).emits

            def run(
                metrics: Sequence[Metric[Any]],
                progress: StepProgress,
                partials: Any = partials,
                contexts: Any = contexts,
                choose: Any = choose,
                finished: merge.FinishedWindow = finished,
                failed: set[str] = failed,
            ) -> merge.FinishedWindow:
                sound = [metric for metric in metrics if metric.name not in failed]
                return merge.finish(sound, partials, contexts, choose, progress, finished)

            self._engine.start(share, lane, Task(run, lambda outcome, progress: None))

    def _report(self, share: WindowState) -> ClosedWindow:
        """The points of what did not fail; memory kept; failures counted."""
        points: list[Point] = []
        details: Details = {}
        memory: Memory = {}
        for lane in self._engine.lanes.values():
            finished = share.finished[lane.name]
            for state in lane.states:
                name = state.metric.name
                if name in share.absent:
                    continue
                if name in share.failed:
                    if state.state != "stuck":
                        state.failed(share.failed[name])
                    continue
                state.failing = 0
                points += [point for point in finished.points.get(name, []) if _is_emitted(point)]
            details |= {
                key: data for key, data in finished.details.items() if key[1] not in share.failed and key[0] != OTHER
            }
            memory.update({key: kept for key, kept in finished.memory.items() if key[0] not in share.failed})
        self._engine.contexts.memory(share.model).update(memory)
        self._engine.dismiss(share)
        window = share.window
        rows = {agent: tally.frozen() for agent, tally in sorted(window.tallies.items())}
        return ClosedWindow(share.model, Window(window.start, window.end), window.number, points, rows, memory, details)


def _is_emitted(point: Point) -> bool:
    """Agents beyond the limit have no series of their own, but their rows are accounted for."""
    return point.agent_id != OTHER or point.value.what.startswith("rows_") or point.value.what == "buffer_count"
