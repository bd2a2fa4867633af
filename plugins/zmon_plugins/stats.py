"""Mergeable moments and extremes of many columns at once, and the quantiles that go with them. Pure.

Moments follow Chan, Golub and LeVeque (1979): means and sums of squared deviations are merged, never Σx².
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Moments = dict[str, Array]

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
# The statistics of the earlier MLWatcher agent, and those that go beyond it.
CLASSIC = ("mean", "median", "std", "range", "q25", "q50", "q75", "iqr")
FURTHER = ("min", "max", "q05", "q95", "q99")
STATS = (*CLASSIC, *FURTHER)


def empty(columns: int) -> Moments:
    """Moments of no rows."""
    return {
        "n": np.zeros(columns, dtype=np.int64),
        "mean": np.zeros(columns),
        "m2": np.zeros(columns),
        "min": np.full(columns, np.inf),
        "max": np.full(columns, -np.inf),
    }


def of(values: Array, finite: Array | None = None) -> Moments:
    """Moments of each column of an (n, columns) float64 array, over the entries marked in `finite` (None: all)."""
    with np.errstate(all="ignore"):  # infinite results are left out when they are reported
        if finite is None:
            mean = values.mean(axis=0)
            deviation = values - mean
            return {
                "n": np.full(values.shape[1], len(values), dtype=np.int64),
                "mean": mean,
                "m2": np.einsum("ij,ij->j", deviation, deviation),
                "min": values.min(axis=0),
                "max": values.max(axis=0),
            }
        n = finite.sum(axis=0)
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(n, 1)
        deviation = np.where(finite, values - mean, 0.0)
        return {
            "n": n.astype(np.int64),
            "mean": mean,
            "m2": np.einsum("ij,ij->j", deviation, deviation),
            "min": np.where(finite, values, np.inf).min(axis=0),
            "max": np.where(finite, values, -np.inf).max(axis=0),
        }


def merge(left: Moments, right: Moments) -> Moments:
    """Moments of both."""
    n = left["n"] + right["n"]
    safe = np.maximum(n, 1)
    with np.errstate(all="ignore"):
        delta = right["mean"] - left["mean"]
        both = left["mean"] + delta * (right["n"] / safe)
        mean = np.where(left["n"] == 0, right["mean"], np.where(right["n"] == 0, left["mean"], both))
        between = delta * delta * left["n"] * (right["n"] / safe)
        m2 = left["m2"] + right["m2"] + np.where((left["n"] == 0) | (right["n"] == 0), 0.0, between)
    return {
        "n": n,
        "mean": mean,
        "m2": m2,
        "min": np.minimum(left["min"], right["min"]),
        "max": np.maximum(left["max"], right["max"]),
    }


def quantiles(values: Array, finite: Array | None = None) -> dict[str, Array]:
    """The quantiles of each column, interpolated linearly as ``numpy.quantile`` does; NaN for an empty column."""
    ordered = np.array(values.T, dtype=np.float64, order="C")
    if finite is None:
        n = np.full(len(ordered), ordered.shape[1], dtype=np.int64)
    else:
        ordered[~finite.T] = np.nan  # sorts last
        n = finite.sum(axis=0)
    ordered.sort(axis=1)
    columns = np.arange(len(ordered))
    found = {}
    for name, q in QUANTILES.items():
        if name in found or not ordered.shape[1]:
            continue
        position = q * np.maximum(n - 1, 0)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(n - 1, 0))
        share = position - low
        a, b = ordered[columns, low], ordered[columns, high]
        with np.errstate(all="ignore"):
            at = np.where(a == b, a, np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share)))
        found[name] = np.where(n > 0, at, np.nan)
    return found


def describe(moments: Moments, found: dict[str, Array], column: int) -> Iterator[tuple[str, float]]:
    """(stat, value) of one column, undefined ones left out. `found` are its quantiles, from the row sample."""
    n = int(moments["n"][column])
    if n == 0:
        return
    low, high = float(moments["min"][column]), float(moments["max"][column])
    values = {
        "mean": float(moments["mean"][column]),
        "std": float(np.sqrt(moments["m2"][column] / n)),
        "range": high - low,
        "min": low,
        "max": high,
    }
    values.update({name: float(at[column]) for name, at in found.items()})
    if found:
        values["iqr"] = values["q75"] - values["q25"]
    for stat in STATS:
        if stat in values and np.isfinite(values[stat]):
            yield stat, values[stat]
