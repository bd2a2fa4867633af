"""Publishers of one model that do not quite agree: what can be used is used, and each is told what was not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.ingest.variants import variant_version
from zmon_collector.storage import chunk_reader, journal_state
from zmon_collector.windows.window import Tally

from tests.support.collectors import Collector
from tests.support.unstarted import Table
from tests.support.waiting import until
from zmon.batch import Schema

Lay = Callable[[], Table]
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
KINDS = {"z": "numeric", "w": "numeric"}


def schema(classes: tuple[str, ...] = ("no", "yes"), **kinds: str) -> Schema:
    return Schema(classes=classes, features=tuple(kinds), kinds=tuple(kinds.values()))


def points(table: Table, what: str, **names: str) -> dict[str | None, float]:
    """Values of a series of the only window, by agent."""
    table.ingestor.close_all(table.now)
    (closed,) = table.finished(1)
    return {
        point.agent_id: point.value.value
        for point in closed.points
        if point.value.what == what and all(getattr(point.value, key) == value for key, value in names.items())
    }


def test_classes_in_another_order_are_the_same_classes(lay: Lay) -> None:
    table = lay()
    labels = np.array([0, 1, 0])
    table.send(schema(), {"probabilities": P, "labels": labels})
    table.send(schema(("yes", "no")), {"probabilities": P[:, ::-1], "labels": 1 - labels}, agent="b")
    assert table.answer("b").refused == table.answer("b").degraded == {}
    assert table.tally("b") == Tally(received=3)
    assert points(table, "accuracy") == pytest.approx({"a": 2 / 3, "b": 2 / 3, None: 2 / 3})


def test_other_classes_are_a_version_of_their_own_and_are_told_so(lay: Lay) -> None:
    table = lay()
    other = schema(("no", "maybe"))
    table.send(schema(), {"probabilities": P})
    table.send(other, {"probabilities": P}, agent="b")
    apart = variant_version("", other)
    detail = "the window's rows have no class 'maybe'; the window's rows also have the class 'yes'"
    answer = table.answer("b")
    assert answer.refused == {}
    assert answer.degraded == {"schema_conflict": (3, f"shown as version {apart!r}: {detail}")}
    assert table.tally("b") == Tally()
    assert table.tally("b", version=apart) == Tally(received=3, degraded={"schema_conflict": 3})


def test_a_column_of_another_kind_costs_that_column(lay: Lay) -> None:
    table = lay()
    table.send(schema(z="numeric"), {"probabilities": P, "inputs": np.array([[1.0], [2.0], [3.0]])})
    table.send(
        schema(z="categorical", w="numeric"),
        {"probabilities": P, "inputs": np.ones((3, 1)), "codes": np.zeros((3, 1), np.int8)},
        {"codes": [["u"]]},
        agent="b",
    )
    ack = table.answer("b")
    assert ack.refused == {}
    assert ack.degraded == {"schema_conflict": (3, "feature 'z' is categorical, not numeric")}
    assert table.tally("b") == Tally(received=3, degraded={"schema_conflict": 3})
    table.ingestor.close_all(table.now)
    (closed,) = table.finished(1)
    means = {
        (point.agent_id, point.value.feat_name): point.value.value
        for point in closed.points
        if point.value.what == "feature_value" and point.value.stat == "mean"
    }
    assert means[None, "z"] == means["a", "z"] == 2.0
    assert ("b", "z") not in means
    counts = {p.agent_id: p.value.value for p in closed.points if p.value.what == "buffer_count"}
    assert counts == {"a": 3, "b": 3, None: 6}
    degraded = [(p.agent_id, p.value.reason, p.value.value) for p in closed.points if p.value.what == "rows_degraded"]
    assert degraded == [("b", "schema_conflict", 3)]


def test_one_publisher_whose_column_changes_its_kind(lay: Lay) -> None:
    table = lay()
    table.send(schema(z="numeric"), {"probabilities": P, "inputs": np.ones((3, 1))})
    table.send(
        schema(z="categorical", w="numeric"),
        {"probabilities": P, "inputs": np.ones((3, 1)), "codes": np.zeros((3, 1), np.int8)},
        {"codes": [["u"]]},
        first=4,
    )
    assert table.answer().degraded == {"schema_conflict": (3, "feature 'z' is categorical, not numeric")}


@pytest.mark.parametrize("first", ["numeric", "boolean"])
def test_0_and_1_agree_with_booleans(first: str, lay: Lay) -> None:
    table = lay()
    numeric = (schema(vip="numeric"), {"probabilities": P, "inputs": np.array([[0.0], [1.0], [1.0]])}, None)
    boolean = (
        schema(vip="boolean"),
        {"probabilities": P, "codes": np.array([[0], [1], [1]], np.int8)},
        {"codes": [["False", "True"]]},
    )
    for agent, sent in zip("ab", (numeric, boolean) if first == "numeric" else (boolean, numeric), strict=True):
        table.send(*sent, agent=agent)  # type: ignore[arg-type]
        assert table.answer(agent).degraded == {}
    table.ingestor.close_all(table.now)
    (closed,) = table.finished(1)
    if first == "numeric":
        what = {"what": "feature_value", "stat": "mean"}
        expected = {"a": 2 / 3, "b": 2 / 3, None: 2 / 3}
    else:
        what = {"what": "feature_count", "category": "True"}
        expected = {"a": 2, "b": 2, None: 4}
    found = {
        point.agent_id: point.value.value
        for point in closed.points
        if all(getattr(point.value, key) == value for key, value in what.items())
    }
    assert found == pytest.approx(expected)


def test_fitted_rows_are_replayed_as_they_were_fitted(lay: Lay) -> None:
    first, second = lay(), lay()
    labels = np.array([0, 1, 0])
    first.send(schema(z="numeric"), {"probabilities": P, "labels": labels, "inputs": np.ones((3, 1))})
    first.send(
        schema(("yes", "no"), z="categorical"),
        {"probabilities": P[:, ::-1], "labels": 1 - labels, "codes": np.zeros((3, 1), np.int8)},
        {"codes": [["u"]]},
        agent="b",
    )
    first.end_turn()
    recovery = second.recovery(first.disk)
    recovery.restore(second.now)
    (window,) = second.ingestor.models["m", ""].windows.open.values()
    left = journal_state.load(first.disk)
    (row,) = left.windows
    for chunk in chunk_reader.list_chunks([row], left.turn, first.disk):
        for record in chunk_reader.read_chunk(chunk, first.disk):
            recovery.replay(record, row, window)
    assert points(second, "accuracy") == pytest.approx({"a": 2 / 3, "b": 2 / 3, None: 2 / 3})
    assert second.service.telemetry.get("lost") == 0


def test_publishers_hear_of_it(collect: Callable[..., Collector], caplog: pytest.LogCaptureFixture) -> None:
    """From one publisher's rows to the other's stats and log: which column, which class."""
    collector = collect(window=3600)
    kinds = ({"z": "numeric"}, {"z": "categorical"}, {})
    options = zip("abc", kinds, (["no", "yes"], ["yes", "no"], ["no", "maybe"]), strict=True)
    one, two, three = (collector.publisher(agent_id=a, kinds=k, classes=c) for a, k, c in options)
    for publisher, z in ((one, 1.0), (two, "u"), (three, 1.0)):
        publisher.publish(P, inputs=[{"z": z}] * 3)
        assert publisher.flush(60)
    until(lambda: two.stats.degraded and three.stats.degraded, what="the answers")
    assert (dict(one.stats.rejected), dict(one.stats.degraded)) == ({}, {})
    assert (dict(two.stats.degraded), two.stats.acknowledged) == ({"schema_conflict": 3}, 3)
    assert (dict(three.stats.degraded), three.stats.acknowledged) == ({"schema_conflict": 3}, 3)
    said = [record.getMessage() for record in caplog.records if record.name == "zmon"]
    assert any("feature 'z' is categorical, not numeric" in line for line in said)
    assert any("no class 'maybe'" in line for line in said)
    for publisher in (one, two, three):
        publisher.close()


# --- labels ---------------------------------------------------------------------------------------------------------

IDS = ["1", "2", "3"]


def value(collector: Collector, what: str, **names: str) -> float:
    (found,) = [
        point["value"]
        for point in collector.points()
        if point["properties"]["what"] == what
        and {k: v for k, v in point["properties"].items() if k not in ("what", "model", "ver", "target_type")} == names
    ]
    return float(found)


@pytest.mark.parametrize("labels_first", [False, True])
def test_late_labels_are_matched_by_class_name(labels_first: bool, collect: Callable[..., Collector]) -> None:
    """A label job that lists the classes in another order: the rows' order decides which class is the positive one."""
    collector = collect(window=3600)
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    ids = ["1", "2", "3", "4"]
    with (
        collector.publisher(classes=["no", "yes"], agent_id="pod") as pod,
        collector.publisher(classes=["yes", "no"], agent_id="job") as job,
    ):

        def rows() -> None:
            pod.publish(p, ids=ids)
            assert pod.flush(60)

        def labels() -> None:
            job.publish_labels(ids, ["no", "yes", "no", "yes"])
            assert job.flush(60)

        for step in (labels, rows) if labels_first else (rows, labels):
            step()
    collector.stop()
    assert value(collector, "accuracy") == 0.5
    assert value(collector, "precision", class_name="yes") == 0.5
    assert value(collector, "label_coverage") == 1.0
    assert not collector.counts("rows_rejected")


