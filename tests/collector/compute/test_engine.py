"""The engine by itself: what a window in each phase accepts, the order of closing, checkpoints, and reloads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import count, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import checkpoint_codec, checkpointer
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.window_state import Phase, WindowState
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import OpenWindow

import zmon
from tests.support.waiting import until
from zmon.batch import Batch, Schema
from zmon.contract import Context, Value
from zmon.hooks import hookimpl

MODEL = ("fraud", "1")
SCHEMA = Schema(classes=("no", "yes"))
NUMBERS = count(1)


class Rows(zmon.MetricBase[int]):
    """Counts rows; waits at a gate in the models that are named."""

    needs = frozenset({"probabilities"})

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = threading.Event()
        self.gated: set[str] = set()
        self.references: dict[int, Any] = {}  # by the window's start
        self.options: dict[int, set[Any]] = {}
        self.sampled: dict[int, int] = {}

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> int:
        if ctx.model in self.gated:
            assert self.gate.wait(20)
        self.options.setdefault(ctx.window.start, set()).add(ctx.options.get("limit"))
        return acc + batch.rows

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, acc: int, ctx: Context) -> Iterable[Value]:
        self.references[ctx.window.start] = ctx.reference
        self.sampled[ctx.window.start] = ctx.sample.rows if ctx.sample else 0
        yield Value(self.name, float(acc))


class Scene:
    """An engine with two plugins of one metric each, whose results are gathered by window number."""

    def __init__(self, policies: PolicyStore | None = None, names: str = "first second", origin: str = "given") -> None:
        self.first, self.second = (Rows(name) for name in names.split())
        registry = Registry()
        for metric in (self.first, self.second):
            registry.register(self._plugin(metric), metric.name, origin)
        config = parse({"limits": {"sample_bytes": 2**20}, "collector": {"workers": 1, "metric_timeout": "60s"}})
        self.engine = Engine(config, registry, policies or PolicyStore(config), lambda: None)
        self.closed: dict[int, ClosedWindow] = {}

    @staticmethod
    def _plugin(metric: Rows) -> object:
        class Plugin:
            @hookimpl
            def register_metrics(self, register: Any, options: Any) -> None:
                register(metric)

        return Plugin()

    def add(self, window: OpenWindow, rows: int = 5) -> None:
        batch = Batch(SCHEMA, {"probabilities": np.full((rows, 2), 0.5)})
        window.tally("a").received += rows
        self.engine.add_rows(MODEL, window, AgentRows("a", batch, seed=1, numbers=0))

    def advance(self) -> None:
        for closed in self.engine.advance():
            self.closed[closed.number] = closed

    def until_closed(self, *windows: OpenWindow) -> None:
        def there() -> bool:
            self.advance()
            return all(window.number in self.closed for window in windows)

        until(there, what="closed windows")

    def values(self, window: OpenWindow) -> dict[str, float]:
        """The rollup's values."""
        return {p.value.what: p.value.value for p in self.closed[window.number].points if p.agent_id is None}


def opened(start: int = 0) -> OpenWindow:
    return OpenWindow(start, start + 60, next(NUMBERS), SCHEMA)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.first.gate.set()
    scene.second.gate.set()
    scene.engine.shutdown()


# --- phases ----------------------------------------------------------------------------------------------------------

ALLOWED = {
    (Phase.OPEN, Phase.HELD),
    (Phase.OPEN, Phase.CLOSING),
    (Phase.HELD, Phase.OPEN),
    (Phase.HELD, Phase.CLOSING),
    (Phase.CLOSING, Phase.FINISHING),
    (Phase.FINISHING, Phase.DONE),
}


@pytest.mark.parametrize(("before", "after"), list(permutations(Phase, 2)))
def test_a_window_goes_from_phase_to_phase_in_order(before: Phase, after: Phase) -> None:
    state = WindowState(MODEL, opened(), phase=before)
    if (before, after) in ALLOWED:
        state.enter(after)
        assert state.phase is after
    else:
        with pytest.raises(RuntimeError, match=f"is {before.value} and cannot become {after.value}"):
            state.enter(after)
        assert state.phase is before


