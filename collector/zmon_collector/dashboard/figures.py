"""Figures as plain plotly JSON, defined once for the page, the notebook and the report. Pure.

Each takes the lines it is about, picks by name what it shows, and gives None when there is nothing to show. Times are
epoch milliseconds in UTC. Names are shown as text: plotly reads markup in labels, so it is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zmon_collector.dashboard import theme as style
from zmon_collector.dashboard.movers import Movers
from zmon_collector.dashboard.timeseries import TimeSeries, Values, align, first, select

Figure = dict[str, Any]

NAME_LENGTH = 42
MOST_CLASSES = 10  # in one chart; the others are added up or left to the search
MOST_ROWS = 40  # of a heat map
MOST_CELLS = 30  # classes of a confusion matrix
MOST_LINES = 12  # replicas or versions in one chart


def label(name: str, length: int = NAME_LENGTH) -> str:
    """A name as plotly shows it: shortened in the middle, markup as text.

    >>> label("<b>a</b>")
    '&lt;b&gt;a&lt;/b&gt;'
    """
    if len(name) > length:
        name = f"{name[: length - 12]}…{name[-10:]}"
    return html.escape("".join(char if char.isprintable() else " " for char in name), quote=False)


def unique(labels: Sequence[str]) -> list[str]:
    """Labels that stay apart where shortening made them equal.

    >>> unique(["a", "a", "b"])
    ['a', 'a (2)', 'b']
    """
    seen: dict[str, int] = {}
    found = []
    for each in labels:
        seen[each] = seen.get(each, 0) + 1
        found.append(each if seen[each] == 1 else f"{each} ({seen[each]})")
    return found


def figure(traces: Sequence[Mapping[str, Any]], **layout: Any) -> Figure:
    """Traces and layout; what all figures share is in the template."""
    return {"data": list(traces), "layout": layout}


def with_template(made: Figure, theme: str = "light") -> Figure:
    """The figure with a template, for places that have none of their own: a notebook."""
    return {**made, "layout": {**made["layout"], "template": style.TEMPLATES[theme], "height": 340}}


def numbers(values: Iterable[float]) -> list[float | None]:
    """Six significant digits, None for what is not there."""
    return [None if value != value else float(f"{value:.6g}") for value in np.asarray(values, dtype=float).tolist()]


def _milliseconds(times: Iterable[int]) -> list[int]:
    return [int(time) * 1000 for time in times]


def mark_window(made: Figure, start: int, end: int) -> None:
    """Mark the window that is still being filled: its values are those so far."""
    made["layout"]["shapes"] = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": start * 1000, "x1": start * 1000, "y0": 0, "y1": 1,
         "line": {"color": style.QUIET, "width": 1, "dash": "dot"}},
    ]  # fmt: skip
    made["layout"]["annotations"] = [
        {"xref": "x", "yref": "paper", "x": start * 1000, "y": 1, "xanchor": "right", "yanchor": "top", "xshift": -3,
         "text": "so far", "showarrow": False, "font": {"size": 10, "color": style.QUIET}},
    ]  # fmt: skip
    made["layout"]["meta"] = {"partial": [start, end]}


def _gapped(line: TimeSeries) -> tuple[list[int], list[float | None]]:
    """A line's points, with a hole where windows are missing, so that nothing is drawn where nothing is known."""
    times, values = _milliseconds(line.times), numbers(line.values)
    if len(times) < 3:
        return times, values
    steps = np.diff(line.times)
    holes = np.flatnonzero(steps > 2.5 * np.median(steps))
    for at in reversed(holes.tolist()):
        times.insert(at + 1, times[at] + 1)
        values.insert(at + 1, None)
    return times, values


def trace(
    series: TimeSeries,
    name: str,
    color: str,
    *,
    percent: bool = False,
    width: float = 2,
    dash: str = "solid",
    **more: Any,
) -> dict[str, Any]:
    """A line over time; markers when there are too few points for a line to be seen."""
    times, values = _gapped(series)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(times) < 8 else "lines",
        "name": label(name),
        "x": times,
        "y": values,
        "line": {"color": color, "width": width, "dash": dash},
        "marker": {"color": color, "size": 5},
        "hovertemplate": "%{y:.1%}" if percent else "%{y:.4~g}",
        **more,
    }


