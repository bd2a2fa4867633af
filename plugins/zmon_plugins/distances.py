"""Distances between a reference and a window, for many columns at once, and their size by chance alone. Pure.

Counts have the shape (bins, columns); −1 in the reference's counts marks a bin that a column does not have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zmon.batch import Array
from zmon.reference import bins

FALSE_ALARMS = 0.001  # share of windows in which chance alone exceeds the limit, over all columns together
LEAST_STD = 0.001
FEW = 1000  # rows; with more, every difference is significant and a p-value says nothing

# scipy.stats takes longer to import than a whole collector to start. So it is imported where it is used, by the first
# window that closes with a reference.

psi = bins.psi


def js(reference: Array, counts: Array) -> Array:
    """Return the Jensen–Shannon distance of each column, base 2, in [0, 1]; NaN without rows.

    >>> js(np.array([[10], [0]]), np.array([[0], [10]])).tolist()
    [1.0]
    """
    p, q = _shares(reference), _shares(np.where(reference >= 0, counts, 0))
    middle = (p + q) / 2
    with np.errstate(all="ignore"):
        parts = np.where(p > 0, p * np.log2(p / middle), 0) + np.where(q > 0, q * np.log2(q / middle), 0)
        distance: Array = np.sqrt(np.maximum(parts.sum(axis=0) / 2, 0.0))
    return np.where(np.isnan(p).any(axis=0) | np.isnan(q).any(axis=0), np.nan, distance)


def linf(reference: Array, counts: Array) -> Array:
    """Return the largest difference of a bin's shares."""
    distance: Array = np.abs(_shares(reference) - _shares(np.where(reference >= 0, counts, 0))).max(axis=0)
    return distance


def chi2(reference: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Return, for each column, χ² of the contingency table of two rows, its occupied bins, and its total.

    A category that the reference does not have makes χ² large, never infinite.
    """
    both = np.stack([np.maximum(reference, 0), np.where(reference >= 0, counts, 0)]).astype(np.float64)
    total = both.sum(axis=(0, 1))
    with np.errstate(all="ignore"):
        expected = both.sum(axis=0) * both.sum(axis=1)[:, np.newaxis] / total
        parts = np.where(expected > 0, (both - expected) ** 2 / expected, 0.0)
    return parts.sum(axis=(0, 1)), np.count_nonzero(both.sum(axis=0) > 0, axis=0), total


def cramers_v(reference: Array, counts: Array) -> Array:
    """Return Cramér's V, corrected for bias (Bergsma, 2013); NaN where fewer than two bins occur."""
    value, k, n = chi2(reference, counts)
    with np.errstate(all="ignore"):
        phi2 = np.maximum(0.0, value / n - (k - 1) / (n - 1))
        columns = k - (k - 1) ** 2 / (n - 1)
        rows = 2 - 1 / (n - 1)
        corrected: Array = np.sqrt(phi2 / np.minimum(columns - 1, rows - 1))
    return np.where((k > 1) & (n > 2), np.minimum(corrected, 1.0), np.nan)


def ks_and_wasserstein(sample: Array, grid: Array) -> tuple[float, float]:
    """Return Kolmogorov–Smirnov's D and the first Wasserstein distance between a sample and a grid of quantiles."""
    sample = np.sort(sample)
    points = np.sort(np.concatenate([sample, grid]))
    sample_cdf, grid_cdf = (np.searchsorted(values, points, side="right") / len(values) for values in (sample, grid))
    gap = np.abs(sample_cdf - grid_cdf)
    return float(gap.max()), float((gap[:-1] * np.diff(points)).sum())


def by_sample(values: Array, quantiles: Array, std: Array) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (column, {ks, wasserstein}) for columns with finite values on both sides, with ks_p if they are few."""
    from scipy.stats import kstwo

    for i in range(values.shape[1]):
        column = values[:, i].astype(np.float64)
        finite = column[np.isfinite(column)]
        grid = quantiles[:, i]
        if len(finite) and np.isfinite(grid).all():
            d, w = ks_and_wasserstein(finite, grid)
            distances = {"ks": d, "wasserstein": w / max(float(std[i]), LEAST_STD)}
            if len(finite) < FEW:
                n = max(1, round(len(finite) * len(grid) / (len(finite) + len(grid))))
                distances["ks_p"] = float(kstwo.sf(d, n))
            yield i, distances


def chance(reference: Array, counts: Array, tests: int) -> Array:
    """Return the PSI that rows of an unchanged distribution stay below, in all `tests` columns, in 99.9 % of windows.

    For such rows n N / (n + N) · PSI follows χ² with k − 1 degrees of freedom.
    """
    from scipy.stats import chi2 as chi2_distribution

    valid = reference >= 0
    n = np.maximum(np.where(valid, counts, 0).sum(axis=0), 1)
    total = np.maximum(np.where(valid, reference, 0).sum(axis=0), 1)
    occupied = np.count_nonzero(valid & ((reference > 0) | (counts > 0)), axis=0)
    quantile = chi2_distribution.isf(FALSE_ALARMS / max(1, tests), np.maximum(occupied - 1, 1))
    limit: Array = quantile * (1 / n + 1 / total)
    return limit


def _shares(counts: Array) -> Array:
    rows = np.maximum(counts, 0)
    with np.errstate(all="ignore"):
        shares: Array = rows / rows.sum(axis=0)
    return shares