def test_an_open_window_accepts_rows_and_a_checkpoint(scene: Scene) -> None:
    window, made = opened(), []
    scene.add(window)
    assert scene.engine.backlog > 0  # too few for a step: they gather
    assert scene.engine.checkpoint(MODEL, window, made.append)
    until(lambda: scene.advance() or made, what="the checkpoint")
    assert scene.engine.checkpoint(MODEL, window, made.append), "it is open again"


def test_a_held_window_gathers_rows_and_accepts_no_second_checkpoint(scene: Scene) -> None:
    window, made = opened(), []
    scene.first.gated.add("fraud")
    scene.add(window, 5)
    assert scene.engine.checkpoint(MODEL, window, made.append)
    assert not scene.engine.checkpoint(MODEL, window, made.append)
    scene.add(window, 40_000)  # enough for a step, which must not begin
    scene.engine.flush()
    shown: list[Any] = []
    scene.engine.preview({"fraud"}, lambda *preview: shown.append(preview))
    scene.first.gate.set()
    until(lambda: scene.advance() or made, what="the checkpoint")
    checkpoint = checkpoint_codec.decode(made[0], SCHEMA)
    assert checkpoint.agents["a"].rows == 5
    assert {name: part.accumulators for name, part in checkpoint.agents["a"].partials.items()} == {
        "": {},
        "first": {"first": 5},
        "second": {"second": 5},
    }
    assert not shown
    scene.engine.close(MODEL, window)
    scene.until_closed(window)
    assert scene.values(window) == {"first": 40_005.0, "second": 40_005.0}


def test_a_closing_window_refuses_rows_checkpoints_and_a_second_close(scene: Scene) -> None:
    window = opened()
    scene.first.gated.add("fraud")
    scene.add(window)
    scene.engine.close(MODEL, window)
    for _ in range(3):  # its step is under way
        scene.advance()
    with pytest.raises(RuntimeError, match="is closing and takes no more rows"):
        scene.add(window)
    with pytest.raises(RuntimeError, match="is closing and cannot become closing"):
        scene.engine.close(MODEL, window)
    assert not scene.engine.checkpoint(MODEL, window, lambda data: None)
    assert list(scene.engine.unfinished()) == [(MODEL, window)]
    assert not scene.closed
    scene.first.gate.set()
    scene.until_closed(window)
    assert scene.values(window) == {"first": 5.0, "second": 5.0}


def test_nothing_is_held_of_a_window_that_is_done(scene: Scene) -> None:
    window = opened()
    scene.add(window)
    scene.engine.close(MODEL, window)
    scene.until_closed(window)
    assert scene.engine.idle
    assert not list(scene.engine.unfinished())
    assert scene.engine.rows(MODEL, window) == {}
    assert not scene.engine.checkpoint(MODEL, window, lambda data: None)


# --- closing ---------------------------------------------------------------------------------------------------------


def test_windows_of_a_model_are_done_in_order(scene: Scene) -> None:
    earlier, later = opened(0), opened(60)
    scene.first.gated.add("fraud")
    scene.add(earlier)
    scene.engine.close(MODEL, earlier)
    scene.engine.close(MODEL, later)  # it has no rows, and only the earlier one to wait for
    for _ in range(3):
        scene.advance()
    assert not scene.closed
    scene.first.gate.set()
    scene.until_closed(earlier, later)
    assert list(scene.closed) == [earlier.number, later.number]


def test_a_window_that_closes_while_it_is_held_drops_its_checkpoint(scene: Scene) -> None:
    window, made = opened(), []
    scene.first.gated.add("fraud")
    scene.add(window)
    assert scene.engine.checkpoint(MODEL, window, made.append)
    scene.add(window)
    scene.engine.close(MODEL, window)
    scene.first.gate.set()
    scene.until_closed(window)
    assert not made
    assert scene.values(window) == {"first": 10.0, "second": 10.0}


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_without_a_slow_plugin(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "PATIENCE", 0.0)
    window, made = opened(), []
    scene.first.gated.add("fraud")
    scene.add(window)
    assert scene.engine.checkpoint(MODEL, window, made.append)
    until(lambda: scene.advance() or made, what="the checkpoint")
    checkpoint = checkpoint_codec.decode(made[0], SCHEMA)
    assert "too slow" in checkpoint.failed["first"]
    assert set(checkpoint.agents["a"].partials) <= {"", "second"}
    scene.first.gate.set()
    scene.engine.close(MODEL, window)
    scene.until_closed(window)
    assert "first" not in scene.values(window)


