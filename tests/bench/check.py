"""``python -m tests.bench.check``: what got worse since the committed figures. Compares ratios, never times.

A ratio is of two things measured in one run: a call and a raw send, a collector and NumPy, a thing and sixteen of it.
It fails when it is worse by more than TOLERANCE in each of two runs of its measurement: noise rarely comes twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.bench import suite
from tests.bench.given import Case
from tests.bench.measure import Table
from tests.bench.targets import one

TOLERANCE = 1.6
# Where the ratios come from.
MEASURED = ("capture", "forms", "rate", "states", "collector", "engine", "metrics", "scaling")


class Ratio(NamedTuple):
    """Whose figures it is from, its name, its value, and whether more is better."""

    measurement: str
    name: str
    value: float
    more: bool


def ratios(figures: dict[str, Any]) -> Iterator[Ratio]:
    """The ratios of a run's measurements, as far as they are there. Pure."""
    for row in figures.get("capture", []):
        if row["what"] == "publish":
            yield Ratio("capture", f"publish of raw send, {row['shape']}", row["of_raw"], False)
            yield Ratio("capture", f"publish of memcpy, {row['shape']}", row["of_memcpy"], False)
    for row in figures.get("forms", {}).get("calls", []):
        yield Ratio("forms", f"publish of raw send, {Case.of(row)}", row["of_raw"], False)
    for row in figures.get("rate", []):
        yield Ratio("rate", "processor time of a dict row, of a raw send", row["of_raw"], False)
    for row in figures.get("states", []):
        if row["state"] != "idle" and "copy" not in row["state"]:
            yield Ratio("states", f"publish of idle, {row['state']}", row["of_idle"], False)
    for row in figures.get("collector", []):
        name = f"collector of NumPy, {row['features']} features, {row['rows_a_message']} rows, {row['journal']}"
        yield Ratio("collector", name, row["of_numpy"], True)
    if rows := figures.get("engine"):
        slow, quick = (one(rows, preset=preset, workers=1)["values_per_second"] for preset in ("full", "default"))
        yield Ratio("engine", "engine, full preset of default", slow / quick, True)
    if rows := figures.get("metrics"):
        for row in rows:
            if row["step"] == "all of a micro-batch":
                join = one(rows, inputs=row["inputs"], step="join")
                yield Ratio("metrics", f"micro-batch of joining, {row['inputs']}", row["ms"] / join["ms"], False)
    for row in figures.get("scaling", []):
        yield Ratio("scaling", f"a unit at 16 times as many, {row['units']}", row["growth"], False)


def worse(old: dict[str, Any], new: dict[str, Any], tolerance: float = TOLERANCE) -> list[tuple[Ratio, float, float]]:
    """The ratios that got worse by more than the tolerance, the committed value, and by how much. Pure."""
    before = {each.name: each.value for each in ratios(old)}
    found = []
    for each in ratios(new):
        if each.name in before:
            factor = before[each.name] / each.value if each.more else each.value / before[each.name]
            if factor > tolerance:
                found.append((each, before[each.name], factor))
    return found


def main() -> None:
    old = suite.kept()
    if not list(ratios(old)):
        sys.exit("nothing to compare with: no figures are committed; `make bench ARGS=--keep` measures and writes them")
    suspects = worse(old, dict(suite.run(True, MEASURED)))
    again = tuple(name for name in MEASURED if name in {each.measurement for each, _, _ in suspects})
    names = {each.name for each, _, _ in suspects}
    found = [each for each in worse(old, dict(suite.run(True, again))) if each[0].name in names]
    compared = sum(each.measurement in MEASURED for each in ratios(old))
    if not found:
        print(f"none of {compared} ratios got worse by more than {TOLERANCE} ×")
        return
    rows = [(each.name, f"{was:.2f}", f"{each.value:.2f}", f"{factor:.1f} ×") for each, was, factor in found]
    print(
        Table(f"Worse than committed by more than {TOLERANCE} ×, twice", ("ratio", "was", "is", "worse"), rows).text()
    )
    sys.exit(1)


if __name__ == "__main__":
    main()
