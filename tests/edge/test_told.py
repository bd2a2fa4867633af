"""Whoever sends something that cannot be used is told; nothing of it is remembered, and nobody else notices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.edge.forms import FRAMES, sharp
from tests.edge.harness import Edge, Log
from tests.support.frameworks import require
from tests.support.waiting import until

N = 40
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]
P3 = sharp([i % 3 for i in range(N)], 3)


# --- 7: what only the collector can know -----------------------------------------------------------------------------


def test_another_replica_has_another_kind(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    other = model.join(classes=NAMES, agent_id="b")
    model.publish(P, FRAMES["columns"]({"z": [1.5] * N}), Y)
    model.flush()
    model.publish(P, FRAMES["columns"]({"z": ["x"] * N, "w": [2.0] * N}), Y, publisher=other)
    model.publish(P, FRAMES["columns"]({"z": [1.5] * N}), Y)
    found = model.end()
    ours, theirs = found.stats
    assert (ours.rejected, ours.degraded) == ({}, {})
    assert sum(theirs.rejected.values()) + sum(theirs.degraded.values()) == N
    assert theirs.acknowledged + sum(theirs.rejected.values()) == N
    assert found.rejected + found.degraded == dict(theirs.rejected) | dict(theirs.degraded)
    assert found.rows + found.rejected.total() == 3 * N
    assert (found.feature("z"), found["accuracy"]) == (1.5, 1.0)
    assert len([line for line in found.log if "'z'" in line]) == 1, found.log


def test_one_publisher_changes_a_kind(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P[:1], [{"z": 1.0}], Y[:1])
    model.flush()
    for _ in range(3):
        model.publish(P[:1], [{"z": "a", "w": 1.0}], Y[:1])
        model.publish(P[:1], [{"z": 3.0, "w": 1.0}], Y[:1])
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (7, {}, 1.0)
    assert found.degraded.total() == 3
    assert found.stats[0].degraded == found.degraded
    assert found.feature("z") == 2.5
    assert found.get("feature_missing_freq", feat_name="z") == pytest.approx(3 / 7)
    assert len([line for line in found.log if "z" in line]) == 1, found.log


@pytest.mark.parametrize("first", [[0, 1], [False, True], [0.0, 1.0]], ids=str)
@pytest.mark.parametrize("then", [[0, 1], [False, True], [0.0, 1.0]], ids=str)
@pytest.mark.parametrize("replicas", [1, 2])
def test_zeros_and_ones_agree_with_booleans(edge: Edge, first: list[Any], then: list[Any], replicas: int) -> None:
    model = edge.model(classes=NAMES)
    other = model.join(classes=NAMES, agent_id="b") if replicas == 2 else model.publisher
    model.publish(P, FRAMES["columns"]({"vip": first * (N // 2)}), Y)
    model.flush()
    model.publish(P, FRAMES["columns"]({"vip": then * (N // 2)}), Y, publisher=other)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * N, {}, {})
    assert found.feature("vip") == 0.5 or found.categories("vip") == {"False": N, "True": N}


def test_another_replica_has_other_classes(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    other = model.join(classes=["no", "maybe", "yes"], agent_id="b")
    model.publish(P, labels=Y)
    model.flush()
    model.publish(P3, labels=[0] * N, publisher=other)
    model.publish(P3, labels=[0] * N, publisher=other)
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found["accuracy"]) == (4 * N, 1.0)
    assert found.stats[1].degraded == {"schema_conflict": 2 * N} == found.degraded
    assert (found.stats[1].acknowledged, found.stats[0].degraded) == (2 * N, {})
    assert len([line for line in found.log if "maybe" in line]) == 1, found.log


@pytest.mark.parametrize("labels", ["names", "indices", "one-hot"])
@pytest.mark.parametrize("labels_first", [True, False], ids=["labels first", "labels later"])
def test_a_label_job_with_its_own_order_of_classes(edge: Edge, labels: str, labels_first: bool) -> None:
    """Labels are classes by name, and a stream of labels alone decides no window's schema."""
    model = edge.model(classes=NAMES)
    job = model.join(classes=["yes", "no"], agent_id="job")
    ids = [f"id-{i}" for i in range(N)]
    given: Any = {
        "names": [NAMES[y] for y in Y],
        "indices": [1 - y for y in Y],
        "one-hot": np.eye(2)[[1 - y for y in Y]],
    }[labels]
    if labels_first:
        model.publish_labels(ids, given, publisher=job)
        assert job.flush(60)
    model.publish(P, FRAMES["columns"]({"z": [1.0] * N}), ids=ids)
    model.flush()
    if not labels_first:
        model.publish_labels(ids, given, publisher=job)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (N, {}, {}, [])
    assert found["accuracy"] == 1.0
    assert found.feature("z") == 1.0


