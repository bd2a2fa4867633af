"""One model of written files: its panels as on the live page, its movers, the chart of one feature. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zmon_collector.dashboard import figures, panels
from zmon_collector.dashboard.figures import Figure
from zmon_collector.dashboard.movers import Movers, rank_movers
from zmon_collector.dashboard.timeseries import TimeSeries, select


class WrittenModel:
    """The series of one model and version.

    Parameters
    ----------
    series : sequence of TimeSeries
        Those of all models.
    model, version : str
    """

    def __init__(self, series: Sequence[TimeSeries], model: str, version: str) -> None:
        self.series = [ts for ts in series if (ts.get("model"), ts.get("model_version")) == (model, version)]
        self._versions = select(series, panels.SHARED_WHAT, model=(model,), agent_id=None)
        self._rollup = [ts for ts in self.series if not ts.get("agent_id")]

    @property
    def period(self) -> int:
        """Seconds of a window: the smallest distance between two of them."""
        times = np.unique(np.concatenate([ts.times for ts in self.series])) if self.series else np.empty(0)
        return int(np.diff(times).min()) if len(times) > 1 else 1

    def panels(self) -> list[panels.Panel]:
        """Return the panels of the live page."""
        replicas = [ts for ts in self.series if ts.get("agent_id")]
        return panels.model_panels(self._rollup, replicas, self._versions, self.period)

    def movers(self) -> Movers | None:
        """Rank the features; return None for a model without features."""
        return rank_movers(self._rollup)

    def feature(self, name: str) -> Figure | None:
        """Draw a feature: bands between the quantiles of a numeric one, shares of the categories of another."""
        values = select(self._rollup, "feature_value", feat_name=name, segment_name=None)
        shares = select(self._rollup, "feature_freq", feat_name=name, segment_name=None)
        return figures.bands(values) or figures.shares(shares, "category")