def _band(low: TimeSeries, high: TimeSeries, name: str, fill: str) -> list[dict[str, Any]]:
    edge: dict[str, Any] = {
        "width": 0,
        "mode": "lines",
        "legendgroup": name,
        "hoverinfo": "skip",
        "hovertemplate": None,
    }
    return [
        trace(low, f"{name} from", fill, showlegend=False, **edge),
        trace(high, name, fill, fill="tonexty", fillcolor=fill, **edge),
    ]


TIME = {"type": "date"}
BARE = {"t": 12}  # above a chart without a legend
SHARE = {"tickformat": ".0%", "rangemode": "tozero"}
UNIT = {"range": [0, 1.02], "tickformat": ".0%"}


def classes(lines: Sequence[TimeSeries]) -> Figure | None:
    """Shares of the predicted classes, stacked."""
    found = select(lines, "prediction_freq", class_name="*", agent_id=None)
    if not found:
        return None
    found = [line for line in found if line.values.any()] or found
    shown = sorted(found, key=lambda line: -float(line.values.mean()))[:MOST_CLASSES]
    names = {id(line) for line in shown}
    times, values = align([line for line in found if id(line) in names])
    rows = [
        (line.get("class_name"), row) for line, row in zip([x for x in found if id(x) in names], values, strict=True)
    ]
    if len(found) > len(shown):
        rows.append(("other classes", 1.0 - np.nansum(values, axis=0)))
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": label(name, 18), "x": _milliseconds(times), "y": numbers(row),
            "stackgroup": "classes", "line": {"width": 0.6, "color": color}, "hovertemplate": "%{y:.1%}",
        }
        for (name, row), color in zip(rows, [*style.PALETTE, style.QUIET] * 2, strict=False)
    ]  # fmt: skip
    return figure(traces, xaxis=TIME, yaxis={"range": [0, 1], "tickformat": ".0%"}, legend={"traceorder": "normal"})


def confidence(lines: Sequence[TimeSeries]) -> Figure | None:
    """Highest probability: mean and middle half; and the entropy."""
    mean = first(lines, "max_prediction_proba", stat="mean")
    if mean is None:
        return None
    low, high = (first(lines, "max_prediction_proba", stat=stat) for stat in ("q25", "q75"))
    traces = _band(low, high, "middle half", style.SOFT) if low and high else []
    traces.append(trace(mean, "mean confidence", style.ACCENT, percent=True))
    entropy = first(lines, "prediction_entropy", stat="mean")
    if entropy is not None:
        traces.append(trace(entropy, "mean entropy", style.WARM, percent=True, width=1.5, dash="dot"))
    return figure(traces, xaxis=TIME, yaxis=UNIT)


SCORES = (
    ("accuracy", "", "accuracy", style.ACCENT, "solid"),
    ("estimated_accuracy", "", "estimated accuracy", style.ACCENT, "dash"),
    ("f1", "macro", "F1, macro", style.SECOND, "solid"),
    ("balanced_accuracy", "", "balanced accuracy", "#e5a13a", "solid"),
    ("roc_auc", "", "ROC AUC", "#d6539b", "solid"),
    ("label_coverage", "", "labelled rows", style.QUIET, "dot"),
)


def quality(lines: Sequence[TimeSeries]) -> Figure | None:
    """Overall scores, and the estimate where labels are not there yet."""
    traces = [
        trace(line, name, color, percent=True, dash=dash)
        for what, stat, name, color, dash in SCORES
        if (line := first(lines, what, stat=stat))
    ]
    if not traces or all(each["name"] == "labelled rows" for each in traces):
        return None
    return figure(traces[::-1], xaxis=TIME, yaxis=UNIT, legend={"traceorder": "reversed"})  # accuracy on top


def errors(lines: Sequence[TimeSeries]) -> Figure | None:
    """A regression's errors."""
    named = (("mae", "mean absolute error"), ("rmse", "root mean squared error"), ("bias", "bias"))
    traces = [
        trace(line, name, color)
        for (what, name), color in zip(named, style.PALETTE, strict=False)
        if (line := first(lines, what))
    ]
    return figure(traces, xaxis=TIME, yaxis={}) if traces else None


def by_class(lines: Sequence[TimeSeries], what: str = "f1") -> Figure | None:
    """One score of each class over time; the worst first when there are many."""
    found = select(lines, what, class_name="*", agent_id=None)
    if not found:
        return None
    if len(found) > MOST_ROWS:
        found = sorted(found, key=lambda line: float(line.values.min()))[:MOST_ROWS]
    return _heat(found, [line.get("class_name") for line in found], style.SCORE, (0.0, 1.0), ".0%")


