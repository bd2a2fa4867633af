"""Classes are names, whatever order anybody lists them in: random publishers and label jobs, against plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmon_collector.config import parse
from zmon_collector.storage import journal

from tests.support.unstarted import Table
from zmon import Point
from zmon.batch import Schema

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Table]]:
    """Tables, each ended when the next is made: an example of Hypothesis makes its own."""
    made: list[Table] = []

    def one() -> Table:
        while made:
            made.pop().end()
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        made.append(Table(folder, parse({"metrics": {"preset": "full"}})))
        return made[-1]

    yield one
    for table in made:
        table.end()


def close_all(table: Table) -> list[Point]:
    """Points of the rollup of all open windows, which are closed for good."""
    count = sum(len(model.windows.open) for model in table.ingestor.models.values())
    table.ingestor.close_all(table.now)
    table.end_turn()
    points = []
    for closed in table.finished(count):
        journal.write_closed(closed.number, closed.model, {}, table.disk)
        table.disk.execute("DELETE FROM chunks WHERE window = ?", (closed.number,))
        points += [point for point in closed.points if point.agent_id is None]
    return points


def confusion(points: list[Point]) -> Counter[tuple[str, str]]:
    """Rows by (predicted, label)."""
    found: Counter[tuple[str, str]] = Counter()
    for _, value in points:
        if value.what == "confusion_count":
            found[value.predicted, value.class_name] += int(value.value)
    return found


names = st.sampled_from([("no", "yes"), ("a", "b", "c")])
steps = st.lists(st.sampled_from(["rows", "rows", "labels", "labels", "turn", "restart"]), max_size=12)


@st.composite
def rows(draw: st.DrawFn, classes: tuple[str, ...]) -> dict[str, Any]:
    """Rows of a publisher that has an order and a threshold of its own."""
    order = draw(st.permutations(classes))
    n = draw(st.integers(1, 6))
    weights = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=len(order), max_size=len(order)), min_size=n, max_size=n)
    )
    p = np.array(weights, float) / np.sum(weights, axis=1, keepdims=True)
    labels = draw(st.lists(st.integers(-1, len(order) - 1), min_size=n, max_size=n))
    threshold = draw(st.sampled_from([0.2, 0.5, 0.8]))
    predicted = (p[:, 1] > threshold).astype(int) if len(order) == 2 else p.argmax(axis=1)
    return {
        "schema": Schema(classes=tuple(order), threshold=threshold),
        "p": p,
        "labels": np.array(labels),
        "predicted": [order[i] for i in predicted],
        "truth": [order[i] if i >= 0 else None for i in labels],
    }


@SETTINGS
@given(st.data())
def test_rows_of_publishers_that_list_classes_differently(fresh: Callable[[], Table], data: st.DataObject) -> None:
    table, classes = fresh(), data.draw(names)
    pairs: Counter[tuple[str, str]] = Counter()
    predictions: Counter[str] = Counter()
    for i, batch in enumerate(data.draw(st.lists(rows(classes), min_size=1, max_size=5))):
        table.send(batch["schema"], {"probabilities": batch["p"], "labels": batch["labels"]}, agent=f"agent {i}")
        predictions.update(batch["predicted"])
        pairs.update((p, t) for p, t in zip(batch["predicted"], batch["truth"], strict=True) if t is not None)
    points = close_all(table)
    counted = {value.class_name: value.value for _, value in points if value.what == "prediction_count"}
    assert {name: count for name, count in counted.items() if count} == predictions
    assert confusion(points) == pairs


@SETTINGS
@given(st.data())
def test_late_labels_of_jobs_that_list_classes_differently(fresh: Callable[[], Table], data: st.DataObject) -> None:
    """Rows and labels over turns, windows and restarts: each pair is counted once, under its names."""
    table, classes = fresh(), data.draw(names)
    first_row = first_label = 1
    predicted: dict[int, str] = {}
    truth: dict[int, str] = {}
    points: list[Point] = []
    for step in data.draw(
        st.lists(st.sampled_from(["rows", "rows", "labels", "labels", "turn", "restart"]), max_size=12)
    ):
        if step == "rows":
            batch = data.draw(rows(classes))
            ids = list(range(first_row, first_row + len(batch["p"])))
            table.send(batch["schema"], {"probabilities": batch["p"], "ids": np.array(ids)}, first=first_row)
            predicted |= dict(zip(ids, batch["predicted"], strict=True))
            first_row += len(ids)
        elif step == "labels" and len(truth) < 12:
            free = [i for i in range(1, 16) if i not in truth]
            ids = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=4, unique=True))
            order = data.draw(st.permutations([*classes, "unheard of"]))
            labels = np.array([data.draw(st.integers(0, len(order) - 1)) for _ in ids])
            columns = {"ids": np.array(ids), "labels": labels}
            table.send(Schema(classes=tuple(order)), columns, first=first_label, agent="job", kind="labels")
            truth |= {i: order[label] for i, label in zip(ids, labels.tolist(), strict=True) if order[label] in classes}
            first_label += len(ids)
        else:
            table.end_turn()
            if step == "restart":
                points += close_all(table)
                table.goes(60)
                disk, now = table.disk.serialize(), table.now
                table = fresh()
                table.disk.deserialize(disk)
                table.now = now
                table.recovery(table.disk).restore(now)
    points += close_all(table)
    assert confusion(points) == Counter((predicted[i], truth[i]) for i in predicted.keys() & truth.keys())


def test_labels_that_wait_for_rows_of_an_older_window_in_the_same_turn(fresh: Callable[[], Table]) -> None:
    """The rows bring the model's order of classes, and further labels decide on the window that the first opened."""
    table = fresh()
    jobs, hour_ago = Schema(classes=("yes", "no")), int((table.now.wall - 3600) * 1e9)

    def labels(number: int) -> None:
        columns = {"ids": np.array([number]), "labels": np.array([0])}  # yes
        table.send(jobs, columns, first=number, agent="job", kind="labels", ts=hour_ago)

    labels(1)
    table.send(
        Schema(classes=("no", "yes")),
        {"probabilities": np.array([[0.9, 0.1], [0.9, 0.1]]), "ids": np.array([1, 2])},
        ts=hour_ago,
    )
    labels(2)
    assert confusion(close_all(table)) == Counter({("no", "yes"): 2})
