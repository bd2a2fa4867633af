"""What a view is made of: panels with a title, a figure, and what it says when there is nothing to show yet. Pure.

The page, the notebook and the report all take their figures from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from zmon.reference import Profile
from zmon_collector.dashboard import distributions, figures
from zmon_collector.dashboard.distributions import Detail
from zmon_collector.dashboard.figures import Figure
from zmon_collector.dashboard.movers import Movers, rank_movers
from zmon_collector.dashboard.timeseries import TimeSeries, select

Panel = dict[str, Any]

# What a model's view reads, besides its replicas' and versions' own measures.
MODEL_WHAT = (
    "prediction_freq", "max_prediction_proba", "prediction_entropy", "accuracy", "estimated_accuracy", "f1",
    "precision", "recall", "balanced_accuracy", "roc_auc", "label_coverage", "confusion_count", "calibration_ece",
    "calibration_mce", "buffer_count", "mae", "rmse", "bias", "prediction_value",
    "target_value",
)  # fmt: skip
MODEL_STAT = ("", "mean", "q25", "q75", "macro", "median", "q05", "q95")
FEATURE_WHAT = ("feature_value", "feature_drift")  # of all features: only what the map of them needs
FEATURE_STAT = ("mean", "std", "psi")
SHARED_WHAT = ("buffer_count", "max_prediction_proba", "accuracy", "estimated_accuracy", "mae")
ROW_COUNTS = ("rows_lost", "rows_late", "rows_rejected", "rows_sampled_out")
TREND = 48  # points of a mover's small line
MOVERS = 100
SHARES = {"accuracy", "f1", "precision", "recall", "max_prediction_proba", "spread12_prediction_proba",
          "prediction_entropy", "prediction_freq", "feature_missing_freq", "class_proba", "label_freq",
          "estimated_accuracy", "balanced_accuracy", "label_coverage", "drifted_feature_freq"}  # fmt: skip

NO_LABELS = "No labels yet. Scores appear once the publisher gives labels, or the collector estimates them."
NO_REFERENCE = (
    "No reference profile yet. Make one of training data with zmon profile, and name it in zmon.toml: "
    '[models.NAME] reference = "reference.zmon". Or let the first windows be it: [metrics] reference_windows = 20.'
)
NO_FEATURES = "No inputs yet. Publish them with publish(probabilities, inputs=…)."


def panel(
    name: str, title: str, note: str, figure: Figure | None, empty: str, *, span: int = 6, what: str = ""
) -> Panel:
    """One card: `span` of twelve columns; `what` are the measures that its CSV holds."""
    return {"id": name, "title": title, "note": note, "span": span, "what": what, "figure": figure, "empty": empty}


def model_panels(
    lines: Sequence[TimeSeries],
    replicas: Sequence[TimeSeries],
    versions: Sequence[TimeSeries],
    period: int,
    reliability: Panel | None = None,
) -> list[Panel]:
    """A model's panels. `lines` are the rollup's or one replica's, without its name; the others carry theirs.

    `reliability` is for who has the details of windows: files do not hold them.
    """
    found = rank_movers(lines)
    regression = figures.errors(lines)
    panels = [
        panel("classes", "Predicted classes", "Share of the rows", figures.classes(lines),
              "No predicted classes in this range.", what="prediction_freq"),
        panel("confidence", "Confidence", "Highest probability of a row, and entropy", figures.confidence(lines),
              "No probabilities in this range: the model publishes labels or values only.",
              what="max_prediction_proba,prediction_entropy"),
        panel("movement", "Features over time", _movement_note(found), figures.movement(found), NO_FEATURES, span=8,
              what="feature_drift" if found and found.kind == "psi" else "feature_value"),
        panel("quality", "Performance", "On the rows that have a label", figures.quality(lines), NO_LABELS,
              what="accuracy,f1,estimated_accuracy,balanced_accuracy,roc_auc"),
        panel("by_class", "Performance per class", "F1 of one class against the rest", figures.by_class(lines),
              NO_LABELS, what="f1,precision,recall"),
        panel("confusion", "Confusion matrix", "Newest window; shares along the true class", figures.confusion(lines),
              "Needs labels and confusion_count: [metrics] preset = \"full\".", what="confusion_count"),
        *([reliability] if reliability else []),
        panel("calibration", "Calibration", "Between confidence and accuracy, 15 bins", figures.calibration(lines),
              "No calibration_ece yet: it needs labels.", what="calibration_ece"),
        panel("rows", "Rows", "A second, and what is missing", figures.rows([*lines, *replicas], period),
              "No rows in this range.", span=6 if reliability else 12, what="buffer_count,rows_lost,rows_late"),
        *_compared("replica", "agent_id", replicas, period),
        *_compared("version", "model_version", versions, period),
    ]  # fmt: skip
    if regression is not None:
        panels.insert(0, panel("errors", "Errors", "Prediction minus target", regression, NO_LABELS, what="mae,rmse"))
    return panels


def reliability_panel(details: Sequence[Detail]) -> Panel:
    """The calibration curve, of windows whose rows have labels, the newest first."""
    made = distributions.reliability(details[0], details[1:]) if details else None
    return panel(
        "reliability", "Calibration curve", "How often a row is right, by its confidence; bars are rows", made,
        "No labelled rows with probabilities in this range: the curve needs both.",
    )  # fmt: skip


def reference_panel(profile: Profile | None, detail: Detail | None, names: Mapping[str, str]) -> Panel:
    """The rows of the newest window by the reference's bins, over the reference's own."""
    made, empty = None, "No window of this range has such rows."
    if profile is None:
        empty = NO_REFERENCE
    elif not distributions.covers(profile, names):
        empty = "The reference says nothing of this series: it holds features, predictions and their confidence."
    elif detail is not None and detail["of"] != profile.digest:
        empty = "The windows of this range were measured against another reference than the present one."
    elif detail is not None:
        made = distributions.over_reference(distributions.distribution(profile, detail, names))
    note = "Rows by the reference's bins; newest window, all replicas"
    return panel("reference", "Against the reference", note, made, empty)


def _movement_note(found: Movers | None) -> str:
    if found is not None and found.kind == "psi":
        return "Population stability index against the reference; 0.25 is large"
    return "Shift of the mean in standard deviations, against the median window; those that moved most first"


def _compared(what: str, key: str, lines: Sequence[TimeSeries], period: int) -> list[Panel]:
    plain = {"class_name": None, "feat_name": None}
    confidence = select(lines, "max_prediction_proba", stat="mean", **plain)
    scores = select(lines, "accuracy", stat=None, **plain) or select(lines, "mae", stat=None, **plain)
    rows = select(lines, "buffer_count")
    if len({line.get(key) for line in rows}) < 2:
        return [panel(f"{what}_alone", f"{what.capitalize()}s side by side", "", None,
                      f"Only one {what} in this range: a second one appears beside it here.", span=12)]  # fmt: skip
    return [
        panel(f"{what}_confidence", f"Confidence by {what}", "Mean of the highest probability",
              figures.side_by_side(confidence, key), "No probabilities here.", span=4, what="max_prediction_proba"),
        panel(f"{what}_accuracy", f"Accuracy by {what}", "On the rows that have a label",
              figures.side_by_side(scores, key), NO_LABELS, span=4,
              what="accuracy"),
        panel(f"{what}_rows", f"Rows by {what}", "A second",
              figures.side_by_side(rows, key, percent=False, rate=float(max(1, period))), "No rows in this range.",
              span=4, what="buffer_count"),
    ]  # fmt: skip


def mark_partial(panels: list[Panel], window: tuple[int, int] | None) -> list[Panel]:
    """The panels with the window that is still being filled marked in every chart over time."""
    for each in panels if window else []:
        if each["figure"] is not None and each["figure"]["layout"].get("xaxis", {}).get("type") == "date":
            figures.mark_window(each["figure"], *window)  # type: ignore[misc]
    return panels


def mover_table(found: Movers | None) -> dict[str, Any]:
    """The features that moved most first: their peak and newest score, and a small line."""
    if found is None:
        return {"kind": "", "rows": []}
    rows = [
        {
            "name": found.names[i],
            "peak": float(f"{found.peak[i]:.4g}"),
            "now": figures.numbers([found.now[i]])[0],
            "trend": figures.numbers(found.scores[i][-TREND:]),
        }
        for i in found.order[:MOVERS].tolist()
    ]
    return {"kind": found.kind, "rows": rows, "features": len(found.names)}


def series_panels(
    lines: Sequence[TimeSeries],
    by_agent: Sequence[TimeSeries],
    drift: Sequence[TimeSeries],
    names: Mapping[str, str],
    reference: Panel | None = None,
) -> list[Panel]:
    """One series: its quantiles over time, the reference, replicas side by side, spread, drift."""
    what = names.get("what", "")
    percent = what in SHARES
    centre = select(by_agent, what, stat=("mean", "macro")) or select(by_agent, what, stat=None)
    spread = [line for stat in ("std", "iqr", "range") for line in select(lines, what, stat=stat)]
    statistics = sorted({line.get("stat") for line in drift})
    return [
        panel(
            "bands",
            "Over time",
            "Median, mean, and the quantiles' bands",
            figures.bands(lines, percent=percent),
            "No such series in this range.",
            span=12,
            what=what,
        ),
        *([reference] if reference else []),
        panel(
            "drift",
            "Drift",
            "Distance from the reference",
            figures.several(drift, statistics),
            "No drift is computed for this series: it needs a reference profile.",
            what="feature_drift",
        ),
        panel(
            "by_replica",
            "By replica",
            "The same series of each replica",
            figures.side_by_side(centre, "agent_id", percent=percent),
            "No series of single replicas.",
            what=what,
        ),
        panel(
            "spread",
            "Spread",
            "Standard deviation, interquartile range, range",
            figures.several(spread, [line.get("stat") for line in spread]),
            "This series has no statistics of spread.",
            what=what,
        ),
    ]


def health_panels(
    beats: Sequence[Mapping[str, Any]], plugins: Sequence[Mapping[str, Any]], replicas: Sequence[TimeSeries]
) -> list[Panel]:
    """The collector's own health, from its newest looks at itself."""
    times = [int(beat["time"]) for beat in beats]
    busy = [row for row in plugins if row.get("seconds")]
    delays = select(replicas, "transport_delay_seconds", stat=("mean", "q95"), agent_id=None)
    return [
        panel(
            "received",
            "Rows received",
            "A second",
            _rates(beats, times, ("rows", "duplicates")),
            "Nothing received yet.",
        ),
        panel(
            "missing",
            "Rows not in a window",
            "A second: lost, late or rejected",
            _rates(beats, times, ("lost", "rejected", "late_or_conflicting", "rejected_messages")),
            "Nothing is missing.",
        ),
        panel(
            "waiting",
            "Waiting",
            "MiB of rows that wait for metrics",
            _levels(beats, times, "backlog_bytes", 2.0**-20),
            "Nothing waits.",
            span=4,
        ),
        panel(
            "outbox",
            "Outbox",
            "Reports that wait for a sink",
            _levels(beats, times, "outbox"),
            "Nothing waits.",
            span=4,
        ),
        panel(
            "windows", "Open windows", "Of all models", _levels(beats, times, "open_windows"), "None is open.", span=4
        ),
        panel(
            "plugins",
            "Time of metrics",
            "Seconds of computing since the start",
            figures.ranking([row["name"] for row in busy], [row["seconds"] for row in busy], " s"),
            "No metric has run yet.",
        ),
        panel(
            "lag",
            "Transport delay",
            "From publish to receipt",
            figures.several(delays, [f"{line.get('model')} {line.get('stat')}" for line in delays]),
            "No transport_delay_seconds yet.",
        ),
    ]


def _counter(beat: Mapping[str, Any], name: str) -> float:
    counters: Mapping[str, int] = beat.get("counters", {})
    return float(sum(count for key, count in counters.items() if key.partition("{")[0] == name))


def _rates(beats: Sequence[Mapping[str, Any]], times: Sequence[int], names: Sequence[str]) -> Figure | None:
    found, shown = [], []
    for name in names:
        counts = [_counter(beat, name) for beat in beats]
        if len(counts) < 2 or not counts[-1]:
            continue
        rates = [
            (after - before) / max(1e-9, beats[i + 1]["mono"] - beats[i]["mono"])
            for i, (before, after) in enumerate(pairwise(counts))
        ]
        found.append(figures.points(times[1:], rates))
        shown.append(name.replace("_", " "))
    return figures.several(found, shown)


def _levels(beats: Sequence[Mapping[str, Any]], times: Sequence[int], name: str, factor: float = 1.0) -> Figure | None:
    values = [float(beat.get(name) or 0) * factor for beat in beats]
    return figures.several([figures.points(times, values)], [name.replace("_", " ")]) if len(values) > 1 else None
