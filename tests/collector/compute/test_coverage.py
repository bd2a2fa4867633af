"""A metric that saw a part of a window only gives nothing for it: left out, or whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.executors import MetricExecutor
from zmon_collector.metric_state import DISABLE_AFTER

from tests.support.engines import FRAUD, SCHEMA, Calls, EngineScene, Sums, values
from tests.support.waiting import until
from zmon.batch import Batch
from zmon.contract import Context
from zmon.state import pack_state, unpack_state

Scenes = Callable[..., EngineScene]


class Fails:
    """Raises in a metric's members as long as it is on."""

    def __init__(self, member: str = "result") -> None:
        self.on, self.member = True, member

    def __call__(self, member: str, ctx: Context | None) -> None:
        if self.on and member == self.member:
            raise RuntimeError("broken")


def disabled(scenes: Scenes) -> EngineScene:
    """An engine one of whose metrics has failed in several windows in a row."""
    fails = Fails()
    scene = scenes({"acme": [Calls("late", fails)], "other": [Sums()]})
    for number in range(DISABLE_AFTER):
        window = scene.window(60 * number)
        scene.add(window, 5)
        scene.close(window)
    assert scene.registry.metrics["late"].state == "disabled"
    fails.on = False
    return scene


def test_a_metric_that_was_disabled_before_a_checkpoint_is_left_out_after_a_restart(scenes: Scenes) -> None:
    scene = disabled(scenes)
    window = scene.window(600)
    scene.add(window, 40)
    data = scene.checkpoint(window)
    again, restored = scenes({"acme": [Sums("late")], "other": [Sums()]}), scene.window(600)
    again.restore(data, restored)
    again.add(restored, 10)
    assert values(again.close(restored)) == {"sums": 50.0}


def test_a_metric_that_was_disabled_gives_whole_values_after_a_restart_without_a_checkpoint(scenes: Scenes) -> None:
    disabled(scenes)
    again = scenes({"acme": [Sums("late")], "other": [Sums()]})
    window = again.window(600)
    again.add(window, 50)
    assert values(again.close(window)) == {"sums": 50.0, "late": 50.0}


def test_a_metric_stuck_in_one_window_is_left_out_of_the_windows_open_at_a_checkpoint(scenes: Scenes) -> None:
    stuck = Calls("late", lambda member, ctx: None)
    stuck.where = lambda member, ctx: stuck.release.wait(60) if ctx and ctx.window.start else None  # type: ignore
    scene = scenes({"acme": [stuck, Sums()]}, config={"collector": {"metric_timeout": "100ms"}})
    first, second = scene.window(0), scene.window(60)
    scene.add(first, 40)
    scene.settle()
    scene.add(second, 40)
    scene.settle()  # it is stuck in the second, and left behind
    data = scene.checkpoint(first)
    again, restored = scenes({"acme": [Sums("late"), Sums()]}), scene.window(0)
    again.restore(data, restored)
    again.add(restored, 10)
    assert values(again.close(restored)) == {"sums": 50.0}


def test_a_metric_that_is_installed_between_two_checkpoints_is_left_out(scenes: Scenes) -> None:
    scene, window = scenes({"other": [Sums()]}), None
    window = scene.window()
    scene.add(window, 40)
    data = scene.checkpoint(window)
    for _ in range(2):  # what it has seen between does not make it whole either
        scene, window = scenes({"acme": [Sums("late")], "other": [Sums()]}), scene.window()
        scene.restore(data, window)
        scene.add(window, 10)
        data = scene.checkpoint(window)
    assert values(scene.close(window)) == {"sums": 60.0}


@pytest.mark.parametrize("segments", [[], ["*"]], ids=["whole", "segments"])
def test_a_renamed_plugin_goes_on_where_it_was(segments: list[str], scenes: Scenes) -> None:
    config = {"metrics": {"segment_metrics": segments}}
    scene = scenes({"acme": [Sums("late")], "other": [Sums()]}, config=config)
    window = scene.window()
    scene.add(window, 39)
    data = scene.checkpoint(window)
    again, restored = scenes({"acme2": [Sums("late")], "other": [Sums()]}, config=config), scene.window()
    again.restore(data, restored)
    again.add(restored, 9)
    closed = again.close(restored)
    assert values(closed) == {"sums": 48.0, "late": 48.0}
    zones = {
        (point.value.what, point.value.segment_value): point.value.value
        for point in closed.points
        if point.value.segment_name and point.agent_id is None
    }
    expected = {(name, zone): 16.0 for name in ("sums", "late") for zone in ("north", "south", "west")}
    assert zones == (expected if segments else {})


