"""A multilabel model on a real collector: rows, inputs and label coverage; nothing that takes one class a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import zmq
from zmon_collector.compute import restatement
from zmon_collector.config import parse

from tests.support.collectors import Collector
from tests.support.unstarted import Table, messages
from tests.support.waiting import until
from zmon import Batch, Context, MetricBase, Schema, Value
from zmon.batch import concat
from zmon.hooks import hookimpl

TAGS = Schema("multilabel", ("cat", "dog", "bird"), ("x", "colour"), ("numeric", "categorical"))
P = np.array([[0.9, 0.8, 0.1], [0.2, 0.6, 0.7], [0.3, 0.1, 0.2], [1.0, 1.0, 1.0]])
Y = np.array([[1, 1, 0], [-1, -1, -1], [0, -1, 0], [1, 1, 1]], np.int8)
COLUMNS = {"probabilities": P, "labels": Y, "inputs": np.arange(4.0)[:, None], "codes": np.zeros((4, 1), np.int8)}


class Means(MetricBase[Any]):
    """A metric for multilabel models: the mean probability of every class."""

    name = "means"
    task = "multilabel"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> Any:
        return {"rows": 0, "sum": np.zeros(len(ctx.schema.classes))}

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        return {"rows": acc["rows"] + batch.rows, "sum": acc["sum"] + batch.probabilities.sum(axis=0)}

    def merge(self, left: Any, right: Any) -> Any:
        return {name: left[name] + right[name] for name in left}

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        for name, total in zip(ctx.schema.classes, acc["sum"].tolist(), strict=True):
            yield Value("mean_proba", total / acc["rows"], class_name=name)


class Unaware(Means):
    """A metric of the time before multilabel: it declares no task."""

    name = "unaware"
    task = None

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("unaware", 1.0)


class Plugin:
    @hookimpl
    def register_metrics(self, register: Callable[[Any], None], options: Any) -> None:
        register(Means())
        register(Unaware())


def test_multilabel_rows_on_a_collector(collect: Callable[..., Collector]) -> None:
    collector = collect(config=parse({"metrics": {"preset": "full"}}), plugins={"p": Plugin()}, window=3600)
    send_rows(collector)
    until(lambda: collector.service.telemetry.get("rows") == 8, what="the rows")
    collector.stop()
    points = {
        (names["what"], names.get("class_name") or names.get("feat_name") or "", names.get("stat", "")): point["value"]
        for point in collector.points()
        if "agent_id" not in (names := point["properties"])
    }
    assert points["buffer_count", "", ""] == 8
    assert points["feature_value", "x", "mean"] == 1.5
    assert points["feature_unique", "colour", ""] == 1
    assert points["label_coverage", "", ""] == 3 / 8, "a row with a label of any class; the second message has none"
    assert points["mean_proba", "dog", ""] == pytest.approx(P[:, 1].mean())
    measures = {what for what, _, _ in points}
    assert not measures & {"accuracy", "prediction_freq", "max_prediction_proba", "roc_auc", "unaware", "f1"}
    assert not collector.service.health().problems
    assert not collector.counts("rows_rejected")


def send_rows(collector: Collector) -> None:
    """Eight rows, the last four without labels, as a publisher sends them."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 5000)
        socket.connect(collector.data)
        assert socket.poll(60_000), "the collector subscribes"
        unlabelled = {name: column for name, column in COLUMNS.items() if name != "labels"}
        for first, columns in ((1, COLUMNS), (5, unlabelled)):
            for frames in messages(TAGS, columns, {"codes": [["red"]]}, first=first, ts=1_700_000_000_000_000_000):
                socket.send_multipart(frames)


class Hits(Means):
    """For every class, among the labelled rows: how many are labelled, true, and predicted and true."""

    name = "hits"
    needs = frozenset({"probabilities", "labels"})

    def create(self, ctx: Context) -> Any:
        return {name: np.zeros(len(ctx.schema.classes), np.int64) for name in ("labelled", "true", "hit")}

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        true = batch.labels == 1
        new = {"labelled": batch.labels >= 0, "true": true, "hit": true & (batch.probabilities > 0.5)}
        return {name: acc[name] + new[name].sum(axis=0) for name in acc}

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        for name, counts in acc.items():
            for label, count in zip(ctx.schema.classes, counts.tolist(), strict=True):
                yield Value(name, count, class_name=label)


