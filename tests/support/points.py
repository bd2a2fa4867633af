"""Points of the files by the properties that tell series apart."""

from __future__ import annotations

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
