"""From the rows of open windows to finished reports: gathers micro-batches, runs metrics on lanes, closes in order.

Everything here happens on the collector's thread; lanes do the work and report back through `completed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from zmon.batch import Batch
from zmon.contract import Context, Metric, Point, RowCounts, Value, Window
from zmon_collector import accumulate as step
from zmon_collector import merge, preview
from zmon_collector.accumulate import Numbers, Partial, Progress
from zmon_collector.lanes import Lane, Task
from zmon_collector.plugins import Registry
from zmon_collector.sample import Sample, row_bytes
from zmon_collector.share import Cell, Group, Model, Share
from zmon_collector.window import OpenWindow

MICRO_ROWS = 4096  # rows joined into one step
MICRO_BYTES = 8 * 2**20
FOLD_AT = 16  # partial results of an agent before they are merged into one
LANE_BYTES = 64 * 2**20  # of batches that may wait for one lane


class Closed(NamedTuple):
    """A closed window's values, before the outbox numbers them."""

    model: Model
    window: Window
    points: list[Point]
    rows: dict[str, RowCounts]


class Engine:
    """Computes the windows of all models.

    Parameters
    ----------
    registry : Registry
    choose : callable
        Whether a value of a metric is emitted for a model.
    options : callable
        A metric's options for a model: ``options(model, metric, plugin)``.
    sample_rows : callable
        Rows of the sample for a model.
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
        *,
        choose: Callable[[str, Metric[Any], Value], bool],
        options: Callable[[str, str, str], Mapping[str, Any]],
        sample_rows: Callable[[str], int],
        sample_bytes: int,
        workers: int,
        timeout: float,
        wake: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._choose = choose
        self._options = options
        self._sample_rows = sample_rows
        self._sample_bytes = sample_bytes
        self._timeout = timeout
        self._wake = wake
        self._ended: deque[tuple[Lane, Task]] = deque()
        self._shares: dict[tuple[Model, int], Share] = {}
        self._closing: dict[Model, deque[Share]] = {}
        self._memory: dict[Model, dict[tuple[str, str | None], dict[str, Any]]] = {}
        self._cells = 0
        self._waiting_bytes = 0  # in groups not yet submitted
        self.smallest_sample = 0  # rows to which sample_bytes lowered a sample last; 0: never
        self.skipped_rows = 0  # that a lagging plugin did not see
        self.lanes = {
            name: Lane(name, states, workers if not name else 1, self._note)
            for name, states in registry.lanes().items()
        }

    def _note(self, lane: Lane, task: Task) -> None:
        self._ended.append((lane, task))
        self._wake()

    @property
    def backlog(self) -> int:
        """Bytes of rows that wait for the built-in metrics: when it is large, receiving pauses."""
        return self.lanes[""].nbytes + self._waiting_bytes

    @property
    def idle(self) -> bool:
        return not self._closing and not any(lane.tasks for lane in self.lanes.values())

    @property
    def left_behind(self) -> int:
        """Threads that a stuck metric holds."""
        return sum(lane.left_behind for lane in self.lanes.values())

    # --- rows in -----------------------------------------------------------------------------------------------------

    def add(self, model: Model, window: OpenWindow, agent: str, batch: Batch, seed: int, numbers: Numbers) -> None:
        """Rows of one agent for a window. They are computed on as soon as enough of them have gathered."""
        share = self._share(model, window)
        cell = share.cells.get(agent)
        if cell is None:
            cell = share.cells[agent] = Cell(row_bytes=row_bytes(batch))
            self._cells += 1
        key = (id(batch.schema), batch.columns)
        group = cell.groups.get(key)
        if group is None:
            group = cell.groups[key] = Group()
        nbytes = sum(column.nbytes for column in batch.raw().values())
        group.batches.append(batch)
        group.seeds.append(seed)
        group.numbers.append(numbers)
        group.rows += batch.rows
        group.nbytes += nbytes
        self._waiting_bytes += nbytes
        if group.rows >= MICRO_ROWS or group.nbytes >= MICRO_BYTES:
            self._submit(share, agent, cell, cell.groups.pop(key))
        elif self._waiting_bytes > LANE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Compute on what has gathered, however little."""
        for share in self._shares.values():
            for agent, cell in share.cells.items():
                self._flush(share, agent, cell)

    def _flush(self, share: Share, agent: str, cell: Cell) -> None:
        while cell.groups:
            self._submit(share, agent, cell, cell.groups.popitem()[1])

    def _share(self, model: Model, window: OpenWindow) -> Share:
        key = (model, window.start)
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(model, window)
        return share

    def _submit(self, share: Share, agent: str, cell: Cell, group: Group) -> None:
        self._waiting_bytes -= group.nbytes
        for lane in self.lanes.values():
            if lane.name and lane.nbytes > LANE_BYTES:
                self._skip(share, lane, group.rows)
                continue
            run = self._accumulating(share, agent, cell, lane, group)
            done = partial(self._accumulated, share, agent, cell, lane)
            self._start(share, lane, Task(run, done, group.nbytes))

    def _accumulating(self, share: Share, agent: str, cell: Cell, lane: Lane, group: Group) -> Any:
        contexts = self._contexts(share, agent, lane)
        size, bound = self._sample_size(share, cell), cell.bound
        bare = self._context(share, agent)

        def run(metrics: Sequence[Metric[Any]], progress: Progress) -> Partial:
            partial = step.accumulate(metrics, group.batches, {"": bare, **contexts}, progress)
            if not lane.name:
                partial.sample = step.draw(group.batches, group.seeds, group.numbers, bare, size, bound)
            return partial

        return run

    def _skip(self, share: Share, lane: Lane, rows: int) -> None:
        self.skipped_rows += rows
        for state in lane.states:
            share.failed.setdefault(state.metric.name, f"too slow: {LANE_BYTES >> 20} MiB of rows were waiting for it")

    def _accumulated(
        self, share: Share, agent: str, cell: Cell, lane: Lane, partial: Partial | None, _: Progress
    ) -> None:
        if partial is None:
            return
        if partial.sample is not None:
            cell.samples.append(partial.sample)
            size = self._sample_size(share, cell)
            if len(cell.samples) > 1 and sum(len(each.keys) for each in cell.samples) > 2 * size:
                folded = merge.fold_samples(cell.samples, size)
                if folded is not None:
                    cell.samples, cell.bound = [folded], folded.bound
        partials = cell.partials.setdefault(lane.name, [])
        partials.append(partial)
        if len(partials) >= FOLD_AT:
            cell.partials[lane.name] = []

            def run(metrics: Sequence[Metric[Any]], progress: Progress) -> Partial:
                return merge.fold(metrics, partials, progress)

            self._start(share, lane, Task(run, self._folded(share, agent, cell, lane)))

    def _folded(self, share: Share, agent: str, cell: Cell, lane: Lane) -> Callable[[Any, Progress], None]:
        def done(folded: Partial | None, _: Progress) -> None:
            if folded is not None:
                cell.partials.setdefault(lane.name, []).append(folded)

        return done

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, share: Share, lane: Lane, task: Task) -> None:
        share.outstanding += 1
        inner = task.done

        def done(outcome: Any, progress: Progress) -> None:
            share.outstanding -= 1
            for name, error in progress.failures.items():
                share.failed.setdefault(name, error)
            for name, seconds in progress.seconds.items():
                self._registry.metrics[name].seconds += seconds
            inner(outcome, progress)

        task.done = done
        lane.submit(task)

    def completed(self) -> list[Closed]:
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
        ready: list[Closed] = []
        for model in list(self._closing):
            self._advance(model, ready)
        return ready

    def preview(self, models: Container[str], take: preview.Take) -> None:
        """Give what open windows of these models hold so far to `take`, soon; see preview.py."""
        lane = self.lanes[""]
        for share in self._shares.values():
            if share.model[0] not in models or share.closing or share.outstanding:
                continue
            if any(cell.partials for cell in share.cells.values()):
                contexts = {agent: self._contexts(share, agent, lane, closing=True) for agent in [*share.cells, None]}
                size = min(self._sample_size(share, cell) for cell in share.cells.values())
                lane.submit(preview.task(share, contexts, size, partial(self._choose, share.model[0]), take))
            for agent, cell in share.cells.items():
                self._flush(share, agent, cell)

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self, model: Model, window: OpenWindow) -> None:
        """The window takes no more rows: finish it, after those of this model that close before it."""
        share = self._share(model, window)
        share.closing = True
        for agent, cell in share.cells.items():
            self._flush(share, agent, cell)
        self._closing.setdefault(model, deque()).append(share)

    def _advance(self, model: Model, ready: list[Closed]) -> None:
        queue = self._closing[model]
        while queue:
            share = queue[0]
            if share.outstanding:
                return
            if share.merged is None:
                self._merge_samples(share)
            elif len(share.finished) < len(self.lanes):
                self._finish(share)
            else:
                queue.popleft()
                ready.append(self._report(share))
        del self._closing[model]

    def _merge_samples(self, share: Share) -> None:
        sizes = {agent: self._sample_size(share, cell) for agent, cell in share.cells.items()}
        share.merged = {}

        def run(_: Sequence[Metric[Any]], progress: Progress) -> dict[str | None, Sample | None]:
            merged: dict[str | None, Sample | None] = {
                agent: merge.fold_samples(cell.samples, sizes[agent]) for agent, cell in share.cells.items()
            }
            merged[None] = merge.fold_samples(list(merged.values()), min(sizes.values(), default=1))
            return merged

        def done(merged: Any, _: Progress) -> None:
            share.merged = merged or {}

        self._start(share, self.lanes[""], Task(run, done))

    def _finish(self, share: Share) -> None:
        agents = sorted(share.window.tallies)
        for lane in self.lanes.values():
            by_agent = {agent: self._contexts(share, agent, lane, closing=True) for agent in [*agents, None]}
            contexts = {
                state.metric.name: {agent: found[state.metric.name] for agent, found in by_agent.items()}
                for state in lane.states
            }
            partials = {
                agent: share.cells[agent].partials.get(lane.name, []) if agent in share.cells else []
                for agent in agents
            }
            finished = share.finished[lane.name] = merge.Finished()
            failed = set(share.failed)
            choose = partial(self._choose, share.model[0])

            def run(
                metrics: Sequence[Metric[Any]],
                progress: Progress,
                partials: Any = partials,
                contexts: Any = contexts,
                choose: Any = choose,
                finished: merge.Finished = finished,
                failed: set[str] = failed,
            ) -> merge.Finished:
                sound = [metric for metric in metrics if metric.name not in failed]
                return merge.finish(sound, partials, contexts, choose, progress, finished)

            self._start(share, lane, Task(run, lambda outcome, progress: None))

    def _report(self, share: Share) -> Closed:
        """The points of what did not fail; memory kept; failures counted."""
        points: list[Point] = []
        memory = self._memory.setdefault(share.model, {})
        for lane in self.lanes.values():
            finished = share.finished[lane.name]
            for state in lane.states:
                name = state.metric.name
                if name in share.failed:
                    if state.state != "stuck":
                        state.failed(share.failed[name])
                    continue
                state.failing = 0
                points += finished.points.get(name, [])
            memory.update({key: kept for key, kept in finished.memory.items() if key[0] not in share.failed})
        window = share.window
        self._shares.pop((share.model, window.start), None)
        self._cells -= len(share.cells)
        rows = {agent: tally.frozen() for agent, tally in sorted(window.tallies.items())}
        return Closed(share.model, Window(window.start, window.end), points, rows)

    def forget(self, model: Model, agents: Sequence[str]) -> None:
        """Drop the memory kept for agents that are gone."""
        memory = self._memory.get(model, {})
        for key in [key for key in memory if key[1] in agents]:
            del memory[key]

    def shutdown(self) -> None:
        for lane in self.lanes.values():
            lane.shutdown()

    # --- contexts ----------------------------------------------------------------------------------------------------

    def _context(self, share: Share, agent: str | None) -> Context:
        window = share.window
        model, version = share.model
        return Context(model, version, agent, window.schema, Window(window.start, window.end))

    def _contexts(self, share: Share, agent: str | None, lane: Lane, *, closing: bool = False) -> dict[str, Context]:
        """The context of each of the lane's metrics, by metric; with rows, memory and sample when closing."""
        model, version = share.model
        window = share.window
        rows, sample = RowCounts(), None
        if closing:
            rows = _rows(window, agent)
            found = (share.merged or {}).get(agent)
            sample = found.batch if found else None
        memory = self._memory.get(share.model, {})
        return {
            state.metric.name: Context(
                model,
                version,
                agent,
                window.schema,
                Window(window.start, window.end),
                options=self._options(model, state.metric.name, state.plugin),
                memory=memory.get((state.metric.name, agent), {}) if closing else {},
                rows=rows,
                sample=sample,
            )
            for state in lane.states
        }

    def _sample_size(self, share: Share, cell: Cell) -> int:
        wanted = self._sample_rows(share.model[0])
        # Twice: while samples are merged, both the old and the new are held.
        affordable = max(1, self._sample_bytes // (2 * max(1, self._cells) * cell.row_bytes))
        if affordable < wanted:
            self.smallest_sample = affordable
            return affordable
        return wanted


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
