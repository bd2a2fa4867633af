"""The panels of a model's and a series' view: a title, a figure, and what to say while there is nothing to show. Pure.

The page, the notebook and the report take their figures from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zmon.reference import Profile
from zmon_collector.dashboard import distributions, figures, theme
from zmon_collector.dashboard.distributions import Detail
from zmon_collector.dashboard.figures import Figure
from zmon_collector.dashboard.movers import Movers, rank_movers
from zmon_collector.dashboard.plugin_series import Declarations, measures_of_plugins
from zmon_collector.dashboard.timeseries import TimeSeries, select

Panel = dict[str, Any]

# Read for a model's view, in addition to the measures that compare replicas and versions.
MODEL_WHAT = (
    "prediction_freq", "max_prediction_proba", "prediction_entropy", "accuracy", "estimated_accuracy", "f1",
    "precision", "recall", "balanced_accuracy", "roc_auc", "label_coverage", "confusion_count", "calibration_ece",
    "calibration_mce", "buffer_count", "mae", "rmse", "bias", "prediction_value",
    "target_value",
)  # fmt: skip
MODEL_STAT = ("", "mean", "q25", "q75", "macro", "median", "q05", "q95")
FEATURE_WHAT = ("feature_value", "feature_drift")  # of all features, only what their heat map needs
FEATURE_STAT = ("mean", "std", "psi")
SHARED_WHAT = ("buffer_count", "max_prediction_proba", "accuracy", "estimated_accuracy", "mae")
ROW_COUNTS = ("rows_lost", "rows_late", "rows_rejected", "rows_degraded", "rows_sampled_out")
TREND = 48  # points of a mover's sparkline
MOVERS = 100
MOST_PLUGIN_CHARTS = 12  # on one model's view; the search finds the others
MOST_PLUGIN_LINES = len(theme.PALETTE)
SHARES = {"accuracy", "f1", "precision", "recall", "max_prediction_proba", "spread12_prediction_proba",
          "prediction_entropy", "prediction_freq", "feature_missing_freq", "class_proba", "label_freq",
          "estimated_accuracy", "balanced_accuracy", "label_coverage", "drifted_feature_freq"}  # fmt: skip

NO_LABELS = "No labels yet. Scores appear once the publisher gives labels, or the collector estimates them."
NO_REFERENCE = (
    "No reference profile yet. Make one of training data with zmon profile, and name it in zmon.toml: "
    '[models.NAME] reference = "reference.zmon". Or let the first windows be it: [metrics] reference_windows = 20.'
)
NO_PLUGIN_SERIES = "No values in this range, or more than a chart may read: choose another range."
SHARED_NAMES = {"what", "model", "model_version", "stat"}  # of all lines of a plugin's chart
NO_FEATURES = "No inputs yet. Publish them with publish(probabilities, inputs=…)."


def panel(
    name: str, title: str, note: str, figure: Figure | None, empty: str, *, span: int = 6, what: str = ""
) -> Panel:
    """Make one card, `span` of twelve columns wide; `what` lists the measures in its CSV."""
    return {"id": name, "title": title, "note": note, "span": span, "what": what, "figure": figure, "empty": empty}


def model_panels(
    series: Sequence[TimeSeries],
    replicas: Sequence[TimeSeries],
    versions: Sequence[TimeSeries],
    period: int,
    *,
    reliability: Panel | None = None,
    declared: Declarations | None = None,
) -> list[Panel]:
    """Return the panels of a model.

    Parameters
    ----------
    series : sequence of TimeSeries
        The rollup's, or one replica's without its ``agent_id``.
    replicas, versions : sequence of TimeSeries
        Those of every replica and of every version, with their names.
    period : int
        Seconds of a window.
    reliability : Panel, optional
        The calibration curve: it needs the details of windows, which files do not hold.
    declared : mapping, optional
        What metrics declare of their series: titles and notes of plugins' charts.
    """
    series, replicas, versions = (_of_all_rows(given) for given in (series, replicas, versions))
    ranked = rank_movers(series)
    regression = figures.errors(series)
    panels = [
        panel("classes", "Predicted classes", "Share of the rows", figures.classes(series),
              "No predicted classes in this range.", what="prediction_freq"),
        panel("confidence", "Confidence", "Highest probability of a row, and entropy", figures.confidence(series),
              "No probabilities in this range: the model publishes labels or values only.",
              what="max_prediction_proba,prediction_entropy"),
        panel("movement", "Features over time", _movement_note(ranked), figures.movement(ranked), NO_FEATURES, span=8,
              what="feature_drift" if ranked and ranked.kind == "psi" else "feature_value"),
        panel("quality", "Performance", "On the rows that have a label", figures.quality(series), NO_LABELS,
              what="accuracy,f1,estimated_accuracy,balanced_accuracy,roc_auc"),
        panel("by_class", "Performance per class", "F1 of one class against the rest", figures.by_class(series),
              NO_LABELS, what="f1,precision,recall"),
        panel("confusion", "Confusion matrix", "Newest window; shares along the true class", figures.confusion(series),
              "Needs labels and confusion_count: [metrics] preset = \"full\".", what="confusion_count"),
        *([reliability] if reliability else []),
        panel("calibration", "Calibration", "Between confidence and accuracy, 15 bins", figures.calibration(series),
              "No calibration_ece yet: it needs labels.", what="calibration_ece"),
        panel("rows", "Rows", "Per second, and what is missing", figures.rows([*series, *replicas], period),
              "No rows in this range.", span=6 if reliability else 12, what="buffer_count,rows_lost,rows_late"),
        *_compared("replica", "agent_id", replicas, period),
        *_compared("version", "model_version", versions, period),
        *plugin_panels(series, replicas, declared or {}),
    ]  # fmt: skip
    if regression is not None:
        panels.insert(0, panel("errors", "Errors", "Prediction minus target", regression, NO_LABELS, what="mae,rmse"))
    return panels


def reliability_panel(details: Sequence[Detail]) -> Panel:
    """Draw the calibration curve of windows with labelled rows, given newest first."""
    curve = distributions.reliability(details[0], details[1:]) if details else None
    return panel(
        "reliability", "Calibration curve", "How often a row is right, by its confidence; bars are rows", curve,
        "No labelled rows with probabilities in this range: the curve needs both.",
    )  # fmt: skip


def reference_panel(profile: Profile | None, detail: Detail | None, names: Mapping[str, str]) -> Panel:
    """Draw the newest window's rows by the reference's bins, over the reference's own."""
    chart, empty = None, "No window of this range has such rows."
    if profile is None:
        empty = NO_REFERENCE
    elif not distributions.covers(profile, names):
        empty = "The reference does not cover this series: it holds features, predictions and their confidence."
    elif detail is not None and detail["of"] != profile.digest:
        empty = "The windows of this range were measured against a different reference than the current one."
    elif detail is not None:
        chart = distributions.over_reference(distributions.distribution(profile, detail, names))
    note = "Rows by the reference's bins; newest window, all replicas"
    return panel("reference", "Against the reference", note, chart, empty)