@pytest.mark.parametrize("before", [("one", "two"), ("two", "one")], ids="-".join)
def test_metrics_of_two_plugins_that_become_one_are_left_out_or_whole(before: tuple[str, str], scenes: Scenes) -> None:
    config = {"metrics": {"segment_metrics": ["*"]}}
    scene = scenes({before[0]: [Sums("first")], before[1]: [Sums("second")]}, config=config)
    window = scene.window()
    scene.add(window, 30)
    data = scene.checkpoint(window)
    again, restored = scenes({"both": [Sums("first"), Sums("second")]}, config=config), scene.window()
    again.restore(data, restored)
    again.add(restored, 10)
    found = values(again.close(restored))
    assert len(found) == 1
    assert set(found.values()) == {40.0}


def test_a_metric_disabled_in_one_window_gives_its_values_in_windows_that_were_open(scenes: Scenes) -> None:
    """The metrics of a window are those of its opening."""
    fails = Fails()
    fails.member = "result"
    scene = scenes({"acme": [Calls("late", fails)]})
    opened = scene.window(6000)
    scene.add(opened, 30)
    for number in range(DISABLE_AFTER):
        window = scene.window(60 * number)
        scene.add(window, 5)
        scene.close(window)
    fails.on = False
    scene.add(opened, 10)
    assert values(scene.close(opened)) == {"late": 40.0}


