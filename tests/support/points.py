"""Points of the files by the properties that tell series apart."""

from __future__ import annotations

import math
import re
import time
from typing import Any


def by_names(points: list[dict[str, Any]]) -> dict[tuple[tuple[str, str], ...], float]:
    """Values by their properties, without what every series has."""
    found: dict[tuple[tuple[str, str], ...], float] = {}
    for point in points:
        names = {k: v for k, v in point["properties"].items() if k not in ("ver", "target_type", "model")}
        key = tuple(sorted(names.items()))
        assert key not in found, f"two points of one series: {key}"
        found[key] = point["value"]
    return found


def legal(sample: dict[str, Any]) -> None:
    """The rules of the vendor's page, written a second time: not the project's own validator."""
    properties = sample["properties"]
    assert 1 <= len(properties) <= 20
    assert "what" in properties
    for name, value in properties.items():
        assert re.fullmatch(r"[^.=\s]{1,50}", name)
        assert re.fullmatch(r"[^.=\s]{1,150}", value)
    assert properties["target_type"] in ("gauge", "counter")
    assert len(sample["tags"]) <= 40
    assert all(isinstance(values, list) for values in sample["tags"].values())
    assert type(sample["timestamp"]) is int
    assert 0 <= sample["timestamp"] <= time.time() + 3600
    assert isinstance(sample["value"], int | float)
    assert math.isfinite(sample["value"])
