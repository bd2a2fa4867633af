"""What metrics leave and give is packed and bounded on their executors: what cannot be kept costs its metric alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import checkpoint_codec, merge, packing
from zmon_collector.compute.details import read
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.delivery import report_codec

from tests.support.engines import FRAUD, EngineScene, Sums, values
from zmon.batch import Array, Batch
from zmon.contract import Context, Point, Report, Value
from zmon.state import pack_state, unpack_state

Scenes = Callable[..., EngineScene]
SURROGATE = "\ud800"


class Ouroboros(list[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.append(self)


class Remembers(Sums):
    """Leaves something in its memory."""

    def __init__(self, leaves: Callable[[dict[str, Any]], None]) -> None:
        super().__init__("remembers")
        self.leaves = leaves

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        self.leaves(ctx.memory)
        yield from super().result(acc, ctx)


class Gives(Sums):
    """Gives values that are given to it, and details."""

    def __init__(self, given: Callable[[], Iterable[Any]] = tuple, detail: Callable[[], Any] = lambda: None) -> None:
        super().__init__("gives")
        self.given, self.made = given, detail

    def result(self, acc: Array, ctx: Context) -> Iterable[Any]:
        yield from super().result(acc, ctx)
        yield from self.given()

    def detail(self, acc: Array, ctx: Context) -> Any:
        return self.made()


class Holds(Sums):
    """Has an accumulator that is made up."""

    def __init__(self, held: Callable[[], Any], name: str = "holds") -> None:
        super().__init__(name)
        self.held = held

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        return self.held()

    def merge(self, left: Any, right: Any) -> Any:
        return right

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value(self.name, 1.0)


NOT_PLAIN: dict[str, Callable[[], Any]] = {
    "a set": lambda: {1},
    "an object": object,
    "a lone surrogate": lambda: SURROGATE,
    "a name with a lone surrogate": lambda: {SURROGATE: 1},
    "a large integer": lambda: 2**70,
    "an array of objects": lambda: np.array([None, 1]),
    "a complex number": lambda: 1j,
    "a list in itself": Ouroboros,
    "a list as a name": lambda: {(1, 2): 3},
    "deep": lambda: reduce(lambda inner, _: [inner], range(2000), 0),  # type: ignore[arg-type,return-value]
}


@pytest.fixture(params=NOT_PLAIN.values(), ids=NOT_PLAIN)
def not_plain(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


def closed(scene: EngineScene, start: int = 0, rows: int = 10) -> ClosedWindow:
    window = scene.window(start)
    scene.add(window, rows)
    return scene.close(window)


def encoded(report: ClosedWindow) -> Report:
    """The report as it is read back."""
    model, version = report.model
    whole = Report(1, model, version, report.window, report.points, report.rows, {}, report.details)
    data = report_codec.encode(whole, report.packed)
    assert report_codec.decode(data) == report_codec.decode(report_codec.encode(whole))
    return report_codec.decode(data)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_that_cannot_be_kept_costs_its_metric_the_window(not_plain: Any, scenes: Scenes) -> None:
    def leaves(memory: dict[str, Any]) -> None:
        memory["windows"] = memory.get("windows", 0) + 1
        if memory["windows"] == 2:
            memory["bad"] = not_plain()

    scene = scenes({"acme": [Remembers(leaves), Sums()]})
    first, second = closed(scene, 0), closed(scene, 60)
    assert values(first) == {"remembers": 10.0, "sums": 10.0}
    assert values(second) == {"sums": 10.0}
    assert not second.memory
    assert scene.engine.memory.of(FRAUD)["remembers", None] == pack_state({"windows": 1})
    assert scene.registry.metrics["remembers"].errors == 1


def test_memory_is_what_it_is_after_a_restart(scenes: Scenes) -> None:
    """Tuples become lists at once, and not with the next start."""
    seen: list[Any] = []

    def leaves(memory: dict[str, Any]) -> None:
        seen.append(memory.get("kept"))
        memory["kept"] = (1, np.float64(2.5))

    scene = scenes({"acme": [Remembers(leaves)]})
    closed(scene, 0)
    closed(scene, 60)
    assert seen == [None, None, [1, 2.5], [1, 2.5]]


def test_memory_is_written_when_it_has_changed(scenes: Scenes) -> None:
    large = {"kept": bytes(100_000)}
    windows: list[int] = []

    def leaves(memory: dict[str, Any]) -> None:
        if not memory:
            memory.update(large)
        if len(windows) == 3:
            memory["kept"] = b"new"
        if len(windows) == 5:
            memory.clear()

    scene = scenes({"acme": [Remembers(leaves)]})
    changed = []
    for number in range(7):
        windows.append(number)
        changed.append({key: unpack_state(kept) for key, kept in closed(scene, 60 * number).memory.items()})
    kept = (large, None, {"kept": b"new"}, None, {}, large, None)
    keys = [("remembers", "a"), ("remembers", None)]
    assert changed == [{} if each is None else dict.fromkeys(keys, each) for each in kept]


def test_memory_that_cannot_be_read_begins_anew(scenes: Scenes) -> None:
    scene = scenes({"acme": [Remembers(lambda memory: memory.update(n=memory.get("n", 0) + 1))]})
    scene.engine.memory.restore(FRAUD, "remembers", None, b"\x81")
    scene.engine.memory.restore(FRAUD, "remembers", "a", pack_state([1]))
    report = closed(scene)
    assert set(report.memory.values()) == {pack_state({"n": 1})}
    assert values(report) == {"remembers": 10.0}


def test_memory_and_details_are_bounded(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.check_size, "__defaults__", (1000,))
    random = np.random.default_rng(0)
    scene = scenes(
        {
            "acme": [Remembers(lambda memory: memory.update(n=bytes(600)))],
            "other": [Gives(detail=lambda: random.bytes(600))],
            "third": [Sums()],
        }
    )
    report = closed(scene)
    assert values(report) == {"sums": 10.0}
    assert not report.memory
    assert not report.details
    for name in ("remembers", "gives"):
        assert "memory and details of this window take" in scene.registry.metrics[name].error


# --- points ----------------------------------------------------------------------------------------------------------

BAD_POINTS: dict[str, Any] = {
    "a lone surrogate in what": Value(SURROGATE, 1.0),
    "in a class": Value("x", 1.0, class_name=f"a{SURROGATE}"),
    "in a segment": Value("x", 1.0, segment_value=SURROGATE),
    "in the agent": Point(SURROGATE, Value("x", 1.0)),
    "no value": None,
    "a tuple": ("x", 1.0),
    "a string": Value("x", "1"),  # type: ignore[arg-type]
    "an array": Value("x", np.zeros(2)),  # type: ignore[arg-type]
    "complex": Value("x", 1j),  # type: ignore[arg-type]
    "infinite": Value("x", math.inf),
    "too large": Value("x", 10**400),
    "a number as a name": Value("x", 1.0, feat_name=3),  # type: ignore[arg-type]
    "bytes as a name": Value("x", 1.0, feat_name=b"x"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("bad", BAD_POINTS.values(), ids=BAD_POINTS)
def test_a_value_that_cannot_be_written_costs_its_metric_alone(bad: Any, scenes: Scenes) -> None:
    scene = scenes({"acme": [Gives(lambda: [bad]), Sums()]})
    report = closed(scene)
    assert values(report) == {"sums": 10.0}
    assert len(encoded(report).points) == 2


@pytest.mark.parametrize(
    "number",
    [np.float32(2.5), np.int64(3), np.uint8(4), True, 2**62, 2**70, -(2**64), np.float64(1.5)],
    ids=lambda number: f"{type(number).__name__}-{number}",
)
def test_every_number_is_written(number: Any, scenes: Scenes) -> None:
    report = closed(scenes({"acme": [Gives(lambda: [Value("x", number)])]}))
    assert [p.value.value for p in encoded(report).points if p.value.what == "x"] == [pytest.approx(float(number))] * 2


def test_what_is_not_text_in_an_error_does_no_harm(scenes: Scenes) -> None:
    """Nor does an exception that cannot say what it is, or that ends a program."""

    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def raises(error: BaseException) -> Iterable[Any]:
        raise error

    for error in (ValueError(SURROGATE), SilentError(), SystemExit(3), GeneratorExit(), StopIteration(1)):
        scene = scenes({"acme": [Gives(lambda error=error: raises(error)), Sums()]})  # type: ignore[misc]
        report = closed(scene)
        assert values(report) == {"sums": 10.0}
        scene.registry.metrics["gives"].error.encode()


def test_values_without_an_end_are_an_error(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "MOST_VALUES", 1000)
    scene = scenes({"acme": [Gives(lambda: repeat(Value("x", 1.0))), Sums()]})
    assert values(closed(scene)) == {"sums": 10.0}
    assert "more than 1,000 values" in scene.registry.metrics["gives"].error


def test_a_report_is_bounded(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest metrics are left out of it."""
    monkeypatch.setattr("zmon_collector.compute.finalizer.REPORT_BYTES", 2000)
    scene = scenes({"acme": [Gives(lambda: [Value(f"x{i}", 1.0) for i in range(100)]), Sums()]})
    report = closed(scene)
    assert values(report) == {"sums": 10.0}
    assert len(encoded(report).points) == 2
    assert "emit fewer series" in scene.registry.metrics["gives"].error