def test_an_error_of_the_engine_costs_metrics_and_no_row_count(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that cannot be done for a reason that is no metric's: its rows are in no value, and still counted."""
    scene = scenes({"acme": [Sums()]}, builtin=True)
    window = scene.window()
    scene.add(window, 30)
    scene.settle()

    def broken(*_: Any) -> Any:
        raise MemoryError("too large")

    with monkeypatch.context() as patched:
        patched.setattr("zmon_collector.compute.batcher.accumulate", broken)
        scene.add(window, 10)
        scene.settle()
    scene.add(window, 5)
    found = values(scene.close(window))
    assert found["buffer_count"] == 45
    assert not {"sums", "prediction_count", "prediction_freq"} & found.keys()


def test_an_error_of_the_engine_while_results_are_merged_loses_no_part(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes({"acme": [Sums()]}, builtin=True)
    window = scene.window()

    def broken(*_: Any) -> Any:
        raise MemoryError("too large")

    with monkeypatch.context() as patched:
        patched.setattr("zmon_collector.compute.merge.fold", broken)
        for _ in range(20):
            scene.add(window, 10)
            scene.settle()
    scene.add(window, 5)
    found = values(scene.close(window))
    assert found["buffer_count"] == 205
    assert "sums" not in found


@pytest.mark.parametrize("broken", ["pack_partials", "encode"])
def test_a_checkpoint_that_cannot_be_made_lets_the_window_go_on(
    broken: str, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes({"acme": [Sums()]})
    window = scene.window()
    scene.add(window, 30)
    made: list[bytes | None] = []

    def raises(*_: Any) -> Any:
        raise MemoryError("too large")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_codec, broken, raises)
        assert scene.engine.checkpoint(FRAUD, window, made.append)
        scene.add(window, 40_000)
        until(lambda: scene.advance() or made, what="the end of the checkpoint")
    if broken == "encode":
        assert made == [None]
    assert scene.engine.checkpoint(FRAUD, window, made.append), "it is open again"
    until(lambda: scene.advance() or len(made) == 2, what="the next checkpoint")
    found = values(scene.close(window))
    assert found == ({"sums": 40_030.0} if broken == "encode" else {})


def test_a_checkpoint_of_the_first_release_is_read(scenes: Scenes) -> None:
    """It names the metrics that were there for all rows, and has one blob of segments of each executor."""
    segments = pack_state({})
    partials = {"acme": {"first": pack_state([20.0])}, "": {}}
    agent = {"rows": 20, "partials": partials, "segments": {"acme": segments, "": segments}, "sample": None}
    data = pack_state(
        {"version": 1, "metrics": ["first", "second"], "failed": {"second": "broken"}, "agents": {"a": agent}}
    )
    scene = scenes({"acme": [Lists("first"), Lists("second"), Lists("third")]})
    window = scene.window()
    scene.restore(data, window)
    scene.add(window, 5)
    assert values(scene.close(window)) == {"first": 25.0}


class Lists(Sums):
    """Its accumulators are lists."""

    def create(self, ctx: Context) -> Any:
        return [0.0]

    def update(self, acc: Any, batch: Any, ctx: Context) -> Any:
        return [acc[0] + batch.rows]

    def merge(self, left: Any, right: Any) -> Any:
        return [left[0] + right[0]]


def test_what_a_checkpoint_covers_is_in_it(scenes: Scenes) -> None:
    scene = scenes({"acme": [Sums()]})
    window = scene.window()
    scene.add(window, 30)
    plain = unpack_state(scene.checkpoint(window))
    assert plain["version"] == checkpoint_codec.VERSION
    assert plain["agents"]["a"]["partials"]["acme"]["covered"] == {"sums": 30}
    assert checkpoint_codec.decode(pack_state(plain), SCHEMA).agents["a"].added == 30


def test_pairs_of_late_labels_are_covered_as_well(scenes: Scenes) -> None:
    """They are not rows of the window; a metric must have seen them all the same, before and after a restart."""
    scene, window = scenes({"acme": [Sums(), LatePairs()]}), None
    window = scene.window()

    def pairs(scene: EngineScene, window: Any) -> None:
        columns = {"label_outcomes": np.zeros(4, np.int8), "labels": np.ones(4, np.int64)}
        scene.engine.add_rows(FRAUD, window, AgentRows("a", Batch(SCHEMA, columns)))

    scene.add(window, 30)
    pairs(scene, window)
    data = scene.checkpoint(window)
    assert checkpoint_codec.decode(data, SCHEMA).agents["a"].added == 34
    again = scenes({"acme": [Sums(), LatePairs()]})
    restored = again.window()
    again.restore(data, restored)
    pairs(again, restored)
    again.add(restored, 10)
    assert values(again.close(restored)) == {"sums": 40.0, "pairs": 8.0}


class LatePairs(Sums):
    """Counts late labels."""

    needs = frozenset({"label_outcomes"})

    def __init__(self) -> None:
        super().__init__("pairs")


def test_a_job_waits_for_a_slow_plugin_as_long_as_the_plugin_may_take(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files are read nothing piles up; a live collector goes on without it after a second."""
    clock = [100.0]
    monkeypatch.setattr("zmon_collector.compute.checkpointer.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(MetricExecutor, "abandon_overdue", lambda *_: [])
    slow = Calls("slow", lambda member, ctx: None)
    slow.where = lambda member, ctx: slow.release.wait(60) if member == "update" else None  # type: ignore[assignment]
    scene = scenes({"acme": [slow]}, patience=float("inf"))
    window = scene.window()
    scene.add(window, 30)
    made: list[bytes | None] = []
    assert scene.engine.checkpoint(FRAUD, window, made.append)
    for _ in range(20):
        clock[0] += 5.0
        scene.advance()
    assert not made
    slow.release.set()
    until(lambda: scene.advance() or made, what="the checkpoint")
    assert values(scene.close(window)) == {"slow": 30.0}


# --- rows that gather while a window is held --------------------------------------------------------------------------


def held(scenes: Scenes) -> tuple[EngineScene, Any, Calls, list[bytes | None]]:
    """A window that is held for a checkpoint, because a metric takes its time."""
    slow = Calls("slow", lambda member, ctx: None)
    slow.where = lambda member, ctx: slow.release.wait(60) if member == "update" else None  # type: ignore[assignment]
    scene = scenes({"acme": [slow]}, patience=float("inf"))
    window, made = scene.window(), []
    scene.add(window, 10)
    assert scene.engine.checkpoint(FRAUD, window, made.append)
    scene.advance()
    return scene, window, slow, made


def test_rows_that_gathered_above_the_bound_are_computed_on_when_the_window_is_open_again(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many agents, each with too few rows for a step: no further row comes, because receiving pauses."""
    monkeypatch.setattr("zmon_collector.compute.engine.QUEUE_BYTES", 40_000)
    scene, window, slow, made = held(scenes)
    for agent in range(40):
        scene.add(window, 100, agent=f"a{agent}")
    assert scene.engine.gathered > 40_000
    slow.release.set()
    until(lambda: scene.advance() or made, what="the checkpoint")
    scene.advance()
    assert scene.engine.gathered == 0
    assert values(scene.close(window)) == {"slow": 4010.0}


def test_rows_of_many_bytes_are_a_step_of_their_own_when_the_window_is_open_again(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few they are; and those of one long stretch become several steps."""
    monkeypatch.setattr("zmon_collector.compute.batcher.MICRO_BYTES", 2400)
    scene, window, slow, made = held(scenes)
    for _ in range(5):
        scene.add(window, 100)
    before = scene.engine.gathered
    slow.release.set()
    until(lambda: scene.advance() or made, what="the checkpoint")
    assert scene.engine.gathered < before
    assert values(scene.close(window)) == {"slow": 510.0}


def test_a_checkpoint_ends_though_a_metric_does_not_return(scenes: Scenes) -> None:
    """It is abandoned, and the window goes on without it; also where the checkpoint waits for plugins."""
    stuck = Calls("stuck", lambda member, ctx: None)
    stuck.where = lambda member, ctx: stuck.release.wait(60) if member == "update" else None  # type: ignore[assignment]
    scene = scenes({"acme": [stuck, Sums()]}, patience=float("inf"), config={"collector": {"metric_timeout": "100ms"}})
    window = scene.window()
    scene.add(window, 10)
    scene.checkpoint(window)
    scene.add(window, 10)
    assert values(scene.close(window)) == {"sums": 20.0}