def _heat(
    lines: Sequence[TimeSeries],
    names: Sequence[str],
    scale: Any,
    limits: tuple[float, float],
    form: str,
    unit: str = "",
) -> Figure:
    times, values = align(lines)
    return heat(times.tolist(), values, names, scale, limits, form, unit)


def heat(
    times: Sequence[int],
    values: Values,
    names: Sequence[str],
    scale: Any,
    limits: tuple[float, float],
    form: str,
    unit: str = "",
) -> Figure:
    """Rows by name from the top, windows from left to right."""
    labels = unique([label(name, 28) for name in names])
    data = {
        "type": "heatmap", "x": _milliseconds(times), "y": labels, "z": [numbers(row) for row in values],
        "zmin": limits[0], "zmax": limits[1], "colorscale": scale, "hoverongaps": False, "xgap": 0, "ygap": 1,
        "hovertemplate": f"%{{y}}<br>%{{x|%H:%M:%S}}<br>%{{z:{form}}}{unit}<extra></extra>",
        "colorbar": {"thickness": 8, "outlinewidth": 0, "len": 1.0, "tickformat": form, "nticks": 5,
                     "tickfont": {"size": 10}},
    }  # fmt: skip
    axis = {"type": "category", "autorange": "reversed", "showgrid": False, "tickfont": {"size": 10}}
    return figure([data], xaxis={**TIME, "showgrid": False}, yaxis=axis, hovermode="closest", margin=BARE)


