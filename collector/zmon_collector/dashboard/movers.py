"""Features ranked by how far they moved: by drift against the reference, else by the shift of their mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmon_collector.dashboard.timeseries import Times, TimeSeries, Values, align, select


@dataclass(frozen=True, slots=True)
class Movers:
    """Scores of features by window.

    Attributes
    ----------
    kind : str
        ``"psi"``, or ``"shift"`` in standard deviations.
    scores : ndarray
        (features, windows); NaN where a window has none.
    order : ndarray of int
        Indexes of features, the one that moved most first.
    peak, now : ndarray
        The score furthest from 0, and the newest one.
    """

    kind: str
    names: list[str]
    times: Times
    scores: Values
    order: NDArray[np.intp]
    peak: Values
    now: Values


def rank_movers(series: Sequence[TimeSeries]) -> Movers | None:
    """Rank the rollup's features; return None without features.

    The shift is (mean − m) / s, where m is the median over the windows of the feature's mean, and s² the median
    variance within windows plus the variance of the means between them: so it stays finite for a pixel that was always
    dark.
    """
    drift = select(series, "feature_drift", feat_name="*", stat="psi", agent_id=None, segment_name=None)
    if drift:
        times, scores = align(drift)
        return _ranked("psi", [ts.get("feat_name") for ts in drift], times, scores)
    means = select(series, "feature_value", feat_name="*", stat="mean", agent_id=None, segment_name=None)
    if not means:
        return None
    times, values = align(means)
    deviations = select(series, "feature_value", feat_name="*", stat="std", agent_id=None, segment_name=None)
    spread = {ts.get("feat_name"): ts for ts in deviations}
    names = [ts.get("feat_name") for ts in means]
    within = np.array([float(np.median(spread[name].values)) if name in spread else 0.0 for name in names])
    scale = np.sqrt(within**2 + np.nanvar(values, axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = (values - np.nanmedian(values, axis=1, keepdims=True)) / scale[:, None]
    scores[~(scale > 0)] = np.where(np.isnan(values[~(scale > 0)]), np.nan, 0.0)
    return _ranked("shift", names, times, scores)


def _ranked(kind: str, names: list[str], times: Times, scores: Values) -> Movers:
    absolute = np.nan_to_num(np.abs(scores))
    where = absolute.argmax(axis=1)
    peak = np.nan_to_num(scores[np.arange(len(names)), where])
    now = np.array([row[~np.isnan(row)][-1] if (~np.isnan(row)).any() else np.nan for row in scores])
    order = np.argsort(-np.abs(peak), kind="stable")
    return Movers(kind, names, times, scores, order, peak, now)
