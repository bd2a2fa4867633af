"""Find the windows in which the model changed, from the written points alone. Pure, except for reading the files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 0.02  # spread of confidence and accuracy that a few hundred rows may show by chance
DEVIATIONS = 5.0


@dataclass(slots=True)
class WindowView:
    """The values of a window's rollup that the table and the summary show."""

    start: int
    rows: int = 0
    confidence: float = float("nan")
    accuracy: float = float("nan")
    shares: dict[str, float] = field(default_factory=dict)


def read_window(path: Path) -> WindowView:
    """Read a written file."""
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


def changed_windows(views: list[WindowView]) -> list[WindowView]:
    """Return windows whose confidence or accuracy is many median absolute deviations from the median window's."""
    changed: set[int] = set()
    for measure in ("confidence", "accuracy"):
        values = np.array([getattr(view, measure) for view in views])
        if not np.isfinite(values).any():
            continue
        distance = np.abs(values - np.nanmedian(values))
        spread = max(FLOOR, 1.4826 * float(np.nanmedian(distance)))
        changed.update(np.flatnonzero(distance > DEVIATIONS * spread).tolist())
    return [views[i] for i in sorted(changed)]
