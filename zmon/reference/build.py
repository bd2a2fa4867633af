"""From batches to a reference profile: a sketch determines the bins, a second pass counts every row in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from zmon.batch import Array, Batch, Schema
from zmon.reference import bins, calibration
from zmon.reference.document import Profile
from zmon.reference.sketch import Sketch
from zmon.reference.tables import Categorical, Numeric, Own

WINDOW_ROWS = 1000
CALIBRATED = 100  # classes; with more, probabilities are used as they are
BINNED = 50  # categories that have their own bin


def from_batches(
    read: Callable[[], Iterable[Batch]], *, window_rows: int = WINDOW_ROWS, sketch: Sketch | None = None
) -> Profile:
    """Make the profile of all rows that `read` returns; it is called twice.

    Parameters
    ----------
    read : callable
        Returns batches of one schema; later batches may lack columns.
    window_rows : int
        Rows per window of the reference itself; the windows serve to learn thresholds.
    sketch : Sketch, optional
        Of the same rows, if the first pass was already made, perhaps in parts that were merged.

    Raises
    ------
    ValueError
        There are no rows.
    """
    if sketch is None:
        for batch in read():
            if sketch is None:
                sketch = Sketch(batch.schema)
            sketch.add(batch)
    if sketch is None or not sketch.rows:
        raise ValueError("there are no rows")
    counting = Counting(sketch, window_rows)
    for batch in read():
        counting.add(batch)
    return counting.profile()


def score_of(batch: Batch) -> tuple[str, Array] | None:
    """Return one number per row for its prediction: its highest probability, or the value of a regression."""
    if "probabilities" in batch.columns:
        return "max_prediction_proba", batch.probabilities.max(axis=1).astype(np.float64)
    if batch.schema.task == "regression" and "predictions" in batch.columns:
        return "prediction_value", batch.predictions.astype(np.float64)
    return None


class Counting:
    """Second pass: exact counts in the bins determined by the sketch's sample. Mergeable.

    `sketch` must be complete, over all rows.
    """

    def __init__(self, sketch: Sketch, window_rows: int = WINDOW_ROWS) -> None:
        self._sketch = sketch
        schema = self.schema = sketch.schema
        classes = len(schema.classes)
        self._window_rows = window_rows
        self._numeric, self._score, self._edges = _planned(sketch)
        self.predicted = np.zeros(classes, dtype=np.int64)
        self.labels = np.zeros(classes, dtype=np.int64)
        self.counts = np.zeros_like(self._numeric.counts)
        self.scores = None if self._score is None else np.zeros_like(self._score.counts)
        self.halves = [np.zeros((2, 3, len(edges) + 1)) for edges in self._edges]
        self._random = np.random.default_rng(1)
        self._windows = 0
        self._windowed = 0  # rows in them
        self._mean, self._m2 = np.zeros(len(self._columns)), np.zeros(len(self._columns))

    @property
    def _columns(self) -> tuple[str, ...]:
        return self._numeric.names + (() if self._score is None else self._score.names)

    def add(self, batch: Batch) -> None:
        """Add rows."""
        batch = batch.aligned(self.schema)
        held = batch.columns
        if "predicted" in held:
            self.predicted += np.bincount(batch.predicted, minlength=len(self.predicted))
        if "labels" in held and self.schema.task == "classification":
            labelled = batch.labels >= 0
            self.labels += np.bincount(batch.labels[labelled], minlength=len(self.labels))
            if "probabilities" in held and self._edges:
                self._calibrate(batch.probabilities[labelled].astype(np.float64), batch.labels[labelled])
        for start in range(0, batch.rows, self._window_rows):
            self._count(batch.take(slice(start, start + self._window_rows)))

    def _calibrate(self, p: Array, labels: Array) -> None:
        half = self._random.random(len(labels)) < 0.5
        for c, edges in enumerate(self._edges):
            for side, rows in enumerate((half, ~half)):
                self.halves[c][side] += calibration.tally(p[rows, c], labels[rows] == c, edges)

    def _count(self, batch: Batch) -> None:
        """Count the rows of one of the reference's own windows, even if a batch's end cut it short."""
        indices = []
        if "inputs" in batch.columns:
            counts = bins.count(batch.inputs, self._numeric.edges)
            self.counts += counts
            indices.append(bins.psi(self._numeric.bins, counts))
        elif self._numeric.names:
            return
        score = score_of(batch)
        if score is not None and self._score is not None and self.scores is not None:
            counts = bins.count(score[1][:, np.newaxis], self._score.edges)
            self.scores += counts
            indices.append(bins.psi(self._score.bins, counts))
        values = np.concatenate(indices) if indices else np.empty(0)
        if len(values) != len(self._columns) or batch.rows < self._window_rows // 2:
            return
        self._windows += 1
        self._windowed += batch.rows
        delta = values - self._mean
        self._mean += delta / self._windows
        self._m2 += delta * (values - self._mean)

    def merge(self, other: Counting) -> None:
        """Add the counts of another pass with the same sketch."""
        self.predicted += other.predicted
        self.labels += other.labels
        self.counts += other.counts
        if self.scores is not None and other.scores is not None:
            self.scores += other.scores
        for half, addend in zip(self.halves, other.halves, strict=True):
            half += addend
        both = max(1, self._windows + other._windows)
        delta = other._mean - self._mean
        self._m2 += other._m2 + delta * delta * self._windows * (other._windows / both)
        self._mean += delta * (other._windows / both)
        self._windows += other._windows
        self._windowed += other._windowed

    def profile(self) -> Profile:
        """Return the profile of all rows."""
        sketch, own = self._sketch, None
        if self._windows >= 2:
            std = np.sqrt(self._m2 / self._windows)
            own = Own(
                self._windows,
                self._windowed / self._windows,
                dict(zip(self._columns, self._mean.tolist(), strict=True)),
                dict(zip(self._columns, std.tolist(), strict=True)),
            )
        calibrated = None
        if self._edges and self.labels.sum() >= calibration.LEAST:
            calibrated = tuple(map(calibration.fit, self.halves))
        elif len(self.labels) > CALIBRATED and self.labels.sum() >= calibration.LEAST:
            calibrated = (None,) * len(self.labels)
        return Profile(
            schema=Schema(
                self.schema.task, self.schema.classes, self.schema.features, self.schema.kinds, self.schema.threshold
            ),
            rows=sketch.rows,
            numeric=replace(self._numeric, counts=self.counts),
            categorical=tuple(_categorical(sketch, i) for i in range(len(self.schema.categorical))),
            score=None if self._score is None or self.scores is None else replace(self._score, counts=self.scores),
            predicted=self.predicted if self.predicted.any() else None,
            labels=self.labels if self.labels.any() else None,
            calibration=calibrated,
            own=own,
            error=sketch.error,
        )


def _planned(sketch: Sketch) -> tuple[Numeric, Numeric | None, list[Array]]:
    """Return the bins of the inputs, of the score and of each class's probability, counted on the sample."""
    sample = sketch.sample
    columns = len(sketch.schema.numeric)
    held = sample.columns if sample is not None else frozenset()
    inputs = sample.inputs if sample is not None and "inputs" in held else np.empty((0, columns))
    std = np.sqrt(sketch.m2 / np.maximum(sketch.n, 1))
    moments = np.where(sketch.n > 0, [sketch.mean, std, sketch.low, sketch.high], np.nan)
    numeric = _table(sketch.schema.numeric, inputs, moments)
    score = None if sample is None else score_of(sample)
    table = None
    if score is not None:
        name, values = score
        moments = np.array([[values.mean()], [values.std()], [values.min()], [values.max()]])
        table = _table((name,), values[:, np.newaxis], moments)
    edges: list[Array] = []
    if sample is not None and "probabilities" in held and len(sketch.schema.classes) <= CALIBRATED:
        p = sample.probabilities.astype(np.float64)
        at = np.arange(1, calibration.BINS) / calibration.BINS
        edges = [np.unique(np.quantile(p[:, c], at)) for c in range(p.shape[1])]
    return numeric, table, edges


def _table(names: tuple[str, ...], values: Array, moments: Array) -> Numeric:
    """Make the table of columns from their sampled values and their mean, std, low and high, (4, columns)."""
    columns = list(_columns(values))
    mean, std, low, high = moments
    edges = bins.side_by_side([bins.edges_of(c[~np.isnan(c)], float(s)) for c, s in zip(columns, std, strict=True)])
    grid = np.column_stack([bins.grid_of(c) for c in columns]) if columns else np.empty((bins.GRID, 0))
    return Numeric(names, edges, bins.count(values, edges), grid, mean, std, low, high)


def _columns(values: Array) -> Iterator[Array]:
    for i in range(values.shape[1]):
        yield values[:, i].astype(np.float64)


def _categorical(sketch: Sketch, column: int) -> Categorical:
    names, counts, rest = sketch.named(column)
    return Categorical(
        sketch.schema.categorical[column], tuple(names), np.array(counts, dtype=np.int64), rest, sketch.missing[column]
    )
