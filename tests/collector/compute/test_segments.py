"""Segments: the metrics of each value's rows are those of these rows alone, however split; bounded, with a rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.compute import merge, segments
from zmon_collector.compute.accumulate import Partial, StepProgress, accumulate
from zmon_collector.compute.sample import Sample
from zmon_collector.config import parse
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.plugins import Registry

from tests.plugins.oracles import ORACLES, Key, Rows, key
from tests.support.metrics import as_batch, random_rows
from tests.support.tables import subset
from zmon._capture.kinds import categorical
from zmon.batch import Batch, concat
from zmon.contract import DIMENSIONS, Context, Metric, Point, RowCounts, Window
from zmon.state import pack_state, unpack_state


def metrics() -> dict[str, Metric[Any]]:
    registry = Registry()
    registry.load()
    return {name: state.metric for name, state in registry.metrics.items()}


METRICS = metrics()
NAMES = ("predicted_classes", "confidence", "performance", "ranking", "scores", "calibration")


def with_segments(rows: Rows, **columns: Any) -> Batch:
    batch = as_batch(rows)
    coded = {name: categorical(list(column), declared=True)[0] for name, column in columns.items()}
    return Batch(
        type(batch.schema)(**{**fields_of(batch.schema), "segments": tuple(columns)}),
        {**batch.raw(), "segments": np.column_stack([each.codes for each in coded.values()])},
        dictionaries={**batch.dictionaries, "segments": tuple(each.names for each in coded.values())},
    )


def fields_of(schema: Any) -> dict[str, Any]:
    return {name: getattr(schema, name) for name in ("task", "classes", "features", "kinds", "threshold")}


def computed(batch: Batch, cuts: list[int], agents: int, **options: Any) -> dict[str | None, dict[Key, float]]:
    """Values per segment by agent and rolled up, with the rows cut and given to the agents in turn."""
    used = [METRICS[name] for name in NAMES]
    options = {"segments": True, **options}
    pieces = [batch.take(slice(a, b)) for a, b in zip([0, *cuts], [*cuts, batch.rows], strict=True) if b > a]
    partials: dict[str, list[Partial]] = {}
    held: dict[str, list[Batch]] = {}

    def context(agent: str | None, rows: int = 0) -> Context:
        return Context("m", "", agent, batch.schema, Window(0, 60), options=options, rows=RowCounts(rows))

    def whole(rows: Batch) -> Sample:
        return Sample(np.arange(rows.rows, dtype=np.uint64), rows)

    for i, piece in enumerate(pieces):
        agent = f"a{i % agents}"
        progress = StepProgress()
        partial = accumulate(used, [piece], {metric.name: context(agent) for metric in used}, progress)
        assert not progress.failures
        partial.segments = unpack_state(pack_state(partial.segments))
        partials.setdefault(agent, []).append(partial)
        held.setdefault(agent, []).append(piece)
    for agent, own in partials.items():
        if len(own) > 2:
            partials[agent] = [merge.fold(used, own[:2], StepProgress()), *own[2:]]
    samples = {**{agent: whole(concat(own[0].schema, own)) for agent, own in held.items()}, None: whole(batch)}
    contexts = {
        metric.name: {agent: context(agent, sample.batch.rows) for agent, sample in samples.items()} for metric in used
    }
    progress = StepProgress()
    parts = merge.WindowParts(partials, contexts, samples, lambda metric, value: True)
    finished = merge.finish(used, parts, progress, merge.MetricResults())
    assert not progress.failures
    found: dict[str | None, dict[Key, float]] = {}
    for point in (point for points in finished.points.values() for point in points):
        if point.value.segment_name:
            assert names(point) not in found.setdefault(point.agent_id, {})
            found[point.agent_id][names(point)] = point.value.value
    return found


def names(point: Point) -> Key:
    return key(point.value.what, **{n: getattr(point.value, n) for n in DIMENSIONS if getattr(point.value, n)})


def expected(rows: Rows, column: np.ndarray, name: str, most: int = 20) -> dict[Key, float]:
    found: dict[Key, float] = {}
    values, counts = np.unique(column[column != ""], return_counts=True)
    ordered = sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda each: (-each[1], each[0]))
    groups = {value: column == value for value, _ in ordered[:most]}
    rest = np.isin(column, [value for value, _ in ordered[most:]])
    if rest.any():
        groups["__other__"] = rest
    for value, where in groups.items():
        own = subset(rows, np.flatnonzero(where))
        for metric in NAMES:
            for k, v in ORACLES[metric](own).items():
                found[tuple(sorted((*k, ("segment_name", name), ("segment_value", value))))] = v
    return found


def close(found: dict[Key, float], wanted: dict[Key, float]) -> None:
    assert found.keys() == wanted.keys()
    for k, v in wanted.items():
        assert np.isclose(found[k], v, rtol=1e-9, atol=1e-12), k


@settings(max_examples=25)
@given(st.data())
def test_each_value_has_the_metrics_of_its_rows(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    seed = data.draw(st.integers(0, 2**32))
    random = np.random.default_rng(seed)
    rows = random_rows(seed, n, data.draw(st.integers(2, 4)))
    country, tier = random.choice(["de", "fr", "us", ""], n), random.choice([f"t{i}" for i in range(30)], n)
    batch = with_segments(rows, country=[each or None for each in country], tier=tier)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    most = data.draw(st.integers(1, 4))
    found = computed(batch, cuts, data.draw(st.integers(1, 3)), max_segments=most)
    close(found.get(None, {}), expected(rows, country, "country", most) | expected(rows, tier, "tier", most))


def test_each_agent_has_its_own() -> None:
    rows = random_rows(3, 90, 3)
    zone = np.random.default_rng(0).choice(["east", "west", "north"], 90)
    found = computed(with_segments(rows, zone=zone), [45], 2, max_segments=2)
    for agent, where in (("a0", slice(0, 45)), ("a1", slice(45, 90))):
        close(found[agent], expected(subset(rows, np.arange(90)[where]), zone[where], "zone", 2))
    close(found[None], expected(rows, zone, "zone", 2))


def test_more_values_than_are_tracked_stay_bounded_and_do_not_depend_on_the_split() -> None:
    rows = random_rows(4, 4000, 2)
    user = np.random.default_rng(0).choice([f"user {i}" for i in range(900)], 4000)
    batch = with_segments(rows, user=user)
    whole = computed(batch, [], 1)[None]
    split = computed(batch, [13, 700, 2500], 3)[None]
    assert whole.keys() == split.keys()
    assert all(np.isclose(whole[k], v, rtol=1e-9, atol=1e-12) for k, v in split.items())
    named = {value for k in whole for name, value in k if name == "segment_value"}
    assert len(named) == 21
    total = sum(v for k, v in whole.items() if ("what", "prediction_count") in k)
    assert total == 4000, "every row is in a segment or in the rest"
    progress = StepProgress()
    contexts = {"performance": Context("m", "", "a", batch.schema, Window(0, 60))}
    part = segments.split(batch, [METRICS["performance"]], contexts, progress.guard)
    assert len(part["user"]["values"]) == segments.TRACKED


def test_a_part_that_tracked_fewer_values_bounds_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a checkpoint of another release might: a value is counted apart only where all of its rows are known."""
    rows = random_rows(5, 300, 2)
    user = np.random.default_rng(0).choice([f"user {i}" for i in range(20)], 300)
    batch = with_segments(rows, user=user)
    used = [METRICS["performance"]]
    contexts = {"performance": Context("m", "", "a", batch.schema, Window(0, 60))}
    monkeypatch.setattr(segments, "TRACKED", 4)
    few = segments.split(batch.take(slice(0, 150)), used, contexts, StepProgress().guard)
    monkeypatch.setattr(segments, "TRACKED", 256)
    many = segments.split(batch.take(slice(150, 300)), used, contexts, StepProgress().guard)
    folded = segments.fold(used, [many, few], StepProgress().guard)["user"]
    assert {name: part["rows"] for name, part in folded["values"].items()} == {
        name: np.count_nonzero(user == name) for name in few["user"]["values"]
    }
    assert folded["other"]["rows"] == 300 - sum(part["rows"] for part in folded["values"].values())


def test_which_metrics_are_split_is_configured() -> None:
    config = parse({"metrics": {"segment_metrics": ["scores"]}, "models": {"fraud": {"segment_metrics": []}}})
    assert [ModelPolicy(config, "m").options(name, "x")["segments"] for name in ("scores", "performance")] == [
        True,
        False,
    ]
    assert ModelPolicy(config, "fraud").options("scores", "x")["segments"] is False
    assert ModelPolicy(config, "m").options("scores", "x")["max_segments"] == 20


@pytest.mark.parametrize("options", [{}, {"segments": False}])
def test_nothing_is_split_that_is_not_chosen(options: Any) -> None:
    batch = with_segments(random_rows(1, 9, 2), zone=["a"] * 9)
    contexts = {"performance": Context("m", "", "a", batch.schema, Window(0, 60), options=options)}
    assert accumulate([METRICS["performance"]], [batch], contexts, StepProgress()).segments == {}
