"""The backfill itself: survey the pieces, compute them in order, close each window and write its file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from zmon.contract import Report, Sink
from zmon.errors import ConfigurationError, RetryLater
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore, check_profiles, read_profiles
from zmon_collector.jobs.backfill.executors import Stopped, Workers
from zmon_collector.jobs.backfill.job import Job, settled
from zmon_collector.jobs.backfill.plan import BackfillPlan, Round
from zmon_collector.jobs.backfill.progress import BackfillProgress, alone, resumed
from zmon_collector.jobs.backfill.tasks import Bench, Result, compute, plugins, survey
from zmon_collector.jobs.row_files import FilePiece
from zmon_collector.jobs.tabular import Columns, Table
from zmon_collector.loading import DEFAULT_SINK, load_plugins
from zmon_collector.windows.window import OpenWindow

FOREVER = {"keep": "36500d", "keep_bytes": 2**62}  # what history is written must not delete what it wrote before


class State(NamedTuple):
    """How far it is, for whoever waits: pieces surveyed, rows computed in this run, windows written at all."""

    surveyed: int
    pieces: int
    rows: int
    of_rows: int
    written: int
    windows: int
    seconds: float


class Backfill:
    """One run over history.

    Parameters
    ----------
    config : Config
    model, version, agent : str
        Whose the rows are; `agent` where no column names it.
    paths : sequence of Path
    columns : Columns
    tell : callable
        Gets a `State` now and again.
    """

    def __init__(
        self, config: Config, model: str, version: str, agent: str, paths: Sequence[Path], columns: Columns,
        tell: Callable[[State], None],
    ) -> None:  # fmt: skip
        if columns.time is None:
            raise ConfigurationError("give --time, the column of timestamps: it says which window a row belongs to")
        table = Table([path.resolve() for path in paths], columns)
        self._pieces = list(table.pieces())
        layout, schema = settled(table)
        self._sinks = config.sinks.get(DEFAULT_SINK, {})
        self._folder = config.collector.data_dir
        profiles = read_profiles(config)
        check_profiles(profiles, [(model, schema)])
        self._policies = PolicyStore(config, profiles)
        self._registry = plugins(config)
        # What travels: no table of a sink, no key, no target of notifications.
        self.job = Job(model, version, agent, Config(collector=config.collector, metrics=config.metrics,
                       limits=config.limits, models=config.models, plugins=config.plugins), layout, schema)  # fmt: skip
        self._tell = tell
        self._began = time.monotonic()
        self._state = State(0, len(self._pieces), 0, 0, 0, 0, 0.0)

    def run(self, workers: Workers) -> State:
        """Write what is not written yet. `Stopped` or ConfigurationError say why it ends before that."""
        with alone(self._folder):
            plan = self._survey(workers)
            job = self.job = replace(self.job, beyond=plan.beyond(self.job.config.limits.agents))
            progress = resumed(self._folder, job.key, self._digest(), len(plan.windows))
            self._say(written=progress.closed, windows=progress.windows)
            writing = _Writing(self._sink(), progress, job)
            bench = Bench(job, self._registry, self._policies)
            for (metric, agent), kept in progress.memory.items():
                bench.engine.contexts.remember(job.key, metric, agent, kept)
            try:
                rounds = self._rounds(plan, progress.closed)
                self._say(of_rows=sum(plan.in_window[start] for each in rounds for start in each.windows))
                for each in rounds:
                    self._round(plan, each, bench, workers, writing)
            finally:
                bench.engine.shutdown()
                writing.sink.close()
        return self._state

    def _survey(self, workers: Workers) -> BackfillPlan:
        plan = BackfillPlan()
        for found in workers.ordered(survey, ((self.job, piece) for piece in self._pieces)):
            plan.add(found)
            self._say(surveyed=self._state.surveyed + 1)
        return plan

    def _rounds(self, plan: BackfillPlan, done: int) -> list[Round]:
        policy, schema = self._policies.of(self.job.model), self.job.schema
        learned = self._registry.metrics["reference"]
        first = policy.options("reference", learned.plugin).get("reference_windows", 0)
        width = len(schema.features) + len(schema.classes) + len(schema.segments) + 4
        return plan.rounds(done, first, policy.sample_rows, 8 * width, policy.config.limits.sample_bytes)

    def _round(self, plan: BackfillPlan, round_: Round, bench: Bench, workers: Workers, writing: _Writing) -> None:
        engine, job = bench.engine, self.job
        profile = engine.references.of(job.key, job.schema, engine.contexts.memory(job.key))
        job = replace(job, reference=None if profile is None else profile.to_bytes())
        low, high, period = round_.windows[0], round_.windows[-1], job.periods.newest
        open_ = {start: OpenWindow(start, start + period, schema=job.schema) for start in round_.windows}
        last = plan.last_places(round_)
        waiting = list(reversed(round_.windows))
        calls: list[tuple[Job, int, FilePiece, int, int]] = [
            (job, place, self._pieces[place], low, high) for place in round_.pieces
        ]
        for done, result in enumerate(workers.ordered(compute, calls), 1):
            self._take(result, open_, bench)
            while waiting and last[waiting[-1]] <= done:
                window = open_.pop(waiting.pop())
                planned = plan.in_window[window.start]
                tallied = sum(tally.received + sum(tally.rejected.values()) for tally in window.tallies.values())
                if tallied != planned:
                    raise ConfigurationError(
                        f"the files have changed while they were read: window {window.start} has {tallied} rows, "
                        f"and had {planned}; give files that nobody writes to"
                    )
                engine.close(job.key, window)
                for closed in bench.until(lambda: engine.idle):
                    writing.write(closed)
                self._say(written=writing.progress.closed)
            self._say(rows=self._state.rows + sum(result.rows.values()) + sum(result.rejected.values()))

    def _take(self, result: Result, open_: dict[int, OpenWindow], bench: Bench) -> None:
        for (start, agent), rows in result.rows.items():
            open_[start].tally(agent).received += rows
        for (start, agent, reason), rows in result.rejected.items():
            open_[start].tally(agent).add("rejected", rows, reason)
        for start, data in result.checkpoints.items():
            bench.engine.restore(self.job.key, open_[start], checkpoint_codec.decode(data, self.job.schema))
        bench.until(lambda: bench.engine.idle)

    def _sink(self) -> Sink:
        """The very sink of a collector, which writes the files."""
        table = {key: value for key, value in self._sinks.items() if key != "enabled"}
        config = replace(self.job.config, sinks={DEFAULT_SINK: {**table, **FOREVER}})
        sink = load_plugins(config).sinks[DEFAULT_SINK]
        sink.open()
        return sink

    def _digest(self) -> str:
        """Names the files as they are, and every option that changes what is written."""
        job, policy = self.job, self._policies.of(self.job.model)
        found = [job.layout, job.schema, job.key, job.agent, job.config.metrics, job.config.models.get(job.model),
                 job.config.plugins, policy.rules, policy.sample_rows, self._sinks,
                 policy.reference and policy.reference.digest]  # fmt: skip
        for path in dict.fromkeys(piece.path for piece in self._pieces):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
        return blake2b(repr(found).encode(), digest_size=16).hexdigest()

    def _say(self, **changed: int) -> None:
        self._state = self._state._replace(**changed, seconds=time.monotonic() - self._began)
        self._tell(self._state)


class _Writing:
    """Files in order, each once."""

    def __init__(self, sink: Sink, progress: BackfillProgress, job: Job) -> None:
        self.sink = sink
        self.progress = progress
        self._job = job

    def write(self, closed: ClosedWindow) -> None:
        """The file first, then that it is there: between the two it would be written again, under the same name."""
        progress = self.progress
        report = Report(progress.first + progress.closed, *closed.model, closed.window, closed.points, closed.rows, {})
        if closed.points:
            try:
                self.sink.write(report)
            except RetryLater as error:
                raise Stopped(f"{error}; make room, and give the same command again: it goes on from here") from None
        progress.closed += 1
        progress.memory.update(closed.memory)
        progress.save()
