"""Find replicas that differ from their siblings: each one's counts against those of all others together. Pure.

The replica that differs most is removed first, then the others are compared again without it: otherwise one broken
replica, as a part of "the others", would make every healthy one look different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array
from zmon.contract import Point, Value
from zmon_plugins import distances
from zmon_plugins.reference_bins import ReferenceBins

LEAST = 3  # agents; of two, neither can be called the odd one
Parts = list[tuple[tuple[str, ...], Array, Array]]  # names, valid bins, counts


def compare_agents(
    by_agent: Mapping[str, dict[str, Any]], reference: ReferenceBins, min_rows: int, threshold: float
) -> Iterator[Point]:
    """Yield the points of every agent that has enough rows and enough siblings."""
    parts = {agent: _parts(acc, reference) for agent, acc in by_agent.items() if acc["predicted"].sum() >= min_rows
             or acc["score"].sum() >= min_rows}  # fmt: skip
    if len(parts) < 2:
        return
    odd: list[str] = []
    remaining = dict(parts)
    compared = _compare(remaining, threshold, len(parts))
    final = dict(compared)
    while len(remaining) >= LEAST:
        worst = max(compared, key=lambda agent: compared[agent][0])
        if compared[worst][0] <= 1:
            break
        odd.append(worst)
        final[worst] = compared[worst]
        del remaining[worst]
        compared = _compare(remaining, threshold, len(parts))
        final.update(compared if len(remaining) > 1 else {})
    if len(odd) * 2 >= len(parts):  # half of them differ: no group is "the others"
        odd = []
    for agent, (_, values) in final.items():
        for name, psi in values.items():
            yield Point(agent, Value("replica_drift", psi, feat_name=name, stat="psi"))
        if len(parts) >= LEAST:
            yield Point(agent, Value("replica_stands_out", int(agent in odd)))


def _parts(acc: dict[str, Any], reference: ReferenceBins) -> Parts:
    parts: Parts = [(("",), np.zeros_like(acc["predicted"]), acc["predicted"])]
    if reference.score is not None:
        parts.append(((reference.score_name,), reference.score_bins, acc["score"]))
    if reference.numeric:
        parts.append((reference.numeric, reference.bins, acc["numeric"]))
    parts += [
        ((column.name,), np.zeros_like(column.reference), counts[:, np.newaxis])
        for column, counts in zip(reference.categorical, acc["codes"], strict=True)
    ]
    return parts


def _compare(by_agent: Mapping[str, Parts], threshold: float, agents: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Return by agent the largest psi as a multiple of its threshold, and psi by name, against all others together."""
    totals = [sum(parts[i][2] for parts in by_agent.values()) for i in range(len(next(iter(by_agent.values()))))]
    tests = agents * sum(len(names) for names, _, _ in next(iter(by_agent.values())))
    compared = {}
    for agent, parts in by_agent.items():
        worst = 0.0
        values: dict[str, float] = {}
        for (names, bins, counts), total in zip(parts, totals, strict=True):
            others = np.where(bins >= 0, total - counts, -1)
            if not counts.any() or not (others > 0).any():
                continue
            psi = distances.psi(others, counts)
            worst = max(worst, float((psi / (threshold + distances.chance(others, counts, tests))).max()))
            values.update(zip(names, psi.tolist(), strict=True))
        compared[agent] = worst, values
    return compared