# --- details ---------------------------------------------------------------------------------------------------------


def test_a_detail_that_cannot_be_packed_costs_its_metric(scenes: Scenes) -> None:
    scene = scenes({"acme": [Gives(detail=lambda: {1}), Sums()]})
    report = closed(scene)
    assert values(report) == {"sums": 10.0}
    assert not report.details


def test_a_detail_that_cannot_be_read_is_none() -> None:
    assert read(zlib.compress(pack_state({(1, 2): 3}))) is None
    assert read(b"?") is None


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [[], ["*"]], ids=["whole", "segments"])
def test_an_accumulator_that_cannot_be_packed_costs_its_metric(
    not_plain: Any, segments: list[str], scenes: Scenes
) -> None:
    """In a checkpoint; the built-in metrics and the plugin's others are as without it."""
    config = {"metrics": {"segment_metrics": segments}}
    scene = scenes({"acme": [Holds(not_plain), Sums()]}, builtin=True, config=config)
    window = scene.window()
    scene.add(window, 30)
    data = scene.checkpoint(window)
    again = scenes({"acme": [Holds(lambda: [1]), Sums()]}, builtin=True, config=config)
    restored = again.window()
    again.restore(data, restored)
    again.add(restored, 6)
    sound = scenes({"acme": [Sums()]}, builtin=True, config=config)
    whole = sound.window()
    sound.add(whole, 30)
    sound.add(whole, 6)
    expected = sound.close(whole)
    found = again.close(restored)
    assert "holds" not in values(found)
    assert values(found)["sums"] == 36.0
    without = [point for point in found.points if point.value.what != "holds"]
    assert sorted(map(repr, without)) == sorted(map(repr, expected.points))


