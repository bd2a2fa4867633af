"""In which windows did the model change? Answered from the written points alone. Pure but for reading the files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 0.02  # spread that confidence and accuracy of some hundred rows may show by chance
DEVIATIONS = 5.0


@dataclass(slots=True)
class WindowView:
    """What the table and the verdict need of a window's rollup."""

    start: int
    rows: int = 0
    confidence: float = float("nan")
    accuracy: float = float("nan")
    shares: dict[str, float] = field(default_factory=dict)


def read(path: Path) -> WindowView:
    """One written file."""
    samples: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    view = WindowView(samples[0]["timestamp"])
    for sample in samples:
        names, value = sample["properties"], sample["value"]
        if "agent_id" in names:
            continue
        match names["what"], names.get("class_name"), names.get("stat"):
            case "buffer_count", _, _:
                view.rows = value
            case "max_prediction_proba", _, "mean":
                view.confidence = value
            case "accuracy", None, _:
                view.accuracy = value
            case "prediction_freq", str(name), _:
                view.shares[name] = value
    return view


def changed(views: list[WindowView]) -> list[WindowView]:
    """Windows whose confidence or accuracy lies far from the median window's, in median absolute deviations."""
    found: set[int] = set()
    for measure in ("confidence", "accuracy"):
        values = np.array([getattr(view, measure) for view in views])
        if not np.isfinite(values).any():
            continue
        distance = np.abs(values - np.nanmedian(values))
        spread = max(FLOOR, 1.4826 * float(np.nanmedian(distance)))
        found.update(np.flatnonzero(distance > DEVIATIONS * spread).tolist())
    return [views[i] for i in sorted(found)]
