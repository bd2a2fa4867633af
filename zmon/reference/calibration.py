"""Isotonic calibration of each class's probability from mergeable counts, used where it lowers the error. Pure.

Rows are counted in narrow bins of the probability (rows, Σp, hits). The fit is the isotonic regression of the bins'
hit rates on their mean probabilities by pooling adjacent violators (Ayer et al., 1955), evaluated by interpolation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zmon.batch import Array

BINS = 512  # of the probability of one class
ECE_BINS = 15
LEAST = 200  # labelled rows


class Knots(NamedTuple):
    """A monotone map of probabilities, by interpolation between points."""

    x: Array
    y: Array

    def of(self, p: Array) -> Array:
        return np.interp(p, self.x, self.y)


def isotonic(x: Array, y: Array, weight: Array) -> Knots:
    """Return the non-decreasing map nearest to `y` in weighted least squares; `x` ascends.

    >>> isotonic(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.6, 0.4]), np.ones(3)).y.tolist()
    [0.0, 0.5, 0.5]
    """
    level: list[float] = []
    mass: list[float] = []
    length: list[int] = []
    for value, w in zip(y.tolist(), weight.tolist(), strict=True):
        level.append(value)
        mass.append(w)
        length.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            both = mass[-2] + mass[-1]
            level[-2] = (level[-2] * mass[-2] + level[-1] * mass[-1]) / both
            mass[-2], length[-2] = both, length[-2] + length[-1]
            del level[-1], mass[-1], length[-1]
    return Knots(x, np.repeat(level, length))


def tally(p: Array, hit: Array, edges: Array) -> Array:
    """Return (3, bins): rows, Σp and hits of one class in each bin of its probability."""
    where = np.searchsorted(edges, p)
    bins = len(edges) + 1
    return np.stack([np.bincount(where, weights, bins) for weights in (None, p, hit)])


def fit(halves: Array) -> Knots | None:
    """Fit the map of one class to the tallies of two random halves of the rows, (2, 3, bins).

    Each half evaluates the map fitted on the other: None if that does not lower the calibration error.
    """
    if halves[:, 0].sum(axis=1).min() < LEAST / 2:
        return None
    raw = calibrated = 0.0
    for half, other in ((halves[0], halves[1]), (halves[1], halves[0])):
        raw += ece(half, None)
        calibrated += ece(half, _fitted(other))
    return _fitted(halves.sum(axis=0)) if calibrated < raw else None


def ece(counted: Array, knots: Knots | None) -> float:
    """Return the expected calibration error of one class against the rest, over 15 equal-width bins of probability."""
    rows, total, hits = counted[:, counted[0] > 0]
    confidence = total / rows
    if knots is not None:
        confidence = knots.of(confidence)
    where = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.bincount(where, hits - confidence * rows, ECE_BINS)
    return float(np.abs(gap).sum() / rows.sum())


def _fitted(counted: Array) -> Knots:
    rows, total, hits = counted[:, counted[0] > 0]
    return isotonic(total / rows, hits / rows, rows)