class OnlyInSegments(Sums):
    """Its accumulator can be packed over all rows, and not over those of a segment."""

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        return acc + batch.rows if batch.rows > 15 else {batch.rows}

    def merge(self, left: Any, right: Any) -> Any:
        return left if isinstance(left, set) else left + right


def test_a_segment_that_cannot_be_packed_costs_its_metric(scenes: Scenes) -> None:
    config = {"metrics": {"segment_metrics": ["*"]}}
    plugins = {"acme": [OnlyInSegments("bad"), Sums()]}
    scene = scenes(plugins, builtin=True, config=config)
    window = scene.window()
    scene.add(window, 30)
    restored_in = scenes({"acme": [Sums("bad"), Sums()]}, builtin=True, config=config)
    window_again = restored_in.window()
    restored_in.restore(scene.checkpoint(window), window_again)
    found = values(restored_in.close(window_again))
    assert "bad" not in found
    assert found["sums"] == 30.0
    assert found["buffer_count"] == 30


def test_an_accumulator_above_the_bound_costs_its_metric(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.check_size, "__defaults__", (5000,))
    scene = scenes({"acme": [Holds(lambda: bytes(3000)), Sums()]})
    window = scene.window()
    scene.add(window, 30)
    assert "holds" not in checkpoint_codec.decode(scene.checkpoint(window), window.schema).failed
    scene.add(window, 30, agent="b")  # the bound is for all agents of a window together
    checkpoint = checkpoint_codec.decode(scene.checkpoint(window), window.schema)
    assert "its accumulators of this window take" in checkpoint.failed["holds"]
    assert values(scene.close(window)) == {"sums": 60.0}


def test_a_checkpoint_above_the_bound_leaves_out_the_largest_metrics(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_codec, "CHECKPOINT_BYTES", 20_000)
    scene = scenes({"acme": [Holds(lambda: bytes(15_000), "large"), Holds(lambda: bytes(6_000), "small"), Sums()]})
    window = scene.window()
    scene.add(window, 30)
    data = scene.checkpoint(window)
    assert len(data) < 20_000
    assert list(checkpoint_codec.decode(data, window.schema).failed) == ["large"]
    assert values(scene.close(window)) == {"small": 1.0, "sums": 30.0}


def test_a_checkpoint_above_the_bound_has_a_smaller_sample(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_codec, "CHECKPOINT_BYTES", 20_000)
    scene = scenes({"acme": [Sums()]}, builtin=True)
    window = scene.window()
    for agent in ("a", "b"):
        scene.add(window, 1000, agent=agent)
    data = scene.checkpoint(window)
    assert len(data) < 40_000
    samples = [agent.sample for agent in checkpoint_codec.decode(data, window.schema).agents.values()]
    kept = [len(sample.keys) for sample in samples if sample is not None]
    assert len(kept) == 2
    assert 0 < sum(kept) < 2000
    again = scenes({"acme": [Sums()]}, builtin=True)
    restored = again.window()
    again.restore(data, restored)
    assert values(again.close(restored))["buffer_count"] == 2000