def _of_all_rows(series: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Leave out the series of segments: they would be mixed with those of all rows."""
    return [ts for ts in series if not ts.get("segment_name")]


def _movement_note(ranked: Movers | None) -> str:
    if ranked is not None and ranked.kind == "psi":
        return "Population stability index against the reference; 0.25 is large"
    return "Shift of the mean in standard deviations, against the median window; the largest first"


def _compared(what: str, key: str, series: Sequence[TimeSeries], period: int) -> list[Panel]:
    plain = {"class_name": None, "feat_name": None}
    confidence = select(series, "max_prediction_proba", stat="mean", **plain)
    scores = select(series, "accuracy", stat=None, **plain) or select(series, "mae", stat=None, **plain)
    rows = select(series, "buffer_count")
    if len({ts.get(key) for ts in rows}) < 2:
        return [panel(f"{what}_alone", f"{what.capitalize()}s side by side", "", None,
                      f"Only one {what} in this range. A second one would be shown next to it.", span=12)]  # fmt: skip
    return [
        panel(f"{what}_confidence", f"Confidence by {what}", "Mean of the highest probability",
              figures.side_by_side(confidence, key), "No probabilities here.", span=4, what="max_prediction_proba"),
        panel(f"{what}_accuracy", f"Accuracy by {what}", "On the rows that have a label",
              figures.side_by_side(scores, key), NO_LABELS, span=4,
              what="accuracy"),
        panel(f"{what}_rows", f"Rows by {what}", "Per second",
              figures.side_by_side(rows, key, percent=False, rate=float(max(1, period))), "No rows in this range.",
              span=4, what="buffer_count"),
    ]  # fmt: skip


def mark_partial(panels: list[Panel], window: tuple[int, int] | None) -> list[Panel]:
    """Mark the open window in every chart over time."""
    for card in panels:
        if window and card["figure"] and card["figure"]["layout"].get("xaxis", {}).get("type") == "date":
            figures.mark_window(card["figure"], *window)
    return panels


def mover_table(ranked: Movers | None) -> dict[str, Any]:
    """List features, the one that moved most first, with peak, newest score and sparkline."""
    if ranked is None:
        return {"kind": "", "rows": []}
    rows = [
        {
            "name": ranked.names[i],
            "peak": float(f"{ranked.peak[i]:.4g}"),
            "now": figures.numbers([ranked.now[i]])[0],
            "trend": figures.numbers(ranked.scores[i][-TREND:]),
        }
        for i in ranked.order[:MOVERS].tolist()
    ]
    return {"kind": ranked.kind, "rows": rows, "features": len(ranked.names)}


def series_panels(
    series: Sequence[TimeSeries],
    by_agent: Sequence[TimeSeries],
    drift: Sequence[TimeSeries],
    what: str,
    reference: Panel | None = None,
) -> list[Panel]:
    """Return the panels of one series: over time, over the reference, drift, replicas side by side, spread."""
    percent = what in SHARES
    centre = select(by_agent, what, stat=("mean", "macro")) or select(by_agent, what, stat=None)
    spread = [ts for stat in ("std", "iqr", "range") for ts in select(series, what, stat=stat)]
    statistics = sorted({ts.get("stat") for ts in drift})
    return [
        panel("bands", "Over time", "Median, mean, and bands between quantiles", figures.bands(series, percent=percent),
              "No such series in this range.", span=12, what=what),
        *([reference] if reference else []),
        panel("drift", "Drift", "Distance from the reference", figures.named_lines(drift, statistics),
              "No drift is computed for this series: it needs a reference profile.", what="feature_drift"),
        panel("by_replica", "By replica", "The same series of each replica",
              figures.side_by_side(centre, "agent_id", percent=percent), "No series of single replicas.", what=what),
        panel("spread", "Spread", "Standard deviation, interquartile range, range",
              figures.named_lines(spread, [ts.get("stat") for ts in spread]),
              "This series has no statistics of spread.", what=what),
    ]  # fmt: skip


def plugin_panels(series: Sequence[TimeSeries], replicas: Sequence[TimeSeries], declared: Declarations) -> list[Panel]:
    """Return one chart per measure that no built-in metric gives; of replicas where the rollup has none."""
    measures = sorted(measures_of_plugins(ts.get("what") for ts in (*series, *replicas)))
    panels = []
    for what in measures[:MOST_PLUGIN_CHARTS]:
        lines = _central(select(series, what) or select(replicas, what))
        note = declared[what].definition if what in declared else "Series of a plugin"
        if len(lines) > MOST_PLUGIN_LINES:
            note += f"; {MOST_PLUGIN_LINES} of {len(lines)} series, the search finds the others"
        title = f"{declared[what].metric}: {what}" if what in declared else what
        panels.append(panel(f"plugin:{what}", title, note, _plugin_chart(lines), NO_PLUGIN_SERIES, what=what))
    if len(measures) > MOST_PLUGIN_CHARTS:
        text = f"Only {MOST_PLUGIN_CHARTS} measures of plugins have a chart here. The search finds the others."
        panels.append(panel("plugin_further", "Further series of plugins", "", None, text, span=12))
    return panels


def _central(series: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Keep one statistic per class or feature, so that a chart compares like with like; all of a single series."""
    stats = {ts.get("stat") for ts in series}
    if len(stats) == len(series):
        return list(series)
    central = next((stat for stat in ("", "mean", "macro", "median") if stat in stats), min(stats, default=""))
    return [ts for ts in series if ts.get("stat") == central]


def _plugin_chart(lines: Sequence[TimeSeries]) -> Figure | None:
    lines = [ts for ts in lines if len(ts.times)]
    if len({ts.get("stat") for ts in lines}) == len(lines):
        return figures.bands(lines)
    lines = lines[:MOST_PLUGIN_LINES]
    names = [" ".join(value for name, value in ts.names.items() if name not in SHARED_NAMES) for ts in lines]
    return figures.named_lines(lines, names, from_zero=False)
