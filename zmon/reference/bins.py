"""The bins of a reference for numbers, and counts of rows in them. Pure.

The edges are the deciles of the reference, with open ends. Deciles that coincide are merged, and a value that covers
several of them gets its own bin, so that 0 and 1 of a column of ones, or a constant, stay apart from lower values.
Every edge is shifted by 2⁻²² of its size (at most σ/1000), so that training data in float64 and the same numbers in
float32 share their bins.
"""

from __future__ import annotations

import numpy as np

from zmon.batch import Array

DECILES = np.arange(1, 10) / 10
GRID = 256  # quantiles kept; they represent the distribution by as many equal parts
SLACK = 2.0**-22  # relative: four times the rounding of float32
BLOCK = 2**17  # values compared at a time, so that they stay in the processor's cache
POSITIONS = (np.arange(GRID) + 0.5) / GRID


def edges_of(values: Array, std: float) -> Array:
    """Return the inner edges, ascending, for one column's values without missing ones; bins are ``(edge, next edge]``.

    >>> edges_of(np.array([0.0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), 1.4).round(3).tolist()
    [-0.0, 0.0, 1.0, 2.0, 3.0]
    """
    if not len(values):
        return np.empty(0)
    deciles, times = np.unique(np.quantile(values, DECILES, method="inverted_cdf"), return_counts=True)
    finite = np.isfinite(deciles)
    deciles, times = deciles[finite], times[finite]
    slack = np.abs(deciles) * SLACK
    slack = np.where(std > slack, np.minimum(slack, std / 1000), slack)  # edges stay between values that vary
    above = deciles + slack
    below = np.minimum(deciles - slack, np.nextafter(deciles, -np.inf))[times > 1]
    return np.unique(np.concatenate([below, above]))


def stack_edges(edges: list[Array]) -> Array:
    """Return the edges of many columns as one (most edges, columns) array, filled up with ∞."""
    most = max((len(column) for column in edges), default=0)
    table = np.full((most, len(edges)), np.inf)
    for i, column in enumerate(edges):
        table[: len(column), i] = column
    return table


def count(values: Array, edges: Array) -> Array:
    """Count the rows in each bin: (edges + 2, columns) for an (n, columns) array, the last one for missing values.

    >>> count(np.array([[0.5], [1.5], [9.0], [np.nan]]), np.array([[1.0], [2.0]])).T.tolist()
    [[1, 1, 1, 1]]
    """
    columns = edges.shape[1]
    above = np.zeros((len(edges) + 1, columns), dtype=np.int64)
    missing = np.zeros(columns, dtype=np.int64)
    rows = max(1, BLOCK // max(1, columns))
    for start in range(0, len(values), rows):
        block = np.ascontiguousarray(values[start : start + rows], dtype=np.float64)
        missing += np.count_nonzero(np.isnan(block), axis=0)
        for i, edge in enumerate(edges):
            above[i + 1] += np.count_nonzero(block > edge, axis=0)
    above[0] = len(values) - missing
    return np.concatenate([above[:-1] - above[1:], above[-1:], missing[np.newaxis]])


def grid_of(values: Array) -> Array:
    """Return the quantiles of one column's finite values at the middle of `GRID` equal parts; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return np.quantile(finite, POSITIONS) if len(finite) else np.full(GRID, np.nan)


def psi(reference: Array, counts: Array) -> Array:
    """Return the population stability index of each column, Σ (p − q) ln(p / q), with shares (n_b + ½) / (N + k/2).

    Entries that only fill up shorter columns do not count as bins.
    """
    p, q = smoothed(reference, reference), smoothed(counts, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, (p - q) * np.log(p / q), 0.0)
    index: Array = parts.sum(axis=0)
    return index


def smoothed(counts: Array, like: Array) -> Array:
    """Return shares (n_b + ½) / (N + k/2) of each column of counts; 0 where the reference `like` has no bin (−1)."""
    present = like >= 0
    filled = np.where(present, counts, 0)
    return np.where(present, (filled + 0.5) / (filled.sum(axis=0) + 0.5 * present.sum(axis=0)), 0.0)


def masked(counts: Array, edges: Array) -> Array:
    """Return the counts of a reference, with −1 for bins that a column does not have."""
    inner = np.isfinite(edges).sum(axis=0)  # the column has bins 0 … inner, and the last one
    place = np.arange(len(counts))[:, np.newaxis]
    return np.where((place <= inner) | (place == len(counts) - 1), counts, -1)
