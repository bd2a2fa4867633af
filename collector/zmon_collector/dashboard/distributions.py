"""Figures of rows by bin, from the details of windows: calibration curve, and distribution over the reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zmon.reference import Numeric, Profile
from zmon.reference.build import BINNED
from zmon_collector.dashboard import theme
from zmon_collector.dashboard.figures import Figure, figure, label, numbers, unique

Array = NDArray[Any]
Detail = Mapping[str, Any]

MOST_BINS = 24  # in one chart; the rarest are summed
PERCENT = {"tickformat": ".0%"}


def reliability(newest: Detail | None, before: Sequence[Detail] = ()) -> Figure | None:
    """Draw accuracy by confidence: of the newest window, with its rows by bin, and of all given windows together.

    Parameters
    ----------
    newest : mapping or None
        `rows`, `confidence` and `right`: for each bin its rows, their summed confidence, and how many were right.
    before : sequence of mapping
        The same of earlier windows.
    """
    if newest is None:
        return None
    bins = len(newest["rows"])
    traces: list[dict[str, Any]] = [
        {
            "type": "bar", "name": "rows", "x": numbers((np.arange(bins) + 0.5) / bins),
            "y": newest["rows"].tolist(), "yaxis": "y2", "width": 0.86 / bins, "hovertemplate": "%{y:,} rows",
            "marker": {"color": theme.QUIET, "opacity": 0.22, "line": {"width": 0}},
        },
        {
            "type": "scatter", "mode": "lines", "name": "calibrated", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
            "line": {"color": theme.QUIET, "width": 1, "dash": "dot"},
        },
    ]  # fmt: skip
    if before:
        whole = {key: newest[key] + sum(detail[key] for detail in before) for key in ("rows", "confidence", "right")}
        traces.append(_curve(whole, f"{len(before) + 1} windows", theme.QUIET, 1.5))
    traces.append(_curve(newest, "newest window", theme.ACCENT, 2))
    most = int(newest["rows"].max())
    return figure(
        traces,
        xaxis={"range": [0, 1.02], **PERCENT, "title": {"text": "confidence"}},
        yaxis={"range": [0, 1.02], **PERCENT, "title": {"text": "right"}},
        yaxis2={"overlaying": "y", "side": "right", "range": [0, 2.5 * most], "showgrid": False,
                "tickvals": [0, most], "ticktext": ["0", f"{most:,}"], "title": {"text": "rows"}},
        hovermode="closest",
        margin={"r": 56},
    )  # fmt: skip


def _curve(detail: Detail, name: str, color: str, width: float) -> dict[str, Any]:
    used = np.flatnonzero(detail["rows"])
    rows = detail["rows"][used]
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": numbers(detail["confidence"][used] / rows),
        "y": numbers(detail["right"][used] / rows), "customdata": rows.tolist(),
        "line": {"color": color, "width": width}, "marker": {"color": color, "size": 3 * width},
        "hovertemplate": "confidence %{x:.1%}<br>right %{y:.1%}<br>%{customdata:,} rows",
    }  # fmt: skip


class Distribution(NamedTuple):
    """Rows by bin, of the reference and of a window."""

    labels: list[str]
    reference: Array
    current: Array


def covers(profile: Profile, names: Mapping[str, str]) -> bool:
    """Return whether the reference has the distribution of a series."""
    return _counted(profile, names) is not None


def distribution(profile: Profile, detail: Detail, names: Mapping[str, str]) -> Distribution | None:
    """Return a window's rows by bin next to the reference's, for the series of these names.

    None when the reference does not cover the series, or the window has no such rows.
    """
    counted = _counted(profile, names)
    if counted is None:
        return None
    part, at, labels, reference = counted
    counts = detail[part][at] if part == "codes" else detail[part][:, at]
    if not counts.sum():
        return None
    if part in ("numeric", "score"):  # columns with fewer bins are padded
        counts = np.append(counts[: len(labels) - 1], counts[-1])
    return _fewer(Distribution(labels, reference, counts))


def _counted(profile: Profile, names: Mapping[str, str]) -> tuple[str, int, list[str], Array] | None:
    """Find the counts of a series: part of the detail, index there, labels of the bins, the reference's counts."""
    feature, what = names.get("feat_name", ""), names.get("what", "")
    if feature in profile.numeric.place:
        return "numeric", *_numeric(profile.numeric, profile.numeric.place[feature])
    for i, column in enumerate(profile.categorical):
        if column.name == feature:
            binned = min(BINNED, len(column.categories))
            rest = int(column.counts[binned:].sum()) + column.other
            reference = np.concatenate([column.counts[:binned], [rest, column.missing]])
            return "codes", i, [*column.categories[:binned], "other", "missing"], reference
    if not feature and profile.score is not None and what in profile.score.names:
        return "score", *_numeric(profile.score, 0)
    if what.startswith("prediction_") and names.get("class_name") and profile.predicted is not None:
        return "predicted", 0, list(profile.schema.classes), profile.predicted
    return None