def test_a_label_job_without_classes(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    job = model.join(agent_id="job")
    model.publish(P, ids=list(range(N)))
    model.flush()
    model.publish_labels(list(range(N)), [NAMES[y] for y in Y], publisher=job)
    found = model.end()
    assert (found.rows, found.stats[1].rejected) == (N, {"classes_missing": N}), "it cannot know what it has"
    assert any("classes" in line for line in found.log)


# --- 10: nothing is remembered of what was not accepted --------------------------------------------------------------

NOTHING: list[Any] = [
    [],
    (),
    np.zeros((0, 2)),
    np.zeros((0,)),
    np.full((N, 2), np.nan),
    np.full((N, 4), 7.0),
    [[0.5, "x"]],
    "text",
    np.zeros((N, 2, 2)),
    [[]],
    np.zeros((N, 0)),
]


@pytest.mark.parametrize("nothing", NOTHING, ids=lambda given: repr(given)[:30].replace("\n", ""))
@pytest.mark.parametrize("form", ["array", "columns"])
def test_a_batch_that_was_not_accepted_settles_no_classes(edge: Edge, nothing: Any, form: str) -> None:
    model = edge.model()
    model.publish(nothing)
    model.publish(nothing, [{"a": "x"}] * N, ["u", "v"] * (N // 2), segments={"s": ["x"] * N})
    given: Any = P3 if form == "array" else {name: P3[:, i].tolist() for i, name in enumerate("abc")}
    model.publish(given, [{"a": 1.0}] * N, [i % 3 for i in range(N)], segments={"t": ["y"] * N})
    model.publish(given, [{"a": 1.0}] * N, [i % 3 for i in range(N)], segments={"t": ["y"] * N})
    found = model.end()
    assert (found.rows, found["accuracy"], found.feature("a")) == (2 * N, 1.0, 1.0)
    assert found.get("buffer_count", segment_name="t", segment_value="y") == 2 * N


def test_an_empty_frame_settles_nothing(edge: Edge) -> None:
    pandas, polars = require("pandas"), require("polars")
    for empty in (pandas.DataFrame(columns=["x", "y"]), polars.DataFrame({"x": [], "y": []}), {"x": [], "y": []}):
        model = edge.model()
        model.publish(empty, empty, [])
        model.publish(P3, [{"x": "text"}] * N, [i % 3 for i in range(N)])
        found = model.end()
        assert (found.rows, found.rejected, found["accuracy"]) == (N, {}, 1.0)
        assert found.categories("x") == {"text": N}


def test_refused_predictions_settle_nothing(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(predictions=["unknown"] * N, inputs=[{"z": "text"}] * N)
    model.publish(predictions=[], inputs=[])
    model.publish(P, [{"z": 1.0}] * N, Y)
    found = model.end()
    assert (found.rows, found.rejected.total(), found.feature("z"), found["accuracy"]) == (N, N, 1.0, 1.0)


# --- 11: a collector that is not there -------------------------------------------------------------------------------


def test_what_no_collector_takes_is_said_once(tmp_path: Path) -> None:
    log, logger = Log(), logging.getLogger("zmon")
    logger.addHandler(log)
    endpoint = f"ipc://{tmp_path}/nobody"
    try:
        publisher = zmon.Publisher("unheard", classes=3, collector=endpoint, buffer_bytes=2**16)

        def said() -> list[str]:
            publisher.publish(np.full((500, 3), 1 / 3))
            return [line for line in log.lines if "unheard" in line and endpoint in line and "drop" in line]

        until(said, what="a line")
        until(lambda: publisher.stats.dropped.get("buffer_full", 0) > 100_000 or said(), what="more drops")
        for _ in range(200):
            publisher.publish(np.full((500, 3), 1 / 3))
        assert len(said()) == 1, log.lines
        assert not publisher.flush(0.1)
        publisher.close(0)
    finally:
        logger.removeHandler(log)


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0 .0.1:1", "tcp://", "127.0.0.1:5757", "udp://x:1", "tcp://\udcff:1", "tcp://x\x1b:1"]
)
def test_an_endpoint_that_cannot_be_is_refused_by_the_constructor(endpoint: str) -> None:
    with pytest.raises(zmon.ConfigurationError, match=r"collector|control"):
        zmon.Publisher("m", collector=endpoint)