def test_a_restored_window_goes_on_where_its_checkpoint_ended(scene: Scene) -> None:
    window, made = opened(), []
    scene.add(window)
    assert scene.engine.checkpoint(MODEL, window, made.append)
    until(lambda: scene.advance() or made, what="the checkpoint")
    again = Scene()
    restored = opened()
    checkpoint = checkpoint_codec.decode(made[0], SCHEMA)
    del checkpoint.agents["a"].partials["second"]  # it was not there then
    again.engine.restore(MODEL, restored, checkpoint)
    assert again.engine.rows(MODEL, restored) == {"a": 5}
    again.add(restored, 3)
    again.engine.close(MODEL, restored)
    again.until_closed(restored)
    again.engine.shutdown()
    assert again.values(restored) == {"first": 8.0}


def test_a_row_of_the_sample_is_as_wide_as_its_window(scene: Scene) -> None:
    names = tuple(f"x{i}" for i in range(1000))
    window = OpenWindow(0, 60, next(NUMBERS), Schema(SCHEMA.task, SCHEMA.classes, names, ("numeric",) * 1000))
    batch = Batch(Schema(SCHEMA.task, SCHEMA.classes, ("x0",), ("numeric",)), {"inputs": np.zeros((5, 1))})
    scene.engine.add_rows(MODEL, window, AgentRows("a", batch, seed=1, numbers=0))
    scene.engine.close(MODEL, window)
    scene.until_closed(window)
    assert scene.engine.smallest_sample == 2**20 // (2 * (8 + 8 * 1000))


def test_names_behind_codes_count_in_the_sample(scene: Scene) -> None:
    """A row of two bytes of codes may have a name of 256 characters that no other has."""
    features = ("x", "y")
    schema = Schema(SCHEMA.task, SCHEMA.classes, features, ("categorical",) * 2)
    window = OpenWindow(0, 60, next(NUMBERS), schema)
    rows = 2000
    for step in range(4):
        names = tuple(f"{step} {i:0>250}" for i in range(rows))
        codes = np.repeat(np.arange(rows, dtype=np.int16)[:, None], 2, axis=1)
        batch = Batch(schema, {"codes": codes}, dictionaries={"codes": (names, names)})
        scene.engine.add_rows(MODEL, window, AgentRows("a", batch, seed=1, numbers=1 + step * rows))
        assert scene.engine.backlog > 2 * 250 * rows
        scene.engine.flush()
        until(lambda: scene.advance() or not scene.engine.backlog, what="the step")
    checkpoints: list[bytes | None] = []
    scene.engine.checkpoint(MODEL, window, checkpoints.append)
    until(lambda: scene.advance() or checkpoints, what="the checkpoint")
    assert checkpoints[0] is not None
    sample = checkpoint_codec.decode(checkpoints[0], schema).agents["a"].sample
    assert sample is not None
    assert 2**16 < sample.nbytes <= 2**19, "half of limits.sample_bytes"
    assert scene.engine.smallest_sample == len(sample.keys)


# --- policies --------------------------------------------------------------------------------------------------------


def profile(path: Path, seed: int) -> str:
    random = np.random.default_rng(seed)
    p = random.dirichlet((1, 2), 500)
    zmon.profile(p, labels=(random.random(500) < p[:, 1]).astype(int), classes=["no", "yes"]).save(path)
    return str(path)


