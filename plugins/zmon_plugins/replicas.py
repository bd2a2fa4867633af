"""Which replica differs from its siblings: each one's counts against those of all others together. Pure.

The one that differs most is taken out first, then the others are compared again without it: one broken replica would
otherwise make every sound one look unlike "the others", of which it is a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmon.contract import Point, Value
from zmon_plugins import distances
from zmon_plugins.reference_bins import ReferenceBins

Array = NDArray[Any]
LEAST = 3  # agents; of two nobody can tell which is the odd one
Parts = list[tuple[tuple[str, ...], Array, Array]]  # names, bins that there are, counts


def compared(
    by_agent: Mapping[str, dict[str, Any]], against: ReferenceBins, min_rows: int, threshold: float
) -> Iterator[Point]:
    """Points of every agent that has enough rows, and enough siblings."""
    parts = {agent: _parts(acc, against) for agent, acc in by_agent.items() if acc["predicted"].sum() >= min_rows
             or acc["score"].sum() >= min_rows}  # fmt: skip
    if len(parts) < 2:
        return
    named: list[str] = []
    left = dict(parts)
    found = _all(left, threshold, len(parts))
    final = dict(found)
    while len(left) >= LEAST:
        worst = max(found, key=lambda agent: found[agent][0])
        if found[worst][0] <= 1:
            break
        named.append(worst)
        final[worst] = found[worst]
        del left[worst]
        found = _all(left, threshold, len(parts))
        final.update(found if len(left) > 1 else {})
    if len(named) * 2 >= len(parts):  # half of them differ: there is no "the others"
        named = []
    for agent, (_, values) in final.items():
        for name, psi in values.items():
            yield Point(agent, Value("replica_drift", psi, feat_name=name, stat="psi"))
        if len(parts) >= LEAST:
            yield Point(agent, Value("replica_stands_out", int(agent in named)))


def _parts(acc: dict[str, Any], against: ReferenceBins) -> Parts:
    parts: Parts = [(("",), np.zeros_like(acc["predicted"]), acc["predicted"])]
    if against.score is not None:
        parts.append(((against.score_name,), against.score_bins, acc["score"]))
    if against.numeric:
        parts.append((against.numeric, against.bins, acc["numeric"]))
    parts += [
        ((column.name,), np.zeros_like(column.reference), counts[:, np.newaxis])
        for column, counts in zip(against.categorical, acc["codes"], strict=True)
    ]
    return parts


def _all(parts: Mapping[str, Parts], threshold: float, agents: int) -> dict[str, tuple[float, dict[str, float]]]:
    """By agent: the largest psi as a multiple of its threshold, and psi by name, against the others together."""
    totals = [sum(each[i][2] for each in parts.values()) for i in range(len(next(iter(parts.values()))))]
    tests = agents * sum(len(names) for names, _, _ in next(iter(parts.values())))
    found = {}
    for agent, own in parts.items():
        worst = 0.0
        values: dict[str, float] = {}
        for (names, there, counts), total in zip(own, totals, strict=True):
            others = np.where(there >= 0, total - counts, -1)
            if not counts.any() or not (others > 0).any():
                continue
            psi = distances.psi(others, counts)
            worst = max(worst, float((psi / (threshold + distances.chance(others, counts, tests))).max()))
            values.update(zip(names, psi.tolist(), strict=True))
        found[agent] = worst, values
    return found