def confusion(lines: Sequence[TimeSeries]) -> Figure | None:
    """The newest window's matrix: each row a true class, shares along the row, counts as text."""
    found = select(lines, "confusion_count", class_name="*", predicted="*", agent_id=None)
    if not found:
        return None
    newest = max(int(line.times[-1]) for line in found)
    cells = {
        (line.get("class_name"), line.get("predicted")): float(line.values[-1])
        for line in found
        if line.times[-1] == newest
    }
    names = list(dict.fromkeys([truth for truth, _ in cells] + [predicted for _, predicted in cells]))[:MOST_CELLS]
    counts = np.array([[cells.get((truth, predicted), 0.0) for predicted in names] for truth in names])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    labels = [label(name, 16) for name in names]
    data = {
        "type": "heatmap", "x": list(range(len(names))), "y": list(range(len(names))),
        "z": [numbers(row) for row in shares], "zmin": 0, "zmax": 1, "colorscale": style.RISING, "showscale": False,
        "xgap": 2, "ygap": 2, "customdata": counts.astype(int).tolist(),
        "text": [[str(int(count)) if count else "" for count in row] for row in counts],
        "texttemplate": "%{text}" if len(names) <= 16 else "", "textfont": {"size": 11},
        "hovertemplate": "%{customdata} rows, %{z:.1%} of the class<extra></extra>",
    }  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": labels, "showgrid": False}
    return figure(
        [data],
        xaxis={**ticks, "title": {"text": "predicted"}, "showline": False},
        yaxis={**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
        hovermode="closest",
        margin=BARE,
    )


def calibration(lines: Sequence[TimeSeries]) -> Figure | None:
    """How far confidence lies from accuracy."""
    named = (("calibration_ece", "expected calibration error"), ("calibration_mce", "largest gap"))
    traces = [
        trace(line, name, color, percent=True)
        for (what, name), color in zip(named, (style.ACCENT, style.WARM), strict=True)
        if (line := first(lines, what))
    ]
    return figure(traces, xaxis=TIME, yaxis=SHARE) if traces else None


def movement(moved: Movers | None) -> Figure | None:
    """Features by windows: drift against the reference, or the shift of the mean where there is no reference."""
    if moved is None or not len(moved.names):
        return None
    shown = moved.order[:MOST_ROWS]
    limits, scale = ((0.0, 0.5), style.RISING) if moved.kind == "psi" else ((-3.0, 3.0), style.SHIFT)
    unit = "" if moved.kind == "psi" else " σ"
    return heat(moved.times.tolist(), moved.scores[shown], [moved.names[i] for i in shown], scale, limits, ".2f", unit)


def side_by_side(lines: Sequence[TimeSeries], key: str, *, percent: bool = True, rate: float = 0.0) -> Figure | None:
    """The same measure of several replicas or versions; `rate` divides counts by the window's seconds."""
    found = sorted((line for line in lines if len(line.times)), key=lambda line: line.get(key))
    if not found:
        return None
    found = found[:MOST_LINES]
    if rate:
        found = [line._replace(values=line.values / rate) for line in found]
    traces = [
        trace(line, line.get(key) or "no version", color, percent=percent)
        for line, color in zip(found, style.PALETTE * 2, strict=False)
    ]
    return figure(traces, xaxis=TIME, yaxis=UNIT if percent else {"rangemode": "tozero"})


def rows(lines: Sequence[TimeSeries], period: int) -> Figure | None:
    """Rows a second that are in the windows, and those that are not."""
    received = first(lines, "buffer_count")
    if received is None:
        return None
    traces = [_bars(received, "in the window", style.ACCENT, period)]
    for what, name, color in (
        ("rows_late", "late", "#e5a13a"),
        ("rows_lost", "lost", style.WARM),
        ("rows_rejected", "rejected", "#d6539b"),
        ("rows_sampled_out", "sampled out", style.QUIET),
    ):
        found = [line for line in select(lines, what, agent_id="*") if line.values.any()]
        if found:
            times, values = align(found)
            traces.append(_bars(TimeSeries({}, times, np.nansum(values, axis=0)), name, color, period))
    return figure(traces, xaxis=TIME, yaxis={"rangemode": "tozero", "ticksuffix": " /s"}, barmode="stack", bargap=0.15)


def _bars(line: TimeSeries, name: str, color: str, period: int) -> dict[str, Any]:
    return {
        "type": "bar", "name": name, "x": _milliseconds(line.times), "y": numbers(line.values / max(1, period)),
        "marker": {"color": color, "line": {"width": 0}}, "hovertemplate": "%{y:,.4~g} /s",
    }  # fmt: skip


def bands(lines: Sequence[TimeSeries], *, percent: bool = False) -> Figure | None:
    """One measured quantity: mean and median, and the bands of its quantiles, as far as there are any."""
    by_stat = {line.get("stat"): line for line in lines}
    traces: list[dict[str, Any]] = []
    for low, high, name, fill in (("q05", "q95", "5–95 %", style.FAINT), ("q25", "q75", "middle half", style.SOFT)):
        if low in by_stat and high in by_stat:
            traces += _band(by_stat[low], by_stat[high], name, fill)
    for stat, name, color, dash in (
        ("median", "median", style.ACCENT, "solid"),
        ("mean", "mean", style.WARM, "dot"),
        ("", "value", style.ACCENT, "solid"),
    ):
        if stat in by_stat:
            traces.append(trace(by_stat[stat], name, color, percent=percent, dash=dash))
    if not traces:
        traces = [
            trace(line, stat, color, percent=percent)
            for (stat, line), color in zip(sorted(by_stat.items()), style.PALETTE * 2, strict=False)
        ]
    return figure(traces, xaxis=TIME, yaxis={"tickformat": ".0%"} if percent else {}) if traces else None


def several(lines: Sequence[TimeSeries], names: Sequence[str]) -> Figure | None:
    """Lines of one unit under given names."""
    traces = [trace(line, name, color) for line, name, color in zip(lines, names, style.PALETTE * 2, strict=False)]
    return figure(traces, xaxis=TIME, yaxis={"rangemode": "tozero"}) if traces else None


def points(times: Sequence[int], values: Sequence[float]) -> TimeSeries:
    """A line without a name."""
    return TimeSeries({}, np.array(times, dtype=np.int64), np.array(values, dtype=float))


def ranking(names: Sequence[str], values: Sequence[float], unit: str) -> Figure | None:
    """Horizontal bars, the longest first."""
    if not names:
        return None
    order = sorted(range(len(names)), key=lambda i: -values[i])[:15]
    data = {
        "type": "bar", "orientation": "h", "x": numbers([values[i] for i in order]), "y": list(range(len(order))),
        "marker": {"color": style.ACCENT}, "hovertemplate": f"%{{x:.3~s}}{unit}<extra></extra>",
    }  # fmt: skip
    axis = {
        "tickvals": list(range(len(order))),
        "ticktext": [label(names[i], 26) for i in order],
        "autorange": "reversed",
    }
    return figure(
        [data], xaxis={"ticksuffix": unit, "rangemode": "tozero"}, yaxis=axis, hovermode="closest", bargap=0.35
    )
