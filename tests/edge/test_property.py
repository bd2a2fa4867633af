"""Any arguments, valid and broken: nothing raised, the points of a plain reference, and every row counted.

The caller's objects are changed in place right after each call. ``ZMON_FAULTS=1`` runs far more examples.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
from hypothesis import HealthCheck, given, settings

from tests.edge import reference
from tests.edge.breaks import mutate
from tests.edge.examples import Example, examples
from tests.edge.harness import DAY, OLD, Edge, Key, Outcome

EXAMPLES = 10_000 if os.environ.get("ZMON_FAULTS") else 200
COUNTS = ("feature_count", "confusion_count", "prediction_count", "buffer_count")  # none of them may be unexpected


@settings(
    max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(example=examples())
def test_points_are_those_of_the_plain_reference(edge: Edge, example: Example) -> None:
    refused_before = edge.refused_messages
    model = edge.model(**example.options)
    if example.warm is not None:
        model.publish(**example.warm, timestamps=OLD - DAY)
        model.flush()
    for call in example.calls:
        model.publish(**call.arguments)
        for value in call.arguments.values():
            mutate(value)
    found = model.end()
    rejected, degraded = reference.counted(example)
    warm = 8 if example.warm is not None else 0
    passed = sum(call.n for call in example.calls) + warm
    stats = found.stats[0]
    assert stats.published + sum(stats.rejected.values()) == passed, stats
    assert stats.acknowledged + sum(stats.rejected.values()) == passed
    assert found.rows == passed - rejected.total()
    for name, expected, ours, theirs in (
        ("rejected", rejected, found.rejected, stats.rejected),
        ("degraded", degraded, found.degraded, stats.degraded),
    ):
        assert ours == Counter(theirs), f"{name}: the collector counts {ours}, the publisher {theirs}"
        assert agree(Counter(ours), expected), f"{name}: {ours}, not {expected}"
    assert (found.lost, found.late, found.sampled_out) == (0, 0, 0)
    assert edge.refused_messages == refused_before, "the collector accepts what the publisher sends"
    assert len(found.log) <= len(found.rejected) + len(found.degraded), found.log
    points = renamed(found, example)
    # Without warming, the window has the columns of its first rows.
    features, segments = set(example.columns), {"s", "t"}
    if example.warm is None or not any(call.inputs is not None and reference.kept(call) for call in example.calls):
        features &= {dict(names).get("feat_name", "-") for names in points}
    if example.warm is None:
        segments &= {dict(names).get("segment_name", "-") for names in points}
    differences = list(compare(points, reference.points(example, features, segments)))
    assert not differences, "\n".join(differences)


def renamed(found: Outcome, example: Example) -> dict[Key, float]:
    """Return the points with the name of the nameless column, which has a stand-in."""
    others = found.features() - set(example.columns)
    assert len(others) <= ("" in example.columns), others
    return {
        tuple((name, "" if name == "feat_name" and value in others else value) for name, value in names): point
        for names, point in found.points.items()
    }


def agree(found: Counter[str], expected: Counter[str]) -> bool:
    """Return whether the counts agree; a reason ``"?"`` stands for any one."""
    exact = {reason: rows for reason, rows in expected.items() if reason != "?"}
    if "?" not in expected:
        return found == exact
    return found.total() == expected.total() and all(found[reason] >= rows for reason, rows in exact.items())


def compare(found: dict[Key, float], expected: dict[Key, float]) -> Iterator[str]:
    """Yield the differences between the points and those expected, of the series that the reference knows."""
    for names, value in expected.items():
        if names not in found:
            yield f"missing {dict(names)} = {value}"
        elif not np.isclose(found[names], value, rtol=1e-6, atol=1e-9):
            yield f"{dict(names)}: {found[names]}, not {value}"
    for names, value in found.items():
        what, in_segment = dict(names)["what"], "segment_name" in dict(names)
        if what in COUNTS and (what == "buffer_count") >= in_segment and value and names not in expected:
            yield f"unexpected {dict(names)} = {value}"
