"""Figures as plain plotly JSON, defined once for the page, the notebook and the report. Pure.

Each function selects what it shows from the series it is given and returns None when there is nothing to show. Times
are epoch milliseconds in UTC. Plotly reads markup in labels, so names are escaped.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zmon_collector.dashboard import theme
from zmon_collector.dashboard.movers import Movers
from zmon_collector.dashboard.timeseries import Times, TimeSeries, Values, align, first, select

Figure = dict[str, Any]
Trace = dict[str, Any]

NAME_LENGTH = 42
MOST_CLASSES = 10  # in one chart; the others are summed
MOST_ROWS = 40  # of a heat map
MOST_CELLS = 30  # classes of a confusion matrix
MOST_LINES = 12  # replicas or versions in one chart


def label(name: str, length: int = NAME_LENGTH) -> str:
    """Return a name as plotly can show it: shortened in the middle, markup escaped.

    >>> label("<b>a</b>")
    '&lt;b&gt;a&lt;/b&gt;'
    """
    if len(name) > length:
        name = f"{name[: length - 12]}…{name[-10:]}"
    return html.escape("".join(char if char.isprintable() else " " for char in name), quote=False)


def unique(labels: Sequence[str]) -> list[str]:
    """Number labels that shortening made equal, so that they stay distinct.

    >>> unique(["a", "a", "b"])
    ['a', 'a (2)', 'b']
    """
    seen: Counter[str] = Counter()
    numbered = []
    for text in labels:
        seen[text] += 1
        numbered.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return numbered


def figure(traces: Sequence[Mapping[str, Any]], **layout: Any) -> Figure:
    """Join traces and layout; what all figures share is in the template."""
    return {"data": list(traces), "layout": layout}


def with_template(made: Figure) -> Figure:
    """Add the light template and a height, for places that have none of their own, such as a notebook."""
    return {**made, "layout": {**made["layout"], "template": theme.TEMPLATES["light"], "height": 340}}


def numbers(values: Iterable[float]) -> list[float | None]:
    """Round to six significant digits; None stands for NaN."""
    return [None if value != value else float(f"{value:.6g}") for value in np.asarray(values, dtype=float).tolist()]


def _milliseconds(times: Iterable[int]) -> list[int]:
    return [int(time) * 1000 for time in times]


def mark_window(made: Figure, start: int, end: int) -> None:
    """Mark the window that is still open, whose values are preliminary."""
    made["layout"]["shapes"] = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": start * 1000, "x1": start * 1000, "y0": 0, "y1": 1,
         "line": {"color": theme.QUIET, "width": 1, "dash": "dot"}},
    ]  # fmt: skip
    made["layout"]["annotations"] = [
        {"xref": "x", "yref": "paper", "x": start * 1000, "y": 1, "xanchor": "right", "yanchor": "top", "xshift": -3,
         "text": "so far", "showarrow": False, "font": {"size": 10, "color": theme.QUIET}},
    ]  # fmt: skip
    made["layout"]["meta"] = {"partial": [start, end]}


def _gapped(ts: TimeSeries) -> tuple[list[int], list[float | None]]:
    """Return the points with a hole where windows are missing, so that plotly draws no line across it."""
    times, values = _milliseconds(ts.times), numbers(ts.values)
    if len(times) < 3:
        return times, values
    steps = np.diff(ts.times)
    holes = np.flatnonzero(steps > 2.5 * np.median(steps))
    for at in reversed(holes.tolist()):
        times.insert(at + 1, times[at] + 1)
        values.insert(at + 1, None)
    return times, values


def _mode(times: Sized) -> str:
    """Return how to draw a line: with markers where its points are too few to see it."""
    return "lines+markers" if len(times) < 8 else "lines"


def trace(
    ts: TimeSeries, name: str, color: str, *, percent: bool = False, width: float = 2, dash: str = "solid", **more: Any
) -> Trace:
    """Draw a series as a line over time."""
    times, values = _gapped(ts)
    return {
        "type": "scatter",
        "mode": _mode(times),
        "name": label(name),
        "x": times,
        "y": values,
        "line": {"color": color, "width": width, "dash": dash},
        "marker": {"color": color, "size": 5},
        "hovertemplate": "%{y:.1%}" if percent else "%{y:.4~g}",
        **more,
    }


def _overall(series: Sequence[TimeSeries], measures: Iterable[tuple[str, str, str]], *, percent: bool) -> list[Trace]:
    """Draw measures of all rows, given with their names and colours, as far as present."""
    return [trace(ts, name, color, percent=percent) for what, name, color in measures if (ts := first(series, what))]


def _band(low: TimeSeries, high: TimeSeries, name: str, fill: str) -> list[Trace]:
    edge: Trace = {"width": 0, "mode": "lines", "legendgroup": name, "hoverinfo": "skip", "hovertemplate": None}
    return [
        trace(low, f"{name} from", fill, showlegend=False, **edge),
        trace(high, name, fill, fill="tonexty", fillcolor=fill, **edge),
    ]


TIME = {"type": "date"}
BARE = {"t": 12}  # above a chart without a legend
SHARE = {"tickformat": ".0%", "rangemode": "tozero"}
UNIT = {"range": [0, 1.02], "tickformat": ".0%"}


def classes(series: Sequence[TimeSeries]) -> Figure | None:
    """Stack the shares of the predicted classes."""
    return shares(select(series, "prediction_freq", class_name="*", agent_id=None), "class_name", "other classes")


def shares(series: Sequence[TimeSeries], key: str, others: str = "others") -> Figure | None:
    """Stack shares by class or category; the largest have their own colour, the rest are summed."""
    if not series:
        return None
    used = [ts for ts in series if ts.values.any()] or series
    largest = {id(ts) for ts in sorted(used, key=lambda ts: -float(ts.values.mean()))[:MOST_CLASSES]}
    shown = [ts for ts in used if id(ts) in largest]
    times, values = align(shown)
    rows = [(ts.get(key), row) for ts, row in zip(shown, values, strict=True)]
    if len(used) > len(shown):
        rows.append((others, 1.0 - np.nansum(values, axis=0)))
    traces = [
        {
            "type": "scatter", "mode": _mode(times), "name": label(name, 18),
            "x": _milliseconds(times), "y": numbers(row), "stackgroup": "classes",
            "line": {"width": 0.6, "color": color}, "marker": {"color": color, "size": 5}, "hovertemplate": "%{y:.1%}",
        }
        for (name, row), color in zip(rows, [*theme.PALETTE, theme.QUIET] * 2, strict=False)
    ]  # fmt: skip
    return figure(traces, xaxis=TIME, yaxis={"range": [0, 1], "tickformat": ".0%"}, legend={"traceorder": "normal"})


def confidence(series: Sequence[TimeSeries]) -> Figure | None:
    """Draw the highest probability, mean and middle half, and the entropy."""
    mean = first(series, "max_prediction_proba", stat="mean")
    if mean is None:
        return None
    low, high = (first(series, "max_prediction_proba", stat=stat) for stat in ("q25", "q75"))
    traces = _band(low, high, "middle half", theme.SOFT) if low and high else []
    traces.append(trace(mean, "mean confidence", theme.ACCENT, percent=True))
    entropy = first(series, "prediction_entropy", stat="mean")
    if entropy is not None:
        traces.append(trace(entropy, "mean entropy", theme.WARM, percent=True, width=1.5, dash="dot"))
    return figure(traces, xaxis=TIME, yaxis=UNIT)


SCORES = (
    ("accuracy", "", "accuracy", theme.ACCENT, "solid"),
    ("estimated_accuracy", "", "estimated accuracy", theme.ACCENT, "dash"),
    ("f1", "macro", "F1, macro", theme.SECOND, "solid"),
    ("balanced_accuracy", "", "balanced accuracy", "#e5a13a", "solid"),
    ("roc_auc", "", "ROC AUC", "#d6539b", "solid"),
    ("label_coverage", "", "labelled rows", theme.QUIET, "dot"),
)
ERRORS = (
    ("mae", "mean absolute error", theme.PALETTE[0]),
    ("rmse", "root mean squared error", theme.PALETTE[1]),
    ("bias", "bias", theme.PALETTE[2]),
)
CALIBRATION = (
    ("calibration_ece", "expected calibration error", theme.ACCENT),
    ("calibration_mce", "largest gap", theme.WARM),
)


def quality(series: Sequence[TimeSeries]) -> Figure | None:
    """Draw the overall scores, and the estimate where labels have not arrived yet."""
    traces = [
        trace(ts, name, color, percent=True, dash=dash)
        for what, stat, name, color, dash in SCORES
        if (ts := first(series, what, stat=stat))
    ]
    if not traces or all(drawn["name"] == "labelled rows" for drawn in traces):
        return None
    return figure(traces[::-1], xaxis=TIME, yaxis=UNIT, legend={"traceorder": "reversed"})  # accuracy on top


def errors(series: Sequence[TimeSeries]) -> Figure | None:
    """Draw the errors of a regression."""
    traces = _overall(series, ERRORS, percent=False)
    return figure(traces, xaxis=TIME, yaxis={}) if traces else None


def by_class(series: Sequence[TimeSeries], what: str = "f1") -> Figure | None:
    """Draw one score of each class over time, only the worst when there are many."""
    scores = select(series, what, class_name="*", agent_id=None)
    if not scores:
        return None
    if len(scores) > MOST_ROWS:
        scores = sorted(scores, key=lambda ts: float(ts.values.min()))[:MOST_ROWS]
    times, values = align(scores)
    names = [ts.get("class_name") for ts in scores]
    return heat_map(times, values, names, scale=theme.SCORE, ends=(0.0, 1.0), form=".0%")


def heat_map(
    times: Times, values: Values, names: list[str], *, scale: Any, ends: tuple[float, float], form: str, unit: str = ""
) -> Figure:
    """Draw one row per name from the top, windows from left to right."""
    labels = unique([label(name, 28) for name in names])
    data = {
        "type": "heatmap", "x": _milliseconds(times), "y": labels, "z": [numbers(row) for row in values],
        "zmin": ends[0], "zmax": ends[1], "colorscale": scale, "hoverongaps": False, "xgap": 0, "ygap": 1,
        "hovertemplate": f"%{{y}}<br>%{{x|%H:%M:%S}}<br>%{{z:{form}}}{unit}<extra></extra>",
        "colorbar": {"thickness": 8, "outlinewidth": 0, "len": 1.0, "tickformat": form, "nticks": 5,
                     "tickfont": {"size": 10}},
    }  # fmt: skip
    axis = {"type": "category", "autorange": "reversed", "showgrid": False, "tickfont": {"size": 10}}
    return figure([data], xaxis={**TIME, "showgrid": False}, yaxis=axis, hovermode="closest", margin=BARE)


def confusion(series: Sequence[TimeSeries]) -> Figure | None:
    """Draw the newest window's matrix: each row a true class, colours by share of the row, counts as text."""
    pairs = select(series, "confusion_count", class_name="*", predicted="*", agent_id=None)
    if not pairs:
        return None
    newest = max(int(ts.times[-1]) for ts in pairs)
    cells = {
        (ts.get("class_name"), ts.get("predicted")): float(ts.values[-1]) for ts in pairs if ts.times[-1] == newest
    }
    names = list(dict.fromkeys([truth for truth, _ in cells] + [predicted for _, predicted in cells]))[:MOST_CELLS]
    counts = np.array([[cells.get((truth, predicted), 0.0) for predicted in names] for truth in names])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    labels = [label(name, 16) for name in names]
    places = list(range(len(names)))
    data = {
        "type": "heatmap", "x": places, "y": places,
        "z": [numbers(row) for row in shares], "zmin": 0, "zmax": 1, "colorscale": theme.RISING, "showscale": False,
        "xgap": 2, "ygap": 2, "customdata": counts.astype(int).tolist(),
        "text": [[str(int(count)) if count else "" for count in row] for row in counts],
        "texttemplate": "%{text}" if len(names) <= 16 else "", "textfont": {"size": 11},
        "hovertemplate": "%{customdata} rows, %{z:.1%} of the class<extra></extra>",
    }  # fmt: skip
    ticks = {"tickvals": places, "ticktext": labels, "showgrid": False}
    return figure(
        [data],
        xaxis={**ticks, "title": {"text": "predicted"}, "showline": False},
        yaxis={**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
        hovermode="closest",
        margin=BARE,
    )


def calibration(series: Sequence[TimeSeries]) -> Figure | None:
    """Draw how far confidence lies from accuracy."""
    traces = _overall(series, CALIBRATION, percent=True)
    return figure(traces, xaxis=TIME, yaxis=SHARE) if traces else None


def movement(movers: Movers | None) -> Figure | None:
    """Draw features by windows: drift against the reference, or the shift of the mean without one."""
    if movers is None or not len(movers.names):
        return None
    shown = movers.order[:MOST_ROWS]
    ends, scale = ((0.0, 0.5), theme.RISING) if movers.kind == "psi" else ((-3.0, 3.0), theme.SHIFT)
    unit = "" if movers.kind == "psi" else " σ"
    names = [movers.names[i] for i in shown]
    return heat_map(movers.times, movers.scores[shown], names, scale=scale, ends=ends, form=".2f", unit=unit)


def side_by_side(series: Sequence[TimeSeries], key: str, *, percent: bool = True, rate: float = 0.0) -> Figure | None:
    """Draw one measure of several replicas or versions; `rate`, the window's seconds, divides counts."""
    shown = sorted((ts for ts in series if len(ts.times)), key=lambda ts: ts.get(key))[:MOST_LINES]
    if not shown:
        return None
    if rate:
        shown = [ts._replace(values=ts.values / rate) for ts in shown]
    traces = [
        trace(ts, ts.get(key) or "no version", color, percent=percent)
        for ts, color in zip(shown, theme.PALETTE * 2, strict=False)
    ]
    return figure(traces, xaxis=TIME, yaxis=UNIT if percent else {"rangemode": "tozero"})


def rows(series: Sequence[TimeSeries], period: int) -> Figure | None:
    """Draw the rows per second inside the windows, and those that are missing from them."""
    received = first(series, "buffer_count")
    if received is None:
        return None
    traces = [_bars(received, "in the window", theme.ACCENT, period)]
    for what, name, color in (
        ("rows_late", "late", "#e5a13a"),
        ("rows_lost", "lost", theme.WARM),
        ("rows_rejected", "rejected", "#d6539b"),
        ("rows_sampled_out", "sampled out", theme.QUIET),
    ):
        missing = [ts for ts in select(series, what, agent_id="*") if ts.values.any()]
        if missing:
            times, values = align(missing)
            traces.append(_bars(TimeSeries({}, times, np.nansum(values, axis=0)), name, color, period))
    return figure(traces, xaxis=TIME, yaxis={"rangemode": "tozero", "ticksuffix": " /s"}, barmode="stack", bargap=0.15)


def _bars(ts: TimeSeries, name: str, color: str, period: int) -> Trace:
    return {
        "type": "bar", "name": name, "x": _milliseconds(ts.times), "y": numbers(ts.values / max(1, period)),
        "marker": {"color": color, "line": {"width": 0}}, "hovertemplate": "%{y:,.4~g} /s",
    }  # fmt: skip


def bands(series: Sequence[TimeSeries], *, percent: bool = False) -> Figure | None:
    """Draw the statistics of one quantity: mean, median, and the bands of its quantiles, as far as present."""
    by_stat = {ts.get("stat"): ts for ts in series}
    traces: list[Trace] = []
    for low, high, name, fill in (("q05", "q95", "5–95 %", theme.FAINT), ("q25", "q75", "middle half", theme.SOFT)):
        if low in by_stat and high in by_stat:
            traces += _band(by_stat[low], by_stat[high], name, fill)
    for stat, name, color, dash in (
        ("median", "median", theme.ACCENT, "solid"),
        ("mean", "mean", theme.WARM, "dot"),
        ("", "value", theme.ACCENT, "solid"),
    ):
        if stat in by_stat:
            traces.append(trace(by_stat[stat], name, color, percent=percent, dash=dash))
    if not traces:
        traces = [
            trace(ts, stat, color, percent=percent)
            for (stat, ts), color in zip(sorted(by_stat.items()), theme.PALETTE * 2, strict=False)
        ]
    return figure(traces, xaxis=TIME, yaxis={"tickformat": ".0%"} if percent else {}) if traces else None


def named_lines(series: Sequence[TimeSeries], names: Sequence[str], *, from_zero: bool = True) -> Figure | None:
    """Draw series of one unit under the given names."""
    traces = [trace(ts, name, color) for ts, name, color in zip(series, names, theme.PALETTE * 2, strict=False)]
    return figure(traces, xaxis=TIME, yaxis={"rangemode": "tozero"} if from_zero else {}) if traces else None


def unnamed(times: ArrayLike, values: ArrayLike) -> TimeSeries:
    """Make a series without names."""
    return TimeSeries({}, np.array(times, dtype=np.int64), np.array(values, dtype=float))


def ranking(names: Sequence[str], values: Sequence[float], unit: str) -> Figure | None:
    """Draw horizontal bars, the longest first."""
    if not names:
        return None
    order = sorted(range(len(names)), key=lambda i: -values[i])[:15]
    places = list(range(len(order)))
    data = {
        "type": "bar", "orientation": "h", "x": numbers([values[i] for i in order]), "y": places,
        "marker": {"color": theme.ACCENT}, "hovertemplate": f"%{{x:.3~s}}{unit}<extra></extra>",
    }  # fmt: skip
    axis = {"tickvals": places, "ticktext": [label(names[i], 26) for i in order], "autorange": "reversed"}
    return figure(
        [data], xaxis={"ticksuffix": unit, "rangemode": "tozero"}, yaxis=axis, hovermode="closest", bargap=0.35
    )
