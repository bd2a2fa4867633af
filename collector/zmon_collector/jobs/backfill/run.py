"""Run a backfill: survey the pieces, compute them in order, close each window and write its file."""

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
from zmon_collector.jobs.backfill.executors import BackfillStopped, WorkerPool
from zmon_collector.jobs.backfill.job import Job, Source, detect_schema
from zmon_collector.jobs.backfill.plan import BackfillPlan, PlanRound
from zmon_collector.jobs.backfill.progress import BackfillProgress, locked, resume
from zmon_collector.jobs.backfill.tasks import EngineRunner, PieceResult, compute, load_metrics, survey
from zmon_collector.jobs.tabular import Columns, Dataset
from zmon_collector.loading import DEFAULT_SINK, load_plugins
from zmon_collector.windows.window import OpenWindow

FOREVER = {"keep": "36500d", "keep_bytes": 2**53}  # files of history are old: the sink must not sweep them


class BackfillStatus(NamedTuple):
    """Status of a run: pieces surveyed, rows computed in this run, and windows written, earlier runs included."""

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
    source : Source
    paths : sequence of Path
    columns : Columns
    report : callable
        Called with a `BackfillStatus` as the work advances.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        paths: Sequence[Path],
        columns: Columns,
        report: Callable[[BackfillStatus], None],
    ) -> None:
        if columns.time is None:
            raise ConfigurationError("give --time, the column of timestamps: it decides the window of a row")
        dataset = Dataset([path.resolve() for path in paths], columns)
        self._pieces = list(dataset.pieces())
        layout, schema = detect_schema(dataset)
        self._sinks = config.sinks.get(DEFAULT_SINK, {})
        self._folder = config.collector.data_dir
        profiles = read_profiles(config)
        check_profiles(profiles, [(source.model, schema)])
        self._policies = PolicyStore(config, profiles)
        self._registry = load_metrics(config)
        # The job is sent to workers: it holds no sink's table, no key, and no target of notifications.
        self.job = Job(*source, Config(collector=config.collector, metrics=config.metrics, limits=config.limits,
                       models=config.models, plugins=config.plugins), layout, schema)  # fmt: skip
        self._report = report
        self._began = time.monotonic()
        self._status = BackfillStatus(0, len(self._pieces), 0, 0, 0, 0, 0.0)

    def run(self, workers: WorkerPool) -> BackfillStatus:
        """Write the windows that are not written yet.

        Raises
        ------
        BackfillStopped
            When it ends early, and the same command resumes it.
        ConfigurationError
            When files or columns do not fit.
        """
        with locked(self._folder):
            plan = self._survey(workers)
            job = self.job = replace(self.job, beyond=plan.beyond(self.job.config.limits.agents))
            progress = resume(self._folder, job.key, self._digest(), len(plan.windows))
            self._update(written=progress.closed, windows=progress.windows)
            writer = _ReportWriter(self._sink(), progress)
            runner = EngineRunner(job, self._registry, self._policies)
            for (metric, agent), memory in progress.memory.items():
                runner.engine.memory.restore(job.key, metric, agent, memory)
            try:
                rounds = self._rounds(plan, progress.closed)
                self._update(of_rows=sum(plan.window_rows[start] for round_ in rounds for start in round_.windows))
                for round_ in rounds:
                    self._run_round(plan, round_, runner, workers, writer)
            finally:
                runner.engine.shutdown()
                writer.sink.close()
        return self._status

    def _survey(self, workers: WorkerPool) -> BackfillPlan:
        plan = BackfillPlan()
        for counts in workers.ordered(survey, ((self.job, piece) for piece in self._pieces)):
            plan.register_piece(counts)
            self._update(surveyed=self._status.surveyed + 1)
        return plan

    def _rounds(self, plan: BackfillPlan, done: int) -> list[PlanRound]:
        policy, schema = self._policies.of(self.job.model), self.job.schema
        reference = self._registry.metrics["reference"]
        first = policy.options("reference", reference.plugin).get("reference_windows", 0)
        width = len(schema.features) + len(schema.classes) + len(schema.segments) + 4
        return plan.rounds(done, first, policy.sample_rows, 8 * width, policy.config.limits.sample_bytes)

    def _run_round(
        self, plan: BackfillPlan, round_: PlanRound, runner: EngineRunner, workers: WorkerPool, writer: _ReportWriter
    ) -> None:
        engine, job = runner.engine, self.job
        profile = engine.references.of(job.key, job.schema)
        job = replace(job, reference=None if profile is None else profile.to_bytes())
        low, high, period = round_.windows[0], round_.windows[-1], job.periods.newest
        open_ = {start: OpenWindow(start, start + period, schema=job.schema) for start in round_.windows}
        last = plan.last_places(round_)
        waiting = list(reversed(round_.windows))
        calls = [(job, place, self._pieces[place], low, high) for place in round_.pieces]
        for done, result in enumerate(workers.ordered(compute, calls), 1):
            self._merge(result, open_, runner)
            while waiting and last[waiting[-1]] <= done:
                window = open_.pop(waiting.pop())
                planned = plan.window_rows[window.start]
                tallied = sum(tally.received + sum(tally.rejected.values()) for tally in window.tallies.values())
                if tallied != planned:
                    raise ConfigurationError(
                        f"the files changed while they were read: window {window.start} has {tallied} rows, "
                        f"and had {planned}; use files that nobody writes to"
                    )
                engine.close(job.key, window)
                for closed in runner.run_until(lambda: engine.idle):
                    writer.write(closed)
                self._update(written=writer.progress.closed)
            self._update(rows=self._status.rows + sum(result.rows.values()) + sum(result.rejected.values()))

    def _merge(self, result: PieceResult, open_: dict[int, OpenWindow], runner: EngineRunner) -> None:
        for (start, agent), rows in result.rows.items():
            open_[start].tally(agent).received += rows
        for (start, agent, reason), rows in result.rejected.items():
            open_[start].tally(agent).add("rejected", rows, reason)
        for start, data in result.checkpoints.items():
            runner.engine.restore(self.job.key, open_[start], checkpoint_codec.decode(data, self.job.schema))
        runner.run_until(lambda: runner.engine.idle)

    def _sink(self) -> Sink:
        """Return the sink that writes a collector's files."""
        table = {key: value for key, value in self._sinks.items() if key != "enabled"}
        config = replace(self.job.config, sinks={DEFAULT_SINK: {**table, **FOREVER}})
        sink = load_plugins(config).sinks[DEFAULT_SINK]
        sink.open()
        return sink

    def _digest(self) -> str:
        """Return a digest of the files as they are, and of every option that changes what is written."""
        job, policy = self.job, self._policies.of(self.job.model)
        parts = [job.layout, job.schema, job.key, job.agent, job.config.metrics, job.config.models.get(job.model),
                 job.config.plugins, policy.rules, policy.sample_rows, self._sinks,
                 policy.reference and policy.reference.digest]  # fmt: skip
        for path in dict.fromkeys(piece.path for piece in self._pieces):
            stat = path.stat()
            parts.append((str(path), stat.st_size, stat.st_mtime_ns))
        # Class names are part of it: 0.1.0 said Rules, and its unfinished backfills must resume.
        return blake2b(repr(parts).replace("WindowRules(", "Rules(").encode(), digest_size=16).hexdigest()

    def _update(self, **changed: int) -> None:
        self._status = self._status._replace(**changed, seconds=time.monotonic() - self._began)
        self._report(self._status)


class _ReportWriter:
    """Writes one file a window, in order."""

    def __init__(self, sink: Sink, progress: BackfillProgress) -> None:
        self.sink = sink
        self.progress = progress

    def write(self, closed: ClosedWindow) -> None:
        """Write the file, then the progress. After a crash between the two the same file is written again."""
        progress = self.progress
        report = Report(progress.first + progress.closed, *closed.model, closed.window, closed.points, closed.rows, {})
        if closed.points:
            try:
                self.sink.write(report)
            except RetryLater as error:
                raise BackfillStopped(f"{error}; make room, then rerun the same command to resume") from None
        progress.closed += 1
        progress.memory.update(closed.memory)
        progress.save()
