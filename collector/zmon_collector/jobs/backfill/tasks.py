"""Tasks of a backfill: each one reads a piece of the data itself and returns its result. Stateless."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from zmon._capture.times import nanoseconds
from zmon.batch import Array
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import Profile
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.sample import stream_seed
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.jobs.backfill.job import Job, valid_batches
from zmon_collector.jobs.row_files import FilePiece, to_numpy
from zmon_collector.jobs.tabular import FileRows
from zmon_collector.loading import load_plugins
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import NANO, OTHER, OpenWindow

TICK = 0.05  # seconds between checks for stuck metrics
AHEAD = 16 * 2**20  # bytes of rows that may wait for their metrics
UNBOUNDED = 2**62  # bytes of samples: the plan bounds the number of open windows instead

SurveyCounts = Counter[tuple[int, str]]  # rows by (window start, agent)


@dataclass(slots=True)
class PieceResult:
    """Result of a piece: a checkpoint for each window, and rows rejected by (window start, agent, reason)."""

    checkpoints: dict[int, bytes] = field(default_factory=dict)
    rows: SurveyCounts = field(default_factory=Counter)
    rejected: Counter[tuple[int, str, str]] = field(default_factory=Counter)


class EngineRunner:
    """The collector's engine without a collector around it: the caller drives it until its work is done."""

    def __init__(self, job: Job, registry: Registry, policies: PolicyStore) -> None:
        self._wakeup = threading.Event()
        limits = replace(job.config.limits, sample_bytes=UNBOUNDED)
        config = replace(job.config, collector=replace(job.config.collector, workers=1), limits=limits)
        # Nothing piles up while a plugin takes its time: it ends, or is abandoned after `metric_timeout`.
        self.engine = Engine(config, registry, policies, self._wakeup.set, patience=math.inf)

    def run_until(self, done: Callable[[], bool]) -> list[ClosedWindow]:
        """Run the engine until `done`, and return the windows that were finished meanwhile."""
        closed = self.engine.advance()
        while not done():
            self._wakeup.wait(TICK)
            self._wakeup.clear()
            closed += self.engine.advance()
        return closed


def load_metrics(config: Config) -> Registry:
    """Load the metrics, and none of the configured sinks."""
    return load_plugins(replace(config, sinks={}))


def survey(job: Job, piece: FilePiece) -> SurveyCounts:
    """Count each agent's rows in each window. Only the columns of time and agent are read."""
    columns = job.layout.columns
    counts: SurveyCounts = Counter()
    newest = int((time.time() + job.config.collector.max_skew) * NANO)
    for chunk in job.layout.chunks(piece, [name for name in (columns.time, columns.agent) if name]):
        starts, codes, names = _locate_rows(job, chunk, newest)
        for start, code, where in _group_rows(starts, codes):
            counts[start, names[code]] += len(where)
    return counts


def compute(job: Job, number: int, piece: FilePiece, low: int, high: int) -> PieceResult:
    """Compute the metrics over a piece's rows, by window, for the windows that start from `low` to `high`.

    `number` is the piece's place among all pieces. The row sample is drawn by it and the row's number in the file, so
    the sample does not depend on where and when the task runs.
    """
    profiles = {} if job.reference is None else {job.model: Profile.from_bytes(job.reference, "the reference")}
    runner = EngineRunner(job, load_metrics(job.config), PolicyStore(job.config, profiles))
    seed = stream_seed(number.to_bytes(16, "little"))
    reader, period = job.layout.reader(), job.periods.newest
    windows: dict[int, OpenWindow] = {}
    result = PieceResult()
    try:
        for chunk in job.layout.chunks(piece):
            starts, codes, names = _locate_rows(job, chunk, 2**63 - 1)
            if starts.max() < low or starts.min() > high:
                continue
            names = [OTHER if name in job.beyond else name for name in names]
            for at, rows in valid_batches(job.layout, reader, chunk):
                if isinstance(rows, Rejected):
                    if low <= starts[at] <= high:
                        result.rejected[int(starts[at]), names[codes[at]], rows.reason] += 1
                    continue
                conflict = job.schema.conflict(rows.schema)
                if conflict:
                    raise ConfigurationError(f"{chunk}: {conflict}")
                batch = rows.aligned(job.schema)
                for start, code, where in _group_rows(starts[at : at + batch.rows], codes[at : at + batch.rows]):
                    if low <= start <= high:
                        if start not in windows:
                            windows[start] = OpenWindow(start, start + period, schema=job.schema)
                        taken = batch if len(where) == batch.rows else batch.take(where)
                        numbers = where.astype(np.uint64) + np.uint64(chunk.first + at)
                        agent_rows = AgentRows(names[code], taken, seed, numbers)
                        runner.engine.add_rows(job.key, windows[start], agent_rows)
                        result.rows[start, names[code]] += taken.rows
            runner.run_until(lambda: runner.engine.longest_queue <= AHEAD)
        runner.engine.flush()
        runner.run_until(lambda: runner.engine.idle)
        made: dict[int, bytes | None] = {}
        for start, window in windows.items():
            runner.engine.checkpoint(job.key, window, partial(made.__setitem__, start))
        runner.run_until(lambda: len(made) == len(windows))
        for start, data in made.items():
            if data is None:
                raise RuntimeError(f"window {start} cannot be packed; the log says why")
            result.checkpoints[start] = data
    finally:
        runner.engine.shutdown()
    return result


def _locate_rows(job: Job, chunk: FileRows, newest: int) -> tuple[Array, Array, list[str]]:
    """Return each row's window start, and its agent as an index into the names that come third."""
    roles = job.layout.columns
    try:
        times = nanoseconds(to_numpy(chunk.columns[roles.time or ""]))
        if isinstance(times, int) or times.max() > newest:
            raise ConfigurationError("a timestamp lies ahead of this machine's clock")
        codes, names = job.agents(None if roles.agent is None else chunk.columns[roles.agent], chunk.rows)
    except (Rejected, ConfigurationError) as error:
        raise ConfigurationError(
            f"{chunk}, --time {roles.time!r}: {error}; a row without a time of its own belongs to no window"
        ) from None
    starts = job.periods.starts(times)
    return np.asarray(starts), codes, names


def _group_rows(starts: Array, codes: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield (window start, agent's index, row indices) for each window and agent, in order."""
    first, width = int(starts.min()), int(codes.max()) + 1
    joined = (starts - first) * width + codes
    if joined.min() == joined.max():
        yield first, int(codes[0]), np.arange(len(joined))
        return
    order = np.argsort(joined, kind="stable")
    groups, at = np.unique(joined[order], return_index=True)
    for place, where in zip(groups.tolist(), np.split(order, at[1:]), strict=True):
        yield first + place // width, place % width, where
