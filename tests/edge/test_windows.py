"""Calls of one window that do not have the same parts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.edge.forms import sharp
from tests.edge.harness import DAY, OLD, Edge

N = 20
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]


def test_inputs_that_begin_within_a_window_disturb_nothing(edge: Edge) -> None:
    """Their columns join the windows that open later; until then metrics of inputs have nothing to do."""
    for _ in range(4):  # a metric that fails in three windows in a row is disabled
        model = edge.model(classes=NAMES)
        model.publish(P, labels=Y)
        model.flush()
        model.publish(P, np.ones((N, 3)), Y)
        model.publish(P, [{"x": "a", "feat_0": 1.0}] * N, Y)
        model.flush()
        model.publish(P, np.ones((N, 3)), Y, timestamps=OLD + DAY)
        found = model.end()
        assert (found.rows, found.features(), found["accuracy"]) == (4 * N, set(), 1.0)
        later = found.windows[int(OLD + DAY) // DAY * DAY]
        assert later[(("feat_name", "feat_2"), ("stat", "mean"), ("what", "feature_value"))] == 1.0
    assert not [line for line in edge.collector_log.lines if "metric" in line]


@pytest.mark.parametrize("rows", [N, 1])
def test_a_column_that_a_row_lacks_is_missing_whatever_its_kind(edge: Edge, rows: int) -> None:
    """However rows are gathered: a row with categories alone lacks its numbers."""
    model = edge.model(classes=NAMES)
    model.publish(P[:1], [{"number": 4.0, "text": "a"}], Y[:1])
    model.flush()
    for start in range(0, N, rows):
        model.publish(P[:rows], [{"number": 4.0}] * rows, Y[start : start + rows])
        model.flush()
    for start in range(0, N, rows):
        model.publish(P[:rows], [{"text": "a"}] * rows, Y[start : start + rows])
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected) == (3 * N + 1, {})
    assert found.get("feature_missing_freq", feat_name="number") == pytest.approx(N / (2 * N + 1))
    assert found.get("feature_missing_freq", feat_name="text") == pytest.approx(N / (2 * N + 1))
    assert found.feature("number") == 4.0
    assert found.categories("text") == {"a": N + 1}
