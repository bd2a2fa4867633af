"""Columns in which nearly every value differs: right counts whoever sends what, and no value of them anywhere."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import parse

from tests.support.collectors import Collector
from tests.support.unstarted import T0, Table
from tests.support.waiting import until
from zmon._capture.kinds import categorical
from zmon.batch import Schema
from zmon.categories import OTHER, hashed

NAMES = ("no", "yes")
FEATURES = ("customer", "city")
NAMED = Schema(classes=NAMES, features=FEATURES, kinds=("categorical",) * 2)
UNNAMED = Schema(classes=NAMES, features=FEATURES[::-1], kinds=("categorical",) * 2, hashed=("customer",))
CITIES = ["Rome", "Oslo", None]


def send(table: Table, customers: list[str | None], *, names: bool, **header: Any) -> None:
    """Rows with customers and cities, with the names of the customers or without."""
    n = len(customers)
    city, customer = (categorical(column)[0] for column in ([CITIES[i % 3] for i in range(n)], customers))
    columns = {"probabilities": np.full((n, 2), 0.5)}
    if names:
        columns["codes"] = np.column_stack([customer.codes, city.codes]).astype(np.int32)
        table.send(NAMED, columns, {"codes": [customer.names, city.names]}, **header)
        return
    codes, hashes, lengths = hashed(*customer)
    columns |= {"codes": np.column_stack([city.codes, codes]).astype(np.int32)}
    columns |= {"hashes": hashes[:, np.newaxis], "lengths": lengths[:, np.newaxis]}
    table.send(UNNAMED, columns, {"codes": [city.names, (OTHER,)]}, **header)


def values_of(closed: ClosedWindow, feature: str = "customer") -> dict[tuple[str | None, str, str], float]:
    """Values of a feature by agent, series and statistic or category."""
    return {
        (point.agent_id, value.what, value.stat or value.category): value.value
        for point in closed.points
        if (value := point.value).feat_name == feature
    }


@pytest.mark.parametrize("first", ["named", "unnamed"])
def test_publishers_with_and_without_names(lay: Callable[[], Table], first: str) -> None:
    """Once some publisher hashes a column, windows count it, and names of the other one stay out of them."""
    table = lay()
    left, right = [f"c{i}" for i in range(90)], [None, *(f"c{i}" for i in range(50, 300)), "customer 1"]
    for agent, customers in (("a", left), ("b", right)):
        send(table, customers[:40], names=agent == "a", agent=agent, ts=T0 * 10**9)  # a window for both to be seen
    table.goes(61)
    for agent, customers in (("a", left), ("b", right)) if first == "named" else (("b", right), ("a", left)):
        send(table, customers, names=agent == "a", agent=agent, first=41, ts=int(table.now.wall * 1e9))
    for agent in "ab":
        assert table.answer(agent).degraded == {}
    table.ingestor.close_all(table.now)
    closed = max(table.finished(2), key=lambda each: each.window.start)
    values = values_of(closed)
    assert values["a", "feature_unique", ""] == 90
    assert values["b", "feature_unique", ""] == 251
    assert values[None, "feature_unique", ""] == 301, "customers of both are the same ones"
    assert values[None, "feature_missing_freq", ""] == pytest.approx(1 / 342)
    assert values[None, "feature_length", "max"] == 10
    assert not [names for names in values if names[1] in ("feature_count", "feature_freq")]
    assert values_of(closed, "city")[None, "feature_count", "Oslo"] == 30 + 84


def test_a_window_that_has_names_counts_the_others_without(lay: Callable[[], Table]) -> None:
    table = lay()
    send(table, ["x", "y", "x"], names=True)
    send(table, ["x", None, "z"], names=False, agent="b")
    table.ingestor.close_all(table.now)
    values = values_of(*table.finished(1))
    assert values[None, "feature_count", "x"] == 2
    assert values[None, "feature_count", OTHER] == 2
    assert values["a", "feature_unique", ""] == 2
    assert (None, "feature_unique", "") not in values, "not every value is known"
    assert values[None, "feature_missing_freq", ""] == pytest.approx(1 / 6)


def test_texts_and_vectors_are_neither_kept_nor_counted(lay: Callable[[], Table]) -> None:
    table = lay()
    schema = Schema(classes=NAMES, features=("essay", "x", "e"), kinds=("text", "numeric", "vector"))
    read = {"probabilities": np.full((3, 2), 0.5), "inputs": np.ones((3, 1))}
    table.send(schema, {**read, "texts": np.zeros((3, 1), np.int8), "vector:0": np.ones((3, 8), np.float32)})
    (records,) = table.ingestor.turn.chunks.values()
    assert [set(record.columns) for record in records] == [{*read, "timestamps"}]
    assert table.answer().refused == {}
    table.ingestor.close_all(table.now)
    (closed,) = table.finished(1)
    series = {(p.value.feat_name, p.value.what) for p in closed.points if p.value.feat_name and p.agent_id is None}
    assert {(name, what) for name, what in series if name != "x"} == {
        ("essay", "feature_skipped_count"), ("e", "feature_skipped_count")}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hashes": None}, "hashes_shape"),
        ({"lengths": np.zeros((3, 2), np.int16)}, "lengths_shape"),
        ({"hashes": np.zeros((3, 1), np.uint32)}, "dtype"),
        ({"lengths": np.zeros((3, 1), np.float32)}, "dtype"),
    ],
)
def test_hashes_that_do_not_fit_are_refused(lay: Callable[[], Table], change: dict[str, Any], reason: str) -> None:
    table = lay()
    sound = {"codes": np.zeros((3, 2), np.int8), "hashes": np.zeros((3, 1), np.uint64),
             "lengths": np.zeros((3, 1), np.int16)}  # fmt: skip
    columns = {name: column for name, column in {**sound, **change}.items() if column is not None}
    table.send(UNNAMED, {"probabilities": np.full((3, 2), 0.5), **columns}, {"codes": [("Rome",), (OTHER,)]})
    assert table.answer().refused.keys() == {reason}


def test_no_identifier_is_kept_or_shown(collect: Callable[..., Collector]) -> None:
    """Not in the journal, the sample, the points, the history, on the page or in /metrics; other names are."""
    config = parse({"web": {"bind": "127.0.0.1:0"}, "metrics": {"preset": "full"}})
    collector = collect(config=config, window=3600, grace=0.0)
    customers = [f"customer-{i:05}" for i in range(2000)]
    frame = {"customer": customers, "city": ["Rome", "Oslo"] * 1000}
    with collector.publisher(classes=NAMES, agent_id="a") as publisher:
        for seconds in (1_600_000_000, 1_600_003_600, 1_600_007_200):
            publisher.publish(np.full((2000, 2), 0.5), frame, timestamps=seconds)
        assert publisher.flush(60)
        until(lambda: "feature_unique" in page(collector, "metrics"), what="a window's points")
        shown = [page(collector, path) for path in (
            "metrics",
            "api/v1/view?view=model&model=model&range=all",
            "api/v1/view?view=series&model=model&what=feature_unique&feat_name=customer&range=all",
            "api/v1/points?model=model&what=feature_unique",
        )]  # fmt: skip
        kept = [path.read_bytes() for path in collector.folder.rglob("*") if path.is_file()]
    collector.stop()
    kept += [path.read_bytes() for path in collector.folder.rglob("*") if path.is_file()]
    for what in (*shown, b"".join(kept).decode(errors="replace")):
        assert "customer-0" not in what
    assert "Rome" in shown[0]
    assert any(b"customer" in data and b"Rome" in data for data in kept), "the journal is among them"
    assert collector.counts("feature_unique", agent_id=None, feat_name="customer") == 3 * 2000
    assert collector.counts("feature_unique", agent_id=None, feat_name="city") == 3 * 2


def page(collector: Collector, path: str) -> str:
    with urllib.request.urlopen(f"{collector.service.site.url}{path}", timeout=60) as answer:
        return str(answer.read().decode())