def test_a_window_keeps_the_reference_that_it_opened_with(tmp_path: Path) -> None:
    before = parse({"models": {"fraud": {"reference": profile(tmp_path / "before.zmon", 0)}}})
    after = parse({"models": {"fraud": {"reference": profile(tmp_path / "after.zmon", 1), "drop": ["second"]}}})
    policies = PolicyStore(before)
    scene, old, new = Scene(policies), opened(0), opened(60)
    scene.add(old)
    opened_with = policies.of("fraud").reference
    policies.replace(after)
    scene.add(new)
    for window in (old, new):
        scene.engine.close(MODEL, window)
    scene.until_closed(old, new)
    scene.engine.shutdown()
    assert opened_with is not None
    assert scene.first.references == {0: opened_with, 60: policies.of("fraud").reference}
    assert scene.first.references[0] is opened_with
    assert scene.values(old) == {"first": 5.0, "second": 5.0}
    assert scene.values(new) == {"first": 5.0}


def test_a_window_keeps_the_options_and_the_sample_that_it_opened_with() -> None:
    policies = PolicyStore(parse({"plugins": {"first": {"limit": 1}}, "collector": {"sample_rows": 3}}))
    scene, old, new = Scene(policies), opened(0), opened(60)
    scene.engine.open(MODEL, old)  # before it has rows
    policies.replace(parse({"plugins": {"first": {"limit": 2}}, "collector": {"sample_rows": 4}}))
    for window in (old, new):
        scene.add(window)
        scene.engine.close(MODEL, window)
    scene.until_closed(old, new)
    scene.engine.shutdown()
    assert scene.first.options == {0: {1}, 60: {2}}
    assert scene.first.sampled == {0: 3, 60: 4}


def test_a_contract_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    before = {"models": {"fraud": {"reference": profile(tmp_path / "one.zmon", 0), "drop": ["second"]}}}
    first = Scene(PolicyStore(parse(before)))
    contract = first.engine.open(MODEL, opened())
    kept = {digest: pack() for digest, pack in contract.parts()}
    profile(tmp_path / "one.zmon", 1)
    again = Scene(PolicyStore(parse({**before, "collector": {"sample_rows": 7}})))
    restored, sound = again.engine.contracts.restore(MODEL, *contract.digests, kept)
    assert (sound, restored.policy) == (True, contract.policy)
    assert restored.profile is not None and contract.profile is not None
    assert restored.profile.digest == contract.profile.digest
    assert restored.digests == contract.digests
    assert restored.policy != again.engine.contracts.current(MODEL).policy
    for scene in (first, again):
        scene.engine.shutdown()


def test_a_damaged_contract_is_replaced_by_the_present_settings_and_no_reference(tmp_path: Path) -> None:
    config = {"models": {"fraud": {"reference": profile(tmp_path / "one.zmon", 0)}}}
    scene = Scene(PolicyStore(parse(config)))
    current = scene.engine.contracts.current(MODEL)
    for kept in ({}, {b"p": b"", b"r": b""}, {b"p": b"[1]", b"r": b"{}"}, {b"p": b'{"version": 1}', b"r": b"\x80"}):
        restored, sound = scene.engine.contracts.restore(MODEL, b"p", b"r", kept)
        assert (sound, restored.policy, restored.profile) == (False, current.policy, None)
    assert scene.engine.contracts.restore(MODEL, None, None, {}) == (current, True), "of a release that noted none"
    assert scene.engine.contracts.restore(MODEL, None, b"", {})[0].profile is None
    scene.engine.shutdown()


@pytest.mark.parametrize(
    ("names", "origin", "values"),
    [
        ("first second", "given", {"first": 5.0, "second": 5.0}),
        ("first renamed", "given", {"first": 5.0}),
        ("first second", "given 1.1", {}),
    ],
    ids=["the same", "renamed", "another release"],
)
def test_metrics_that_a_window_did_not_open_with_have_no_values_in_it(
    names: str, origin: str, values: dict[str, float]
) -> None:
    before, again, window, later = Scene(), Scene(names=names, origin=origin), opened(), opened(60)
    again.engine.open(MODEL, window, before.engine.open(MODEL, window))
    for each in (window, later):
        again.add(each)
        again.engine.close(MODEL, each)
    again.until_closed(window, later)
    assert again.values(window) == values
    assert again.values(later) == dict.fromkeys(names.split(), 5.0)
    for scene in (before, again):
        scene.engine.shutdown()
