"""Reports with every series that the page draws, made without a collector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmon_collector.compute import details as behind_values
from zmon_plugins.metrics.calibration import Calibration
from zmon_plugins.metrics.drift import Drift

from zmon import Context, Point, Report, Value, Window
from zmon.reference import Profile, Reader


def window(
    sequence: int,
    start: int,
    *,
    model: str = "m",
    version: str = "",
    agents: tuple[str, ...] = ("a", "b"),
    classes: tuple[str, ...] = ("no", "yes"),
    features: tuple[str, ...] = ("age", "amount"),
    shares: Mapping[str, float] | None = None,
    confidence: float = 0.9,
    shift: float = 0.0,
    period: int = 10,
    lost: int = 0,
    details: Mapping[tuple[str | None, str], bytes] | None = None,
) -> Report:
    """A report with every series that the page draws."""
    points = []
    for agent in (None, *agents):
        own = [
            Value("buffer_count", 100 if agent else 100 * len(agents)),
            Value("accuracy", confidence - 0.05),
            Value("f1", confidence - 0.1, stat="macro"),
            Value("prediction_entropy", 1 - confidence, stat="mean"),
            *(Value("max_prediction_proba", confidence + add, stat=stat)
              for stat, add in (("mean", 0.0), ("median", 0.01), ("q25", -0.1), ("q75", 0.05))),
        ]  # fmt: skip
        for name in classes:
            own.append(Value("prediction_freq", (shares or {}).get(name, 1 / len(classes)), class_name=name))
            own += [Value(what, confidence, class_name=name) for what in ("f1", "precision", "recall")]
            own += [Value("confusion_count", 5, class_name=name, predicted=other) for other in classes]
        for i, name in enumerate(features):
            stats = {"mean": i + shift, "std": 1.0, "median": float(i), "q25": i - 1.0, "q75": i + 1.0}
            own += [Value("feature_value", value, feat_name=name, stat=stat) for stat, value in stats.items()]
        if agent:
            own.append(Value("rows_lost", lost))
        points += [Point(agent, value) for value in own]
    return Report(sequence, model, version, Window(start, start + period), points, details=details or {})


def behind(
    profile: Profile, probabilities: Any, inputs: Any, labels: Any = None
) -> dict[tuple[str | None, str], bytes]:
    """The details that the metrics give of these rows."""
    ctx = Context("m", "", None, profile.schema, Window(0, 10), reference=profile)
    found: dict[tuple[str | None, str], bytes] = {}
    reader = Reader(classes=list(profile.schema.classes), features=list(profile.schema.features))
    for batch in reader.batches(probabilities, inputs, labels):
        for metric in (Drift(), Calibration()):
            behind_values.add(found, metric, metric.update(metric.create(ctx), batch, ctx), ctx)
    return found
