"""The history restates a window once labels of its predictions have come: series with ``basis = prediction_time``.

They never enter files or sinks, where time only moves forward. The rows are read in slices, on the database's
thread, and accumulated on the history's thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from zmon.bases import is_for
from zmon.batch import Array, Batch, Schema
from zmon.contract import Context, Metric, Point, Report, RowCounts, Window
from zmon_collector.clock import system_time
from zmon_collector.compute import segments
from zmon_collector.compute.accumulate import reads_late_labels
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.window_policy import WindowPolicy, unpack
from zmon_collector.plugins import Registry
from zmon_collector.storage import restatement_queue
from zmon_collector.storage.database import Database
from zmon_collector.storage.label_join import label_rows
from zmon_collector.storage.restatement_queue import Place, RestatementPiece, RestatementTarget
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

EVERY = 1.0  # seconds between two checks while nothing is due
PAUSE = 2.0  # times as long as a slice took, before the next: others need the history and the interpreter as well

Keep = Callable[[Callable[[], list[Report]], Callable[[bool], None]], None]


class Restater:
    """Restates windows whose predictions have received labels since, slice by slice.

    Parameters
    ----------
    database : Database
    keep : callable
        Computes reports on another thread and keeps them: ``keep(make, done)``. `done` is told whether they are kept;
        windows that are not stay marked, and are restated again when they have rested.
    registry : Registry
    policies : PolicyStore
    telemetry : Telemetry
    wall : callable
        Returns the time of the collector's clock.
    """

    def __init__(
        self,
        database: Database,
        keep: Keep,
        registry: Registry,
        policies: PolicyStore,
        telemetry: Telemetry,
        *,
        wall: Callable[[], float] = system_time,
    ) -> None:
        self._wall = wall
        self._database, self._keep, self._telemetry = database, keep, telemetry
        self._registry, self._policies = registry, policies
        self._editions = registry.editions()
        self._plugins = {name: state.plugin for name, state in registry.metrics.items()}
        self._busy, self._requested, self._next = False, 0.0, 0.0
        self._place: Place | None = None  # within a window
        self._open: Restatement | None = None  # of that window

    def turn(self, mono: float) -> None:
        """Request the next slice when it is time; called in every turn of a collector that has late labels."""
        if not self._busy and mono >= self._next:
            self._busy, self._requested = True, mono
            place, now = self._place, self._wall()
            self._database.submit(
                lambda connection: restatement_queue.read(place, now, connection), self._restate, failed=self._give_up
            )

    def _give_up(self, error: Exception) -> None:
        log.error("windows cannot be restated: %s", error)
        self._restate(([], None))

    def _restate(self, slices: tuple[list[RestatementPiece], Place | None]) -> None:
        pieces, self._place = slices
        if pieces:
            made: list[RestatementTarget] = []
            self._keep(lambda: self._reports(pieces, made), lambda kept: self._finish(made, kept))
        else:
            self._next, self._busy = time.monotonic() + EVERY, False

    def _reports(self, pieces: Iterable[RestatementPiece], made: list[RestatementTarget]) -> list[Report]:
        """Accumulate slices; return the reports of the windows that are complete with them, and add these to `made`."""
        reports = []
        for piece in pieces:
            window = self._begin(piece.target) if piece.first else self._open
            self._open = None
            if window is None:  # it failed in an earlier slice
                continue
            window.add_rows(piece.rows)
            if piece.last:
                reports.append(window.report())
                made.append(piece.target)
            else:
                self._open = window
        return reports

    def _begin(self, target: RestatementTarget) -> Restatement:
        policy = self._policies.of(target.model[0]).for_windows(self._editions, self._plugins)
        if target.policy:  # else it opened under a release that did not note it, or the note is damaged
            with contextlib.suppress(ValueError, TypeError, KeyError):
                policy = unpack(target.policy, policy.ranks)
        metrics = [  # the built-in ones: another plugin might take its time
            state.metric
            for state in self._registry.by_executor()[""]
            if policy.metrics.get(state.metric.name) == self._editions[state.metric.name]
        ]
        return Restatement(target, policy, metrics)

    def _finish(self, made: list[RestatementTarget], kept: bool) -> None:
        if not kept:
            self._telemetry.count("restatements_failed")
        elif made:
            self._database.submit(lambda connection: restatement_queue.finish(made, connection))
        now = time.monotonic()
        self._next, self._busy = now + PAUSE * (now - self._requested), False


class Restatement:
    """The metrics of labels over a window's rows with an id, as far as these have labels by now.

    Parameters
    ----------
    target : RestatementTarget
    policy : WindowPolicy
        The settings with which the window opened.
    metrics : iterable of Metric
        Those that the window opened with.
    """

    def __init__(self, target: RestatementTarget, policy: WindowPolicy, metrics: Iterable[Metric[Any]]) -> None:
        self._target, self._policy = target, policy
        self._schema = Schema(target.task, target.classes)
        self._window = Window(target.start, target.end)
        self._metrics = [metric for metric in metrics if reads_late_labels(metric) and is_for(metric, target.task)]
        self._rows: Counter[str] = Counter()
        self._accumulators: dict[tuple[str, str], Any] = {}  # by metric and agent

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Accumulate further rows of the window."""
        for agent, batch in _batches(rows, self._schema):
            self._rows[agent] += batch.rows
            for metric in self._metrics:
                key = metric.name, agent
                if metric.needs <= batch.columns:
                    context = self._context(metric, agent)
                    if key not in self._accumulators:
                        self._accumulators[key] = metric.create(context)
                    self._accumulators[key] = metric.update(self._accumulators[key], batch, context)

    def report(self) -> Report:
        """Return the window's report."""
        rows = {agent: RowCounts(received=received) for agent, received in self._rows.items()}
        points: list[Point] = []
        for metric in self._metrics:
            points += [point for point in self._points(metric) if self._policy.emits(metric, point.value)]
        return Report(0, *self._target.model, self._window, points, rows)

    def _points(self, metric: Metric[Any]) -> Iterator[Point]:
        accumulators = []
        for agent in self._rows:
            accumulator = self._accumulators.pop((metric.name, agent), None)
            if accumulator is None:
                continue
            for value in metric.result(accumulator, self._context(metric, agent)):
                yield Point(agent, value)
            accumulators.append(accumulator)
        if accumulators:
            for value in metric.result(segments.merged(metric, accumulators), self._context(metric, None)):
                yield Point(None, value)

    def _context(self, metric: Metric[Any], agent: str | None) -> Context:
        options = self._policy.options.get(metric.name, {})
        return Context(*self._target.model, agent, self._schema, self._window, options=options)


def _batches(rows: Iterable[Sequence[Any]], schema: Schema) -> Iterator[tuple[str, Batch]]:
    """Yield rows by agent, those with probabilities of one kind together, in their order: slices change nothing."""
    groups: dict[tuple[str, str, int], list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        groups[row[1], row[4], len(row[5])].append(row)
    missing: Any = float("nan") if schema.task == "regression" else -1
    if schema.task == "multilabel":
        missing = np.full(len(schema.classes), -1, np.int8).tobytes()
    for (agent, kind, _), group in groups.items():
        labels = [missing if row[3] is None else row[3] for row in group]
        columns: dict[str, Array] = {}
        if schema.task == "multilabel":
            columns["labels"] = label_rows(labels)
        else:
            columns |= {"predictions": np.array([row[2] for row in group]), "labels": np.array(labels)}
        if kind:
            columns["probabilities"] = np.frombuffer(b"".join(row[5] for row in group), kind).reshape(len(group), -1)
        yield agent, Batch(schema, columns, len(group))
