"""Mergeable moments and extremes of many columns at once, and quantiles. Pure.

Moments follow Chan, Golub and LeVeque (1979): means and sums of squared deviations are merged, never Σx².
"""

from __future__ import annotations

import numpy as np

from zmon.batch import Array

Moments = dict[str, Array]

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
# CLASSIC are the statistics of the earlier MLWatcher agent.
CLASSIC = ("mean", "median", "std", "range", "q25", "q50", "q75", "iqr")
FURTHER = ("min", "max", "q05", "q95", "q99")
STATS = (*CLASSIC, *FURTHER)
NARROW = 64  # columns
BLOCK = 2**17  # values processed at a time: 1 MiB as float64


def empty(columns: int) -> Moments:
    """Return the moments of no rows."""
    return {
        "n": np.zeros(columns, dtype=np.int64),
        "mean": np.zeros(columns),
        "m2": np.zeros(columns),
        "min": np.full(columns, np.inf),
        "max": np.full(columns, -np.inf),
    }


def of(values: Array) -> Moments:
    """Return the moments of each column of an (n, columns) float64 array."""
    block, axis = _arrange(values)
    with np.errstate(all="ignore"):  # infinite results are left out of reports
        total = block.sum(axis=axis)
    return _moments(block, block, total, np.empty_like(block), axis)


def tally(values: Array) -> tuple[Moments, Array, Array]:
    """Return each column's moments over its finite values, and its numbers of missing and infinite values.

    The (n, columns) array is processed in blocks that fit into the processor's cache, in float64 whatever its type.
    """
    columns = values.shape[1]
    moments, missing, infinite = empty(columns), np.zeros(columns, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    rows = min(max(1, BLOCK // max(1, columns)), len(values))
    space = np.empty((2, rows * columns))  # reused: fresh memory for every block would cost more than the computation
    for start in range(0, len(values), rows):
        raw, axis = _arrange(values[start : start + rows])
        block, buffer = (part[: raw.size].reshape(raw.shape) for part in space)
        np.copyto(block, raw, casting="unsafe")
        with np.errstate(all="ignore"):
            total = block.sum(axis=axis)
        if np.isfinite(total).all():
            new = _moments(raw, block, total, buffer, axis)
        else:
            excluded = ~np.isfinite(block)
            lacking = np.count_nonzero(excluded, axis=axis)
            absent = np.count_nonzero(np.isnan(block), axis=axis)
            missing += absent
            infinite += lacking - absent
            new = _finite_moments(block, buffer, excluded, block.shape[axis] - lacking, axis)
        moments = merge(moments, new)
    return moments, missing, infinite


def _arrange(values: Array) -> tuple[Array, int]:
    """Return the values in a layout that is fast to reduce, and the axis: few columns are stored one after another."""
    if values.shape[1] >= NARROW:
        return values, 0
    return np.ascontiguousarray(values.T), 1


def _moments(raw: Array, block: Array, total: Array, buffer: Array, axis: int) -> Moments:
    """Return the moments of a block with these column sums; `raw` has the values' own type, for extremes."""
    with np.errstate(all="ignore"):
        n = block.shape[axis]
        mean = total / n
        np.subtract(block, np.expand_dims(mean, axis), out=buffer)
        return {
            "n": np.full(len(mean), n, dtype=np.int64),
            "mean": mean,
            "m2": np.einsum("ij,ij->j" if axis == 0 else "ij,ij->i", buffer, buffer),
            "min": raw.min(axis=axis).astype(np.float64),
            "max": raw.max(axis=axis).astype(np.float64),
        }


def _finite_moments(block: Array, buffer: Array, excluded: Array, n: Array, axis: int) -> Moments:
    """Return the moments without the `excluded` entries, where `n` remain in each column. The block is overwritten."""
    with np.errstate(all="ignore"):
        np.copyto(block, 0.0, where=excluded)
        safe = np.maximum(n, 1)
        mean = block.sum(axis=axis) / safe
        if not np.isfinite(mean).all():  # finite values whose sum is too large
            mean = (block / np.expand_dims(safe, axis)).sum(axis=axis)
        np.subtract(block, np.expand_dims(mean, axis), out=buffer)
        np.copyto(buffer, 0.0, where=excluded)
        m2 = np.einsum("ij,ij->j" if axis == 0 else "ij,ij->i", buffer, buffer)
        np.copyto(block, np.inf, where=excluded)
        least = block.min(axis=axis)
        np.copyto(block, -np.inf, where=excluded)
        return {"n": n, "mean": mean, "m2": m2, "min": least, "max": block.max(axis=axis)}


def merge(left: Moments, right: Moments) -> Moments:
    """Return the moments of both together."""
    n = left["n"] + right["n"]
    safe = np.maximum(n, 1)
    with np.errstate(all="ignore"):
        delta = right["mean"] - left["mean"]
        both = left["mean"] + delta * (right["n"] / safe)
        if not np.isfinite(both).all():  # means so far apart that their difference is too large
            both = left["mean"] * (left["n"] / safe) + right["mean"] * (right["n"] / safe)
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


def quantiles(values: Array) -> dict[str, Array]:
    """Return the quantiles of each column's finite values, interpolated linearly like ``numpy.quantile``; or NaN."""
    ordered = np.array(values.T, dtype=np.result_type(values.dtype, np.float32), order="C")  # sorts twice as fast
    finite = np.isfinite(ordered)
    n = np.count_nonzero(finite, axis=1)
    if not finite.all():  # usually all are, and then nothing has to be replaced
        ordered[~finite] = np.nan  # sorts last
    ordered.sort(axis=1)
    columns = np.arange(len(ordered))
    result = {}
    for name, q in QUANTILES.items():
        if not ordered.shape[1]:
            continue
        position = q * np.maximum(n - 1, 0)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(n - 1, 0))
        share = position - low
        a, b = ordered[columns, low].astype(np.float64), ordered[columns, high].astype(np.float64)
        with np.errstate(all="ignore"):
            at = np.where(a == b, a, np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share)))
        result[name] = np.where(n > 0, at, np.nan)
    return result


def describe(moments: Moments, quantiles: dict[str, Array]) -> list[list[tuple[str, float]]]:
    """Return each column's (stat, value) pairs, without undefined ones. The quantiles come from the row sample."""
    n = moments["n"]
    with np.errstate(all="ignore"):
        values = {
            "mean": moments["mean"],
            "std": np.sqrt(moments["m2"] / np.maximum(n, 1)),
            "range": moments["max"] - moments["min"],
            "min": moments["min"],
            "max": moments["max"],
            **quantiles,
        }
        if quantiles:
            values["iqr"] = quantiles["q75"] - quantiles["q25"]
        names = [stat for stat in STATS if stat in values]
        table = np.array([values[stat] for stat in names]).T
        defined = np.isfinite(table) & (n > 0)[:, np.newaxis]
    return [
        [(stat, value) for stat, value, valid in zip(names, row, valids, strict=True) if valid]
        for row, valids in zip(table.tolist(), defined.tolist(), strict=True)
    ]
