"""From the rows of open windows to finished reports: gathers micro-batches, runs metrics on lanes, closes in order.

Everything here happens on the collector's thread; lanes do the work and report back through `completed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from typing import Any

from zmon.batch import Batch
from zmon.contract import Metric
from zmon_collector.compute import accumulate as step
from zmon_collector.compute import merge, preview
from zmon_collector.compute.accumulate import Numbers, Partial, StepProgress
from zmon_collector.compute.checkpoint_codec import Checkpoint
from zmon_collector.compute.checkpointer import Checkpointer
from zmon_collector.compute.contexts import Contexts
from zmon_collector.compute.executors import MetricExecutor, Task
from zmon_collector.compute.finalizer import ClosedWindow, WindowFinalizer
from zmon_collector.compute.references import References
from zmon_collector.compute.sample import row_bytes
from zmon_collector.compute.window_state import AgentPartial, MicroBatch, ModelKey, WindowState
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import OpenWindow

MICRO_ROWS = 32768  # rows joined into one step; fewer cost more of the interpreter's time per row
MICRO_BYTES = 4 * 2**20
FOLD_AT = 16  # partial results of an agent before they are merged into one
LANE_BYTES = 64 * 2**20  # of batches that may wait for one lane


class Engine:
    """Computes the windows of all models.

    Parameters
    ----------
    registry : Registry
    policies : PolicyStore
    sample_bytes : int
        Bound over all samples.
    workers : int
        Threads for the built-in metrics.
    timeout : float
        Seconds a metric may take for one step.
    wake : callable
        Called from any thread when `completed` has something to do.
    """

    def __init__(
        self,
        registry: Registry,
        policies: PolicyStore,
        *,
        sample_bytes: int,
        workers: int,
        timeout: float,
        wake: Callable[[], None],
    ) -> None:
        self._registry = registry
        self.contexts = Contexts(policies)
        self.references = References(policies)
        self._policies = policies
        self._sample_bytes = sample_bytes
        self._timeout = timeout
        self._wake = wake
        self._ended: deque[tuple[MetricExecutor, Task]] = deque()
        self._shares: dict[tuple[ModelKey, int, int], WindowState] = {}
        self._closings = WindowFinalizer(self, registry, policies)
        self._checkpoints = Checkpointer(self, registry)
        self._cells = 0
        self._waiting_bytes = 0  # in groups not yet submitted
        self.smallest_sample = 0  # rows to which sample_bytes lowered a sample last; 0: never
        self.skipped_rows = 0  # that a lagging plugin did not see
        self.lanes = {
            name: MetricExecutor(name, states, workers if not name else 1, self._note)
            for name, states in registry.lanes().items()
        }

    def _note(self, lane: MetricExecutor, task: Task) -> None:
        self._ended.append((lane, task))
        self._wake()

    @property
    def backlog(self) -> int:
        """Bytes of rows that wait for the built-in metrics: when it is large, receiving pauses."""
        return self.lanes[""].nbytes + self._waiting_bytes

    @property
    def idle(self) -> bool:
        return not self._closings and not any(lane.tasks for lane in self.lanes.values())

    @property
    def left_behind(self) -> int:
        """Threads that a stuck metric holds."""
        return sum(lane.left_behind for lane in self.lanes.values())

    # --- rows in -----------------------------------------------------------------------------------------------------

    def add(self, model: ModelKey, window: OpenWindow, agent: str, batch: Batch, seed: int, numbers: Numbers) -> None:
        """Rows of one agent for a window. They are computed on as soon as enough of them have gathered.

        Pairs that a late label has completed come here, too: they are not rows of the window.
        """
        share = self.share(model, window)
        cell = share.cells.get(agent)
        if cell is None:
            cell = share.cells[agent] = AgentPartial()
            self._cells += 1
        if not step.is_late(batch):
            if not cell.rows:
                cell.row_bytes = row_bytes(batch)
            cell.rows += batch.rows
        key = (id(batch.schema), batch.columns)
        group = cell.groups.get(key)
        if group is None:
            group = cell.groups[key] = MicroBatch()
        nbytes = sum(column.nbytes for column in batch.raw().values())
        group.batches.append(batch)
        group.seeds.append(seed)
        group.numbers.append(numbers)
        group.rows += batch.rows
        group.nbytes += nbytes
        self._waiting_bytes += nbytes
        if share.held:
            return
        if group.rows >= MICRO_ROWS or group.nbytes >= MICRO_BYTES:
            self._submit(share, agent, cell, cell.groups.pop(key))
        elif self._waiting_bytes > LANE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Compute on what has gathered, however little."""
        for share in self._shares.values():
            if not share.held:
                for agent, cell in share.cells.items():
                    self._flush(share, agent, cell)

    def _flush(self, share: WindowState, agent: str, cell: AgentPartial) -> None:
        while cell.groups:
            self._submit(share, agent, cell, cell.groups.popitem()[1])

    def share(self, model: ModelKey, window: OpenWindow) -> WindowState:
        """What there is of a window."""
        key = _key(model, window)
        share = self._shares.get(key)
        if share is None:
            reference = self.references.of(model, window.schema, self.contexts.memory(model))
            share = self._shares[key] = WindowState(model, window, reference)
        return share

    def sample_size(self, share: WindowState, cell: AgentPartial) -> int:
        wanted = self._policies.of(share.model[0]).sample_rows
        # Twice: while samples are merged, both the old and the new are held.
        affordable = max(1, self._sample_bytes // (2 * max(1, self._cells) * cell.row_bytes))
        if affordable < wanted:
            self.smallest_sample = affordable
            return affordable
        return wanted

    def _submit(self, share: WindowState, agent: str, cell: AgentPartial, group: MicroBatch) -> None:
        self._waiting_bytes -= group.nbytes
        for lane in self.lanes.values():
            if lane.name and lane.nbytes > LANE_BYTES:
                self._skip(share, lane, group.rows)
                continue
            run = self._accumulating(share, agent, cell, lane, group)
            done = partial(self._accumulated, share, agent, cell, lane)
            self.start(share, lane, Task(run, done, group.nbytes))

    def _accumulating(
        self, share: WindowState, agent: str, cell: AgentPartial, lane: MetricExecutor, group: MicroBatch
    ) -> Any:
        contexts = self.contexts.of(share, agent, lane)
        size, bound = self.sample_size(share, cell), cell.bound
        bare = self.contexts.bare(share, agent)

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> Partial:
            partial = step.accumulate(metrics, group.batches, {"": bare, **contexts}, progress)
            if not lane.name and not step.is_late(group.batches[0]):
                partial.sample = step.draw(group.batches, group.seeds, group.numbers, bare, size, bound)
            return partial

        return run

    def _skip(self, share: WindowState, lane: MetricExecutor, rows: int) -> None:
        self.skipped_rows += rows
        for state in lane.states:
            share.failed.setdefault(state.metric.name, f"too slow: {LANE_BYTES >> 20} MiB of rows were waiting for it")

    def _accumulated(
        self,
        share: WindowState,
        agent: str,
        cell: AgentPartial,
        lane: MetricExecutor,
        partial: Partial | None,
        _: StepProgress,
    ) -> None:
        if partial is not None:
            self._gather(share, cell, lane, partial)

    def _gather(self, share: WindowState, cell: AgentPartial, lane: MetricExecutor, partial: Partial) -> None:
        """Put a partial result beside the others, and merge them when they are many."""
        if partial.sample is not None:
            cell.samples.append(partial.sample)
            size = self.sample_size(share, cell)
            if len(cell.samples) > 1 and sum(len(each.keys) for each in cell.samples) > 2 * size:
                folded = merge.fold_samples(cell.samples, size)
                if folded is not None:
                    cell.samples, cell.bound = [folded], folded.bound
        partials = cell.partials.setdefault(lane.name, [])
        partials.append(partial)
        if len(partials) >= FOLD_AT:
            self.fold(share, cell, lane)

    def fold(self, share: WindowState, cell: AgentPartial, lane: MetricExecutor) -> None:
        """Merge an agent's partial results of one lane into one."""
        partials = cell.partials.get(lane.name, [])
        cell.partials[lane.name] = []

        def run(metrics: Sequence[Metric[Any]], progress: StepProgress) -> Partial:
            return merge.fold(metrics, partials, progress)

        def done(folded: Partial | None, _: StepProgress) -> None:
            if folded is not None:
                cell.partials.setdefault(lane.name, []).append(folded)

        self.start(share, lane, Task(run, done))

    # --- running -----------------------------------------------------------------------------------------------------

    def start(self, share: WindowState, lane: MetricExecutor, task: Task) -> None:
        """Run a step of a window on a lane."""
        share.outstanding[lane.name] += 1
        inner = task.done

        def done(outcome: Any, progress: StepProgress) -> None:
            share.outstanding[lane.name] -= 1
            for name, error in progress.failures.items():
                share.failed.setdefault(name, error)
            for name, seconds in progress.seconds.items():
                self._registry.metrics[name].seconds += seconds
            inner(outcome, progress)

        task.done = done
        lane.submit(task)

    def completed(self) -> list[ClosedWindow]:
        """Take in what the lanes have done; the windows that are finished by it, in order for each model."""
        while self._ended:
            lane, task = self._ended.popleft()
            outcome = lane.take(task)
            if outcome is not None:
                task.done(*outcome)
        for lane in self.lanes.values():
            for state in lane.overdue(self._timeout):
                for share in self._shares.values():
                    share.failed.setdefault(state.metric.name, state.error)
        self._checkpoints.advance()
        return self._closings.advance()

    def preview(self, models: Container[str], take: preview.Take) -> None:
        """Give what open windows of these models hold so far to `take`, soon; see preview.py."""
        lane = self.lanes[""]
        for share in self._shares.values():
            if share.model[0] not in models or share.closing or share.held or share.outstanding.total():
                continue
            if any(cell.partials for cell in share.cells.values()):
                contexts = {agent: self.contexts.of(share, agent, lane, closing=True) for agent in [*share.cells, None]}
                size = min(self.sample_size(share, cell) for cell in share.cells.values())
                lane.submit(preview.task(share, contexts, size, self._policies.of(share.model[0]).emits, take))
            for agent, cell in share.cells.items():
                self._flush(share, agent, cell)

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self, model: ModelKey, window: OpenWindow) -> None:
        """The window takes no more rows: finish it, after those of this model that close before it."""
        share = self.share(model, window)
        share.closing, share.held = True, False
        for agent, cell in share.cells.items():
            self._flush(share, agent, cell)
        self._closings.add(share)

    def dismiss(self, share: WindowState) -> None:
        """Let go of a window that is finished."""
        self._shares.pop(_key(share.model, share.window), None)
        self._cells -= len(share.cells)

    # --- checkpoints, and what a start brings back -------------------------------------------------------------------

    def checkpoint(self, model: ModelKey, window: OpenWindow, done: Callable[[bytes], None]) -> bool:
        """Give `done` the bytes of what all rows so far have come to; False when the window cannot now."""
        share = self._shares.get(_key(model, window))
        if share is None or share.closing or share.held:
            return False
        self._checkpoints.begin(share, done)
        return True

    def hold(self, share: WindowState) -> None:
        """Start all steps that are due; rows that come from now on gather."""
        for agent, cell in share.cells.items():
            self._flush(share, agent, cell)
        share.held = True

    def release(self, share: WindowState) -> None:
        """Go on after `hold`."""
        share.held = False
        for agent, cell in share.cells.items():
            for key in [key for key, group in cell.groups.items() if group.rows >= MICRO_ROWS]:
                self._submit(share, agent, cell, cell.groups.pop(key))

    def restore(self, model: ModelKey, window: OpenWindow, found: Checkpoint) -> None:
        """Take up what a checkpoint holds, beside what is there of the window; metrics that it lacks give nothing."""
        share = self.share(model, window)
        share.failed.update(found.failed)
        share.absent |= self._registry.metrics.keys() - set(found.metrics)
        for agent, state in found.agents.items():
            cell = share.cells.get(agent)
            if cell is None:
                cell = share.cells[agent] = AgentPartial()
                self._cells += 1
            cell.rows += state.rows
            if state.sample is not None:
                cell.row_bytes = row_bytes(state.sample.batch)
                cell.bound = min(cell.bound, state.sample.bound)
            for lane, kept in state.partials.items():
                if lane in self.lanes:
                    kept.sample = None if lane else state.sample
                    self._gather(share, cell, self.lanes[lane], kept)

    def rows(self, model: ModelKey, window: OpenWindow) -> dict[str, int]:
        """Rows taken in, by agent."""
        share = self._shares.get(_key(model, window))
        return {agent: cell.rows for agent, cell in share.cells.items()} if share else {}

    def unfinished(self) -> Iterator[tuple[ModelKey, OpenWindow]]:
        """Windows that have begun and are not finished."""
        for share in self._shares.values():
            yield share.model, share.window

    def shutdown(self) -> None:
        for lane in self.lanes.values():
            lane.shutdown()


def _key(model: ModelKey, window: OpenWindow) -> tuple[ModelKey, int, int]:
    """By its number as well: a window that has counts and no rows may begin when an open one does."""
    return model, window.start, window.number
