"""Series as lines over time: what the history, the files and the figures have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]


class TimeSeries(NamedTuple):
    """One series: its identifying names, and its values by window start in epoch seconds, ascending."""

    names: Mapping[str, str]
    times: Times
    values: Values

    def get(self, name: str) -> str:
        return self.names.get(name, "")


def select(
    lines: Iterable[TimeSeries], what: str | Sequence[str], **names: str | Sequence[str] | None
) -> list[TimeSeries]:
    """Lines of that measure whose names are as given; None or "" asks for a name that is absent, "*" for any present.

    >>> line = Line({"what": "accuracy", "agent_id": "a"}, np.array([0]), np.array([0.5]))
    >>> len(pick([line], "accuracy", agent_id="*")), len(pick([line], "accuracy", agent_id=None))
    (1, 0)
    """
    wanted = (what,) if isinstance(what, str) else tuple(what)

    def fits(line: TimeSeries) -> bool:
        for name, value in names.items():
            has = line.get(name)
            if value == "*":
                if not has:
                    return False
            elif isinstance(value, str) or value is None:
                if has != (value or ""):
                    return False
            elif has not in value:
                return False
        return True

    return [line for line in lines if line.get("what") in wanted and fits(line)]


def first(lines: Iterable[TimeSeries], what: str, **names: str | Sequence[str] | None) -> TimeSeries | None:
    """The first such line; a rollup without further names unless they are given."""
    plain: dict[str, Any] = {"agent_id": None, "class_name": None, "feat_name": None, "stat": None}
    found = select(lines, what, **{**plain, **names})
    return found[0] if found else None


def align(lines: Sequence[TimeSeries]) -> tuple[Times, Values]:
    """All lines on one time axis: (times, values of shape (lines, times)), NaN where a line has none."""
    if not lines:
        return np.empty(0, dtype=np.int64), np.empty((0, 0))
    times = np.unique(np.concatenate([line.times for line in lines]))
    values = np.full((len(lines), len(times)), np.nan)
    for row, line in zip(values, lines, strict=True):
        row[np.searchsorted(times, line.times)] = line.values
    return times, values


def is_counter(what: str) -> bool:
    """Whether a measure adds up over time."""
    return what.endswith("_count") or what.startswith("rows_")


def downsample(times: Times, values: Values, step: int, *, counter: bool) -> tuple[Times, Values]:
    """Values of shape (lines, times) by steps of `step` seconds: counters added, gauges averaged over their windows.

    >>> times, values = coarser(np.array([0, 2, 4]), np.array([[1.0, 3.0, np.nan]]), 4, counter=False)
    >>> times.tolist(), values.tolist()
    ([0, 4], [[2.0, nan]])
    """
    steps, where = np.unique(times // step * step, return_inverse=True)
    total = np.zeros((len(values), len(steps)))
    count = np.zeros((len(values), len(steps)))
    present = ~np.isnan(values)
    for row in range(len(values)):
        total[row] = np.bincount(where, np.where(present[row], values[row], 0.0), len(steps))
        count[row] = np.bincount(where, present[row], len(steps))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(count > 0, total if counter else total / count, np.nan)
    return steps.astype(np.int64), found


def split_rows(names: Sequence[Mapping[str, str]], times: Times, values: Values) -> list[TimeSeries]:
    """The rows of a grid as lines, without their gaps."""
    lines = []
    for each, row in zip(names, values, strict=True):
        present = ~np.isnan(row)
        if present.all():
            lines.append(TimeSeries(each, times, row))
        elif present.any():
            lines.append(TimeSeries(each, times[present], row[present]))
    return lines


def extend(lines: Sequence[TimeSeries], partial: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Lines with one more point each, where `partial` has one that is newer."""
    newest = {tuple(sorted(line.names.items())): line for line in partial}
    found = []
    for line in lines:
        more = newest.pop(tuple(sorted(line.names.items())), None)
        if more is not None and more.times[0] > line.times[-1]:
            line = TimeSeries(line.names, np.append(line.times, more.times), np.append(line.values, more.values))
        found.append(line)
    return [*found, *newest.values()]


def series_of_frame(frame: Any) -> list[TimeSeries]:
    """The series of a table that `zmon.read_points` gave."""
    names = [column for column in frame.columns if column not in ("time", "value")]
    times = frame["time"].dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    values = frame["value"].to_numpy(dtype=float)
    return [
        TimeSeries({name: value for name, value in zip(names, key, strict=True) if value}, times[rows], values[rows])
        for key, rows in frame.groupby(names, observed=True, sort=False).indices.items()
    ]