def test_labels_before_any_rows_may_list_other_classes(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    with (
        collector.publisher(classes=["a", "b", "c"], agent_id="pod") as pod,
        collector.publisher(classes=["c", "q", "a"], agent_id="job") as job,
    ):
        job.publish_labels(IDS, ["c", "q", "a"])
        assert job.flush(60)
        pod.publish(np.eye(3)[[2, 1, 1]], ids=IDS)
        assert pod.flush(60)
        until(lambda: collector.service.telemetry.get("late_labels", "joined") == 2, what="the labels")
    collector.stop()
    assert value(collector, "accuracy") == 0.5


def test_a_label_that_the_rows_do_not_have_is_refused_alone(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    with (
        collector.publisher(classes=["no", "yes"], agent_id="pod") as pod,
        collector.publisher(classes=["yes", "maybe", "no"], agent_id="job") as job,
    ):
        pod.publish(P, ids=IDS)
        assert pod.flush(60)
        job.publish_labels(IDS, ["no", "maybe", "yes"])
        assert job.flush(60)
    session = next(s for s in collector.service.ingestor.sessions if s.topic.agent_id == "job")
    assert session.answers.refused == {"label_unknown": (1, "class 'maybe'; the model's rows have 'no', 'yes'")}
    collector.stop()
    assert value(collector, "accuracy") == 1.0
    assert collector.counts("rows_rejected", agent_id="job", reason="label_unknown") == 1


def test_rows_with_other_classes_change_nothing_for_labels(lay: Lay) -> None:
    table = lay()
    ids = np.array([b"1", b"2", b"3"])
    table.send(schema(), {"probabilities": P, "ids": ids})
    table.send(schema(("no", "maybe")), {"probabilities": P, "ids": ids}, agent="b")
    table.send(schema(), {"ids": ids, "labels": np.array([0, 1, 1])}, agent="job", kind="labels")
    assert table.answer("job").refused == {}
    assert table.answer("b").degraded["schema_conflict"][0] == 3
    assert table.ingestor.models["m", ""].rows_schema.classes == ("no", "yes")


def test_labels_never_decide_what_rows_may_have(collect: Callable[..., Collector]) -> None:
    collector = collect(window=3600)
    with (
        collector.publisher(classes=["x", "y"], agent_id="job") as job,
        collector.publisher(classes=["no", "yes"], agent_id="pod") as pod,
    ):
        job.publish_labels(IDS, ["x", "y", "x"])
        assert job.flush(60)
        pod.publish(P, inputs=np.ones((3, 2)), ids=IDS, labels=["no", "yes", "yes"])
        assert pod.flush(60)
    collector.stop()
    assert value(collector, "accuracy") == 1.0
    assert not collector.counts("rows_rejected")


def test_the_order_of_classes_of_kept_predictions_survives_a_restart(collect: Callable[..., Any]) -> None:
    collector = collect(window=3600)
    with collector.publisher(classes=["no", "yes"], agent_id="pod") as pod:
        pod.publish(P, ids=IDS)
        assert pod.flush(60)
    collector.stop()
    again = collect(window=3600, folder=collector.folder.name)
    with again.publisher(classes=["yes", "no"], agent_id="job") as job:
        job.publish_labels(IDS, ["no", "yes", "no"])
        assert job.flush(60)
    again.stop()
    assert value(again, "accuracy") == pytest.approx(2 / 3)


def test_rows_without_an_id_are_not_kept_for_labels(lay: Callable[[], Table]) -> None:
    table = lay()
    table.send(schema(), {"probabilities": P, "ids": np.array([b"1", b"", b""])})
    table.send(schema(), {"ids": np.array([b""]), "labels": np.array([1])}, agent="job", kind="labels")
    table.answers()
    kept = [bytes(name) for (name,) in table.disk.execute("SELECT id FROM predictions")]
    assert kept == [b"1"]
