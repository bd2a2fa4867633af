"""From batches to a reference profile: a sketch determines the bins, a second pass counts every row in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from zmon.batch import Array, Batch
from zmon.reference import bins, calibration
from zmon.reference.document import Profile
from zmon.reference.sketch import Sketch
from zmon.reference.tables import Categorical, Numeric, Own

WINDOW_ROWS = 1000
CALIBRATED = 100  # classes; with more, probabilities are used as they are
BINNED = 50  # categories that have their own bin
NAMED = 1000  # categories that a profile names


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
            sketch = sketch or Sketch(batch.schema)
            sketch.add(batch)
    if sketch is None or not sketch.rows:
        raise ValueError("there are no rows")
    counting = Counting(sketch, window_rows)
    for batch in read():
        counting.add(batch)
    return counting.profile()


def score_of(batch: Batch) -> tuple[str, Array] | None:
    """Return one number per row for its prediction: its highest probability, or the value of a regression."""
    if "probabilities" in batch.columns and batch.schema.task == "classification":
        return "max_prediction_proba", batch.probabilities.max(axis=1).astype(np.float64)
    if batch.schema.task == "regression" and "predictions" in batch.columns:
        return "prediction_value", batch.predictions.astype(np.float64)
    return None


class Counting:
    """Second pass: exact counts in the bins determined by the sample of a sketch of all rows. Mergeable."""

    def __init__(self, sketch: Sketch, window_rows: int = WINDOW_ROWS) -> None:
        self._sketch = sketch
        self._schema = sketch.schema
        self._window_rows = window_rows
        self._numeric, self._score, self._edges = _planned(sketch)
        self._counts, self._scores = np.zeros_like(self._numeric.counts), np.zeros_like(self._score.counts)
        self._predicted, self._labels = np.zeros((2, len(self._schema.classes)), dtype=np.int64)
        self._halves = [np.zeros((2, 3, len(edges) + 1)) for edges in self._edges]
        self._random = np.random.default_rng(1)
        self._columns = self._numeric.names + self._score.names
        self._windows = 0
        self._windowed = 0  # rows in them
        self._mean, self._m2 = np.zeros((2, len(self._columns)))

    def add(self, batch: Batch) -> None:
        """Add rows."""
        batch = batch.aligned(self._schema)
        held = batch.columns
        if "predicted" in held:
            self._predicted += np.bincount(batch.predicted, minlength=len(self._predicted))
        if "labels" in held and self._schema.task == "classification":
            labelled = batch.labels >= 0
            self._labels += np.bincount(batch.labels[labelled], minlength=len(self._labels))
            if "probabilities" in held and self._edges:
                self._calibrate(batch.probabilities[labelled].astype(np.float64), batch.labels[labelled])
        for start in range(0, batch.rows, self._window_rows):
            self._count(batch.take(slice(start, start + self._window_rows)))

    def _calibrate(self, p: Array, labels: Array) -> None:
        half = self._random.random(len(labels)) < 0.5
        for c, edges in enumerate(self._edges):
            for side, rows in enumerate((half, ~half)):
                self._halves[c][side] += calibration.tally(p[rows, c], labels[rows] == c, edges)

    def _count(self, batch: Batch) -> None:
        """Count the rows of one of the reference's own windows, even if a batch's end cut it short."""
        indices = []
        if "inputs" in batch.columns:
            counts = bins.count(batch.inputs, self._numeric.edges)
            self._counts += counts
            indices.append(bins.psi(self._numeric.bins, counts))
        score = score_of(batch)
        if score is not None and self._score.names:
            counts = bins.count(score[1][:, np.newaxis], self._score.edges)
            self._scores += counts
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
        """Add what another one counted by the same sketch."""
        self._predicted += other._predicted
        self._labels += other._labels
        self._counts += other._counts
        self._scores += other._scores
        for half, more in zip(self._halves, other._halves, strict=True):
            half += more
        both = max(1, self._windows + other._windows)
        delta = other._mean - self._mean
        self._m2 += other._m2 + delta * delta * self._windows * (other._windows / both)
        self._mean += delta * (other._windows / both)
        self._windows += other._windows
        self._windowed += other._windowed

    def profile(self) -> Profile:
        """Return the profile of all rows."""
        sketch, own_windows = self._sketch, None
        if self._windows >= 2:
            std = np.sqrt(self._m2 / self._windows)
            own_windows = Own(
                self._windows,
                self._windowed / self._windows,
                dict(zip(self._columns, self._mean.tolist(), strict=True)),
                dict(zip(self._columns, std.tolist(), strict=True)),
            )
        calibrated = None
        if self._edges and self._labels.sum() >= calibration.LEAST:
            calibrated = tuple(map(calibration.fit, self._halves))
        elif len(self._labels) > CALIBRATED and self._labels.sum() >= calibration.LEAST:
            calibrated = (None,) * len(self._labels)
        return Profile(
            schema=replace(self._schema, tags={}, segments=()),
            rows=sketch.rows,
            numeric=replace(self._numeric, counts=self._counts),
            categorical=tuple(_categorical(sketch, i) for i in range(len(self._schema.categorical))),
            score=replace(self._score, counts=self._scores) if self._score.names else None,
            predicted=self._predicted if self._predicted.any() else None,
            labels=self._labels if self._labels.any() else None,
            calibration=calibrated,
            own=own_windows,
            error=sketch.error,
        )


def _planned(sketch: Sketch) -> tuple[Numeric, Numeric, list[Array]]:
    """Return the bins of the inputs, of the score and of each class's probability, counted on the sample.

    Without a score its table has no column.
    """
    sample = sketch.sample
    columns = len(sketch.schema.numeric)
    held = sample.columns if sample is not None else frozenset()
    inputs = sample.inputs if sample is not None and "inputs" in held else np.empty((0, columns))
    std = np.sqrt(sketch.m2 / np.maximum(sketch.n, 1))
    moments = np.where(sketch.n > 0, [sketch.mean, std, sketch.low, sketch.high], np.nan)
    numeric = _table(sketch.schema.numeric, inputs, moments)
    score = None if sample is None else score_of(sample)
    if score is None:
        table = _table((), np.empty((0, 0)), np.empty((4, 0)))
    else:
        name, values = score
        values = values[np.isfinite(values)]  # the sample may hold rows of batches without outputs
        moments = np.array([[values.mean()], [values.std()], [values.min()], [values.max()]])
        table = _table((name,), values[:, np.newaxis], moments)
    edges: list[Array] = []
    if sample is not None and "probabilities" in held and len(sketch.schema.classes) <= CALIBRATED:
        p = sample.probabilities.astype(np.float64)
        p = p[np.isfinite(p).all(axis=1)]
        at = np.arange(1, calibration.BINS) / calibration.BINS
        edges = [np.unique(np.quantile(p[:, c], at)) for c in range(p.shape[1])]
    return numeric, table, edges


def _table(names: tuple[str, ...], values: Array, moments: Array) -> Numeric:
    """Make the table of columns from their sampled values and their mean, std, low and high, (4, columns)."""
    columns = values.astype(np.float64).T
    mean, std, low, high = moments
    edges = bins.stack_edges([bins.edges_of(c[~np.isnan(c)], float(s)) for c, s in zip(columns, std, strict=True)])
    grid = np.column_stack([bins.grid_of(c) for c in columns]) if names else np.empty((bins.GRID, 0))
    return Numeric(names, edges, bins.count(values, edges), grid, mean, std, low, high)


def _categorical(sketch: Sketch, column: int) -> Categorical:
    """Return the most frequent categories of a column with the rows of each; all others are one."""
    counts = sketch.categories[column]
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    named = np.array([counts[name] for name in ordered[:NAMED]], dtype=np.int64)
    other = sketch.other[column] + sum(counts[name] for name in ordered[NAMED:])
    return Categorical(sketch.schema.categorical[column], tuple(ordered[:NAMED]), named, other, sketch.missing[column])
