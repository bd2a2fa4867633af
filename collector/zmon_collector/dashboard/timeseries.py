"""Time series as the history, the files and the figures share them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]


class TimeSeries(NamedTuple):
    """One series: the names that identify it, and its values by window start in epoch seconds, ascending."""

    names: Mapping[str, str]
    times: Times
    values: Values

    def get(self, name: str) -> str:
        """Return the value of a name, "" when the series does not have it."""
        return self.names.get(name, "")


def select(
    series: Iterable[TimeSeries], what: str | Sequence[str], **names: str | Sequence[str] | None
) -> list[TimeSeries]:
    """Return the series of a measure whose names match: None or "" requires the name to be absent, "*" to be present.

    >>> ts = TimeSeries({"what": "accuracy", "agent_id": "a"}, np.array([0]), np.array([0.5]))
    >>> len(select([ts], "accuracy", agent_id="*")), len(select([ts], "accuracy", agent_id=None))
    (1, 0)
    """
    measures = (what,) if isinstance(what, str) else what
    return [
        ts
        for ts in series
        if ts.get("what") in measures and all(_fits(ts.get(name), wanted) for name, wanted in names.items())
    ]


def _fits(name: str, wanted: str | Sequence[str] | None) -> bool:
    if wanted == "*":
        return bool(name)
    return name == (wanted or "") if wanted is None or isinstance(wanted, str) else name in wanted


def first(series: Iterable[TimeSeries], what: str, **names: str | Sequence[str] | None) -> TimeSeries | None:
    """Return the first match or None; by default the rollup's series without further names."""
    plain: dict[str, Any] = {"agent_id": None, "class_name": None, "feat_name": None, "stat": None}
    return next(iter(select(series, what, **{**plain, **names})), None)


def align(series: Sequence[TimeSeries]) -> tuple[Times, Values]:
    """Put all series on one time axis: (times, values of shape (series, times)), NaN where a series has no value."""
    if not series:
        return np.empty(0, dtype=np.int64), np.empty((0, 0))
    times = np.unique(np.concatenate([ts.times for ts in series]))
    values = np.full((len(series), len(times)), np.nan)
    for row, ts in zip(values, series, strict=True):
        row[np.searchsorted(times, ts.times)] = ts.values
    return times, values


def downsample(times: Times, values: Values, step: int, *, counter: bool) -> tuple[Times, Values]:
    """Gather values of shape (series, times) by `step` seconds: add counters, average gauges over their windows.

    Times ascend.

    >>> times, values = downsample(np.array([0, 2, 4]), np.array([[1.0, 3.0, np.nan]]), 4, counter=False)
    >>> times.tolist(), values.tolist()
    ([0, 4], [[2.0, nan]])
    """
    steps, begins = np.unique(times // step * step, return_index=True)
    present = ~np.isnan(values)
    total = np.add.reduceat(np.where(present, values, 0.0), begins, axis=1)
    count = np.add.reduceat(present, begins, axis=1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gathered = np.where(count > 0, total if counter else total / count, np.nan)
    return steps.astype(np.int64), gathered


def split_rows(names: Sequence[Mapping[str, str]], times: Times, values: Values) -> list[TimeSeries]:
    """Split an aligned array into one series per row, leaving out the gaps."""
    return [
        TimeSeries(own_names, times[present], row[present])
        for own_names, row, present in zip(names, values, ~np.isnan(values), strict=True)
        if present.any()
    ]


def extend(series: Sequence[TimeSeries], partial: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Append the points of `partial` that are newer to the series of the same names; add series that are new."""
    newest = {tuple(sorted(ts.names.items())): ts for ts in partial}
    extended = []
    for ts in series:
        tail = newest.pop(tuple(sorted(ts.names.items())), None)
        if tail is not None and tail.times[0] > ts.times[-1]:
            ts = TimeSeries(ts.names, np.append(ts.times, tail.times), np.append(ts.values, tail.values))
        extended.append(ts)
    return [*extended, *newest.values()]


def series_of_frame(frame: Any) -> list[TimeSeries]:
    """Return the series in a table from `zmon.read_points`."""
    names = [column for column in frame.columns if column not in ("time", "value")]
    times = frame["time"].dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    values = frame["value"].to_numpy(dtype=float)
    return [
        TimeSeries({name: value for name, value in zip(names, key, strict=True) if value}, times[rows], values[rows])
        for key, rows in frame.groupby(names, observed=True, sort=False).indices.items()
    ]
