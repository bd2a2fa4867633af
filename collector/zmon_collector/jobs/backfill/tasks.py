"""The tasks of a backfill: each reads a piece of the data itself and gives what it comes to. Stateless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from zmon._capture.columns import nanoseconds
from zmon.batch import Array
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import Profile
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.sample import stream_seed
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.jobs.backfill.job import Chunk, Job, sound
from zmon_collector.jobs.row_files import FilePiece, values
from zmon_collector.loading import load_plugins
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import NANO, OTHER, OpenWindow

TICK = 0.05  # seconds between looks for metrics that are stuck
AHEAD = 16 * 2**20  # bytes of rows read before they are computed on
UNBOUNDED = 2**62  # bytes of samples: the plan bounds how many windows are open instead

Cells = dict[tuple[int, str], int]  # rows by (window start, agent)


@dataclass(slots=True)
class Result:
    """What a piece came to: for each window a checkpoint, and rows rejected by (window start, agent, reason)."""

    checkpoints: dict[int, bytes] = field(default_factory=dict)
    rows: Cells = field(default_factory=dict)
    rejected: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def count(self, start: int, agent: str, rows: int) -> None:
        self.rows[start, agent] = self.rows.get((start, agent), 0) + rows

    def reject(self, start: int, agent: str, reason: str) -> None:
        self.rejected[start, agent, reason] = self.rejected.get((start, agent, reason), 0) + 1


class Bench:
    """The collector's engine without a collector around it: what it needs is called from here until it is done."""

    def __init__(self, job: Job, registry: Registry, policies: PolicyStore) -> None:
        self._wakeup = threading.Event()
        self.engine = Engine(
            registry,
            policies,
            sample_bytes=UNBOUNDED,
            workers=1,
            timeout=job.config.collector.metric_timeout,
            wake=self._wakeup.set,
        )

    def until(self, done: Callable[[], bool]) -> list[ClosedWindow]:
        """Work until `done`; the windows that are finished meanwhile."""
        closed = self.engine.completed()
        while not done():
            self._wakeup.wait(TICK)
            self._wakeup.clear()
            closed += self.engine.completed()
        return closed


def plugins(config: Config) -> Registry:
    """The metrics, without any sink that is configured."""
    return load_plugins(replace(config, sinks={}))


def survey(job: Job, piece: FilePiece) -> Cells:
    """How many rows each agent has in each window: only the columns of time and agent are read."""
    columns = job.layout.columns
    found: Cells = {}
    ahead = int((time.time() + job.config.collector.max_skew) * NANO)
    for first, rows, chunk in job.layout.chunks(piece, [each for each in (columns.time, columns.agent) if each]):
        starts, codes, names = _places(job, piece, first, rows, chunk, ahead)
        for start, code, where in _split(starts, codes):
            key = (start, names[code])
            found[key] = found.get(key, 0) + len(where)
    return found


def compute(job: Job, number: int, piece: FilePiece, low: int, high: int) -> Result:
    """What the rows of a piece come to, by window, for the windows that start from `low` to `high`.

    `number` is the piece's place among all: with a row's own number in the file it is what the row sample is drawn by.
    """
    profiles = {} if job.reference is None else {job.model: Profile.from_bytes(job.reference, "the reference")}
    bench = Bench(job, plugins(job.config), PolicyStore(job.config, profiles))
    seed = stream_seed(number.to_bytes(16, "little"))
    reader, period = job.layout.reader(), job.periods.newest
    windows: dict[int, OpenWindow] = {}
    result = Result()
    try:
        for first, rows, chunk in job.layout.chunks(piece):
            starts, codes, names = _places(job, piece, first, rows, chunk, 2**63 - 1)
            if starts.max() < low or starts.min() > high:
                continue
            names = [OTHER if name in job.beyond else name for name in names]
            for at, found in sound(job.layout, reader, piece, first, rows, chunk):
                if isinstance(found, Rejected):
                    if low <= starts[at] <= high:
                        result.reject(int(starts[at]), names[codes[at]], found.reason)
                    continue
                conflict = job.schema.conflict(found.schema)
                if conflict:
                    raise ConfigurationError(f"{piece.path}, rows {first} to {first + rows - 1}: {conflict}")
                batch = found.aligned(job.schema)
                for start, code, where in _split(starts[at : at + batch.rows], codes[at : at + batch.rows]):
                    if low <= start <= high:
                        if start not in windows:
                            windows[start] = OpenWindow(start, start + period, schema=job.schema)
                        taken = batch if len(where) == batch.rows else batch.take(where)
                        numbers = where.astype(np.uint64) + np.uint64(first + at)
                        bench.engine.add(job.key, windows[start], names[code], taken, seed, numbers)
                        result.count(start, names[code], taken.rows)
            bench.until(lambda: max(lane.nbytes for lane in bench.engine.lanes.values()) <= AHEAD)
        bench.engine.flush()
        bench.until(lambda: bench.engine.idle)
        for start, window in windows.items():
            bench.engine.checkpoint(job.key, window, partial(result.checkpoints.__setitem__, start))
        bench.until(lambda: len(result.checkpoints) == len(windows))
    finally:
        bench.engine.shutdown()
    return result


def _places(
    job: Job, piece: FilePiece, first: int, rows: int, chunk: Chunk, ahead: int
) -> tuple[Array, Array, list[str]]:
    """For each row where its window starts and the place of its agent among the names given beside."""
    columns = job.layout.columns
    try:
        times = nanoseconds(values(chunk[columns.time or ""]))
        if isinstance(times, int) or times.max() > ahead:
            raise ConfigurationError("a timestamp lies ahead of this machine's clock")
        codes, names = job.agents(None if columns.agent is None else chunk[columns.agent], rows)
    except (Rejected, ConfigurationError) as error:
        raise ConfigurationError(
            f"{piece.path}, rows {first} to {first + rows - 1}, --time {columns.time!r}: {error}; a row without a time "
            "of its own belongs to no window"
        ) from None
    starts = job.periods.starts(times)
    return np.asarray(starts), codes, names


def _split(starts: Array, codes: Array) -> Iterator[tuple[int, int, Array]]:
    """The rows of each window and agent, in order."""
    first, width = int(starts.min()), int(codes.max()) + 1
    joined = (starts - first) * width + codes
    if joined.min() == joined.max():
        yield first, int(codes[0]), np.arange(len(joined))
        return
    order = np.argsort(joined, kind="stable")
    found, at = np.unique(joined[order], return_index=True)
    for place, where in zip(found.tolist(), np.split(order, at[1:]), strict=True):
        yield first + place // width, place % width, where
