"""The history restates a window once labels of its predictions have come: series with ``basis = prediction_time``.

They never enter files or sinks, where time only moves forward.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from zmon.bases import is_for, wants_late_labels
from zmon.batch import Array, Batch, Schema
from zmon.contract import Context, Metric, Point, Report, RowCounts, Window
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import MetricState, Registry
from zmon_collector.storage import restatement_queue
from zmon_collector.storage.database import Database
from zmon_collector.storage.restatement_queue import Place, RestatementPiece, RestatementTarget

EVERY = 1.0  # seconds between two looks while nothing is due
PAUSE = 2.0  # times as long as a slice took, before the next: others use the history and the interpreter, too


class Restater:
    """Now and again restates windows whose predictions have got labels since, slice by slice.

    Parameters
    ----------
    database : Database
    keep : callable
        Computes reports on another thread and keeps them: ``keep(make, done)``.
    registry : Registry
    policies : PolicyStore
    """

    def __init__(
        self,
        database: Database,
        keep: Callable[[Callable[[], list[Report]], Callable[[], None]], None],
        registry: Registry,
        policies: PolicyStore,
    ) -> None:
        self._database, self._keep = database, keep
        self._begin = partial(Restatement, registry=registry, policies=policies)
        self._busy, self._asked, self._next = False, 0.0, 0.0
        self._place: Place | None = None  # within a window
        self._open: Restatement | None = None  # of that window

    def turn(self, mono: float) -> None:
        """Called at every turn of a collector that knows late labels."""
        if not self._busy and mono >= self._next:
            self._busy, self._asked = True, mono
            place, now = self._place, time.time()
            self._database.submit(lambda connection: restatement_queue.read(place, now, connection), self._found)

    def _found(self, found: tuple[list[RestatementPiece], Place | None]) -> None:
        pieces, self._place = found
        if pieces:
            self._keep(lambda: self._reports(pieces), lambda: self._over(pieces))
        else:
            self._next, self._busy = time.monotonic() + EVERY, False

    def _reports(self, pieces: Iterable[RestatementPiece]) -> list[Report]:
        """Take slices in; the reports of windows that are whole by them."""
        reports = []
        for piece in pieces:
            window, self._open = self._begin(piece.target) if piece.first else self._open, None
            if window is None:  # it broke in an earlier slice
                continue
            window.add(piece.rows)
            if piece.last:
                reports.append(window.report())
            else:
                self._open = window
        return reports

    def _over(self, pieces: Iterable[RestatementPiece]) -> None:
        whole = [piece.target for piece in pieces if piece.last]
        if whole:
            self._database.submit(lambda connection: restatement_queue.finish(whole, connection))
        now = time.monotonic()
        self._next, self._busy = now + PAUSE * (now - self._asked), False


class Restatement:
    """What metrics of labels give over a window's rows with an id, as far as they have labels by now."""

    def __init__(self, target: RestatementTarget, registry: Registry, policies: PolicyStore) -> None:
        self._target, self._policies = target, policies
        self._schema = Schema(target.task, target.classes)
        self._window = Window(target.start, target.end)
        self._states = [  # a plugin of somebody else might take its time
            state
            for state in registry.lanes()[""]
            if "labels" in state.metric.needs | _more(state.metric) and is_for(state.metric, target.task)
        ]
        self._rows: Counter[str] = Counter()
        self._accumulators: dict[tuple[str, str], Any] = {}  # by metric and agent

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Further rows of the window."""
        for agent, batch in _batches(rows, self._schema):
            self._rows[agent] += batch.rows
            for state in self._states:
                metric, key = state.metric, (state.metric.name, agent)
                if metric.needs <= batch.columns:
                    context = self._context(state, agent)
                    known = self._accumulators[key] if key in self._accumulators else metric.create(context)
                    self._accumulators[key] = metric.update(known, batch, context)

    def report(self) -> Report:
        model, policy = self._target.model, self._policies.of(self._target.model[0])
        rows = {agent: RowCounts(received=many) for agent, many in self._rows.items()}
        points = [
            point for state in self._states for point in self._points(state) if policy.emits(state.metric, point.value)
        ]
        return Report(0, *model, self._window, points, rows)

    def _points(self, state: MetricState) -> Iterator[Point]:
        metric, merged = state.metric, None
        for agent in self._rows:
            own = self._accumulators.pop((metric.name, agent), None)
            if own is None:
                continue
            for value in metric.result(own, self._context(state, agent)):
                yield Point(agent, value)
            merged = own if merged is None else metric.merge(merged, own)
        if merged is not None:
            for value in metric.result(merged, self._context(state, None)):
                yield Point(None, value)

    def _context(self, state: MetricState, agent: str | None) -> Context:
        model, version = self._target.model
        options = self._policies.of(model).options(state.metric.name, state.plugin)
        return Context(model, version, agent, self._schema, self._window, options=options)


def _more(metric: Metric[Any]) -> frozenset[str]:
    return frozenset({"labels"}) if wants_late_labels(metric) else frozenset()


def _batches(rows: Iterable[Sequence[Any]], schema: Schema) -> Iterator[tuple[str, Batch]]:
    """Rows by agent, those with probabilities of one kind together; as they came, so that slices change nothing."""
    groups: dict[tuple[str, str, int], list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        groups[row[1], row[4], len(row[5])].append(row)
    missing = float("nan") if schema.task == "regression" else -1
    for (agent, kind, _), found in groups.items():
        labels = [missing if row[3] is None else row[3] for row in found]
        columns: dict[str, Array] = {"predictions": np.array([row[2] for row in found]), "labels": np.array(labels)}
        if kind:
            columns["probabilities"] = np.frombuffer(b"".join(row[5] for row in found), kind).reshape(len(found), -1)
        yield agent, Batch(schema, columns, len(found))