class HitsPlugin:
    @hookimpl
    def register_metrics(self, register: Callable[[Any], None], options: Any) -> None:
        register(Hits())


@pytest.mark.parametrize("first", ["rows", "labels"])
def test_labels_that_come_later_find_their_rows(collect: Callable[..., Collector], first: str) -> None:
    """By id and by class name, before or after the rows; a row is labelled if any of its classes is."""
    collector = collect(config=parse({"metrics": {"preset": "full"}}), plugins={"p": HitsPlugin()}, window=3600)
    order = [2, 0, 1]
    ids, classes = ["a", "b", "c", "d"], list(TAGS.classes)
    with (
        collector.publisher(task="multilabel", classes=classes, agent_id="a") as rows,
        collector.publisher(task="multilabel", classes=[classes[i] for i in order], agent_id="truth") as truth,
    ):

        def publish() -> None:
            rows.publish(P, ids=ids)
            assert rows.flush(60)

        def label() -> None:
            truth.publish_labels([*ids, "never"], [*Y[:, order].tolist(), [1, 0, 0]])
            truth.publish_labels(["a", "c"], [Y[0, order].tolist(), [1, 1, 1]])  # the same again, and others
            assert truth.flush(60)

        for step in (publish, label) if first == "rows" else (label, publish):
            step()
        assert truth.stats.rejected == {"label_missing": 1}
        late = collector.service.telemetry.get
        until(lambda: late("late_labels", "joined") == 3, what="the join")
        until(lambda: late("late_labels", "duplicate") == late("late_labels", "conflict") == 1, what="the others")
    collector.stop()
    points = {
        (names["what"], names.get("class_name") or names.get("reason") or ""): point["value"]
        for point in collector.points()
        if "agent_id" not in (names := point["properties"])
    }
    assert [points["labelled", name] for name in classes] == [3, 2, 3]
    assert [points["true", name] for name in classes] == [2, 2, 1]
    assert [points["hit", name] for name in classes] == [2, 2, 1]
    assert points["label_coverage", ""] == 3 / 4
    assert points["late_label_count", "joined"] == 3
    assert not collector.service.health().problems


def test_labels_of_other_classes_are_refused(lay: Callable[[], Table]) -> None:
    table = lay()
    ids = np.array([b"1", b"2", b"3", b"4"])
    table.send(TAGS, {**COLUMNS, "ids": ids}, {"codes": [["red"]]})
    table.send(Schema("multilabel", ("cat", "dog", "fish")), {"ids": ids, "labels": Y}, first=5, kind="labels")
    ack = table.answer()
    assert ack.row == 8
    detail = "the window's rows have no class 'fish'; the window's rows also have the class 'bird'"
    assert ack.refused == {"schema_conflict": (4, detail)}


def test_windows_are_restated_with_the_labels_of_every_class() -> None:
    kept = [(1, "a", None, Y[0].tobytes(), "<f8", P[0].tobytes()), (2, "a", None, None, "<f8", P[1].tobytes())]
    ((agent, batch),) = restatement._batches(kept, TAGS)
    assert (agent, batch.labels.tolist()) == ("a", [[1, 1, 0], [-1, -1, -1]])
    assert batch.probabilities.tolist() == P[:2].tolist()
    assert "predictions" not in batch.columns


def test_missing_labels_are_filled_in_as_missing() -> None:
    parts = [Batch(TAGS, {"probabilities": P, "labels": Y}), Batch(TAGS, {"probabilities": P})]
    whole = concat(TAGS, parts)
    assert whole.labels.dtype == np.int8
    assert whole.labels[4:].tolist() == [[-1, -1, -1]] * 4
    assert "predicted" not in whole.columns