def _numeric(table: Numeric, at: int) -> tuple[int, list[str], Array]:
    edges = table.edges[:, at]
    edges = edges[np.isfinite(edges)]
    reference = np.append(table.counts[: len(edges) + 1, at], table.counts[-1, at])
    return at, [*_ranges(edges.tolist()), "missing"], reference


def _ranges(edges: Sequence[float]) -> list[str]:
    """Return labels of the bins between edges.

    >>> _ranges([1.0, 2.5])
    ['≤ 1', '1 – 2.5', '> 2.5']
    >>> _ranges([-5e-324, 0.0])
    ['< 0', '0', '> 0']
    """
    if not edges:
        return ["all"]
    texts = [f"{0.0 if abs(edge) < 1e-300 else edge:.4g}".replace("-", "−") for edge in edges]
    same = [one == two for one, two in pairwise(texts)]  # a value with a bin of its own
    first = f"{'<' if same and same[0] else '≤'} {texts[0]}"
    between = [low if low == high else f"{low} – {high}" for low, high in pairwise(texts)]
    return [first, *between, f"> {texts[-1]}"]


def _fewer(whole: Distribution) -> Distribution:
    """Drop empty "other" and "missing" bins, and sum the rarest of many bins."""
    labels, reference, current = whole
    kept = [i for i, name in enumerate(labels) if name not in ("other", "missing") or reference[i] or current[i]]
    labels, reference, current = [labels[i] for i in kept], reference[kept], current[kept]
    if len(labels) <= MOST_BINS:
        return Distribution(labels, reference, current)
    share = reference / max(1, reference.sum()) + current / max(1, current.sum())
    order = np.argsort(-share, kind="stable")
    shown, rest = np.sort(order[: MOST_BINS - 1]), order[MOST_BINS - 1 :]
    return Distribution(
        [*(labels[i] for i in shown), f"{len(rest)} further"],
        np.append(reference[shown], reference[rest].sum()),
        np.append(current[shown], current[rest].sum()),
    )


def over_reference(counts: Distribution | None) -> Figure | None:
    """Draw the shares of rows by bin, the window's as bars over the reference's."""
    if counts is None:
        return None
    at = list(range(len(counts.labels)))
    ticks = unique([label(name, 24) for name in counts.labels])
    traces = [
        {
            "type": "bar", "name": name, "x": at, "y": numbers(rows / max(1, rows.sum())), "width": width,
            "customdata": rows.tolist(), "text": ticks, "textposition": "none",
            "marker": {"color": color, "opacity": opacity, "line": {"width": 0}},
            "hovertemplate": f"%{{text}}<br>{name}: %{{y:.1%}}, %{{customdata:,}} rows<extra></extra>",
        }
        for name, rows, color, width, opacity in (
            ("reference", counts.reference, theme.QUIET, 0.84, 0.35),
            ("window", counts.current, theme.ACCENT, 0.42, 1.0),
        )
    ]  # fmt: skip
    return figure(
        traces,
        xaxis={"tickvals": at, "ticktext": ticks, "showgrid": False},
        yaxis={**PERCENT, "rangemode": "tozero"},
        barmode="overlay",
        hovermode="closest",
    )
