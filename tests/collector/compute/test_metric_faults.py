"""What is wrong with a metric in one model is no fault of it in another; a close takes as long as its work."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from zmon_collector.compute import finalizer
from zmon_collector.compute.accumulate import StepProgress
from zmon_collector.health import HealthReport
from zmon_collector.metric_state import DISABLE_AFTER, LONGEST_PAUSE, PAUSE, STUCK_CALLS, MetricState

from tests.support.engines import FRAUD, Calls, EngineScene, Sums, values
from tests.support.waiting import until
from zmon.batch import Array
from zmon.contract import Context, Value

Scenes = Callable[..., EngineScene]
SOUND = ("sound", "1")


def fails_in(*models: str) -> Calls:
    def where(_: str, ctx: Context | None) -> None:
        if ctx is not None and ctx.model in models:
            raise RuntimeError("broken")

    return Calls("acme", where)


def waits_in(*models: str, member: str = "update") -> Calls:
    metric = Calls("acme", lambda *_: None)

    def where(called: str, ctx: Context | None) -> None:
        if called == member and (ctx is None or ctx.model in models):
            metric.release.wait(60)

    metric.where = where
    return metric


def report(scene: EngineScene, start: int, model: tuple[str, str] = FRAUD, rows: int = 5) -> dict[str, float]:
    window = scene.window(start)
    scene.add(window, rows, model=model)
    return values(scene.close(window, model))


# --- disabled --------------------------------------------------------------------------------------------------------


def test_a_metric_that_fails_in_one_model_is_disabled_for_that_model(scenes: Scenes) -> None:
    scene = scenes({"acme": [fails_in("fraud"), Sums()]})
    state = scene.registry.metrics["acme"]
    for number in range(DISABLE_AFTER + 2):
        assert report(scene, 60 * number) == {"sums": 5.0}
        assert report(scene, 60 * number, SOUND) == {"sums": 5.0, "acme": 5.0}
        assert report(scene, 60 * number, ("fraud", "2")) == {"sums": 5.0}
    assert (state.state, state.models, state.errors) == ("disabled", ["fraud 1", "fraud 2"], 2 * DISABLE_AFTER)


def test_a_disabled_metric_is_tried_again_and_stays_when_it_is_sound(scenes: Scenes) -> None:
    metric = fails_in("fraud")
    scene = scenes({"acme": [metric]})
    for number in range(DISABLE_AFTER):
        report(scene, 60 * number)
    fails, metric.where = metric.where, lambda *_: None
    found = [report(scene, 6000 + 60 * number) for number in range(PAUSE + 3)]
    assert found == [{}] * PAUSE + [{"acme": 5.0}] * 3
    assert scene.registry.metrics["acme"].state == "ok"
    metric.where = fails
    assert report(scene, 60_000) == {}
    assert scene.registry.metrics["acme"].state == "ok", "it begins anew"


def test_a_metric_that_stays_broken_is_tried_ever_more_rarely() -> None:
    state, tried = MetricState(Sums(), "acme"), []
    for window in range(4 * LONGEST_PAUSE):
        if state.admit(FRAUD):
            tried.append(window)
            state.record_failure(FRAUD, "broken")
    pauses = [after - before - 1 for before, after in pairwise(tried)]
    first = DISABLE_AFTER - 1
    assert pauses[: first + 3] == [*[0] * first, PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert max(pauses) <= LONGEST_PAUSE
    assert state.admit(SOUND)


def test_windows_that_were_open_do_not_lengthen_the_pause() -> None:
    state = MetricState(Sums(), "acme")
    for _ in range(20):
        state.record_failure(FRAUD, "broken")
    assert [state.admit(FRAUD) for _ in range(PAUSE + 1)] == [False] * PAUSE + [True]


def test_health_says_for_which_models_a_metric_is_disabled() -> None:
    state = MetricState(Sums(), "acme")
    for number in range(5):
        for _ in range(DISABLE_AFTER):
            state.record_failure((f"m{number}", ""), "broken")
    row = {"kind": "metric", "name": "sums", "state": state.state, "error": state.error, "models": state.models}
    (problem,) = HealthReport(plugins=(row,)).problems
    assert problem == "metric sums is disabled for model m0, m1, m2 and 2 more: broken"


# --- stuck -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["update", "result"])
def test_a_metric_stuck_in_one_model_goes_on_in_others(member: str, scenes: Scenes) -> None:
    scene = scenes(
        {"acme": [waits_in("fraud", member=member), Sums()]}, config={"collector": {"metric_timeout": "100ms"}}
    )
    stuck, sound = scene.window(), scene.window()
    scene.add(stuck, 5)
    scene.add(sound, 5, model=SOUND)
    scene.engine.close(FRAUD, stuck)
    scene.engine.close(SOUND, sound)
    assert values(scene.closed(stuck)) == {"sums": 5.0}
    assert values(scene.closed(sound)) == {"sums": 5.0, "acme": 5.0}
    state = scene.registry.metrics["acme"]
    assert (state.state, state.models) == ("stuck", ["fraud 1"])
    assert report(scene, 60) == {"sums": 5.0}
    assert report(scene, 60, SOUND) == {"sums": 5.0, "acme": 5.0}
    assert state.stuck_calls == 1


def test_a_metric_that_hangs_in_every_model_holds_a_few_threads(scenes: Scenes) -> None:
    models = [(f"m{number}", "") for number in range(2 * STUCK_CALLS)]
    metric = waits_in(*(name for name, _ in models))
    scene = scenes({"acme": [metric, Sums()]}, config={"collector": {"metric_timeout": "100ms"}})
    for model in models:
        assert report(scene, 0, model) == {"sums": 5.0}
    assert report(scene, 0, SOUND) == {"sums": 5.0}
    state = scene.registry.metrics["acme"]
    assert state.stuck_calls == STUCK_CALLS
    assert state.state == "stuck"
    assert state.is_stuck_everywhere


def test_a_metric_that_gets_stuck_elsewhere_between_two_slices_of_a_close_does_not_hold_the_window(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_unit() -> Callable[[], bool]:
        units = iter([False])
        return lambda: next(units, True)

    def gets_stuck(called: str, ctx: Context | None) -> None:
        if called == "result":
            for number in range(STUCK_CALLS):
                scene.registry.metrics["acme"].mark_stuck((f"m{number}", ""), 3.0)

    monkeypatch.setattr(finalizer, "pause_after", one_unit)
    scene = scenes({"acme": [Calls("acme", gets_stuck), Sums()]})
    window = scene.window()
    for agent in ("a", "b"):
        scene.add(window, 5, agent)
    assert values(scene.close(window)) == {"sums": 10.0}
    assert report(scene, 60) == {"sums": 5.0}


def test_a_late_return_of_an_abandoned_call_changes_nothing() -> None:
    """Its step runs again without the metric: what the old thread does then must not count."""
    progress, inside, release = StepProgress(), threading.Event(), threading.Event()
    returned: list[Any] = []

    def call() -> int:
        inside.set()
        release.wait(60)
        return 1

    def run() -> None:
        returned.append(progress.guard("hangs", call))
        returned.append(progress.guard("next", lambda: 2))

    thread = threading.Thread(target=run)
    thread.start()
    inside.wait(60)
    assert progress.abandon(60.0) == ""
    assert progress.abandon(-1.0) == "hangs"
    release.set()
    thread.join(60)
    assert returned == [None, None]
    assert not progress.failures
    assert progress.abandon(-1.0) == "", "no call is under way"


# --- a close takes as long as its work --------------------------------------------------------------------------------


class Wide(Sums):
    """Each of its calls and values takes a while, none of them long."""

    def __init__(self, seconds: float, count: int = 0) -> None:
        super().__init__("wide")
        self.seconds, self.count = seconds, count

    def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
        for number in range(self.count):
            time.sleep(self.seconds)
            yield Value("wide", 1.0, category=str(number))
        time.sleep(self.seconds)
        yield Value("wide", float(acc[0]))


def test_a_close_of_many_agents_is_not_stuck(scenes: Scenes) -> None:
    """The timeout is for one call: here all agents together take many times as long."""
    scene = scenes({"acme": [Wide(0.02)]}, config={"collector": {"metric_timeout": "400ms"}})
    window = scene.window()
    for number in range(60):
        scene.add(window, 1, agent=f"a{number}")
    assert values(scene.close(window)) == {"wide": 60.0}
    assert scene.registry.metrics["wide"].state == "ok"


def test_a_close_of_many_values_is_not_stuck(scenes: Scenes) -> None:
    scene = scenes({"acme": [Wide(0.0015, 1000)]}, config={"collector": {"metric_timeout": "1s"}})
    window = scene.window()
    scene.add(window, 7)
    closed = scene.close(window)
    assert len(closed.points) == 2 * 1001
    assert scene.registry.metrics["wide"].state == "ok"


def test_another_model_does_not_wait_for_a_wide_close(scenes: Scenes) -> None:
    """Closes are cut into slices: the narrow one ends while the wide one has most of its agents before it."""
    done: list[str] = []
    stop = threading.Event()

    class Slow(Sums):
        def result(self, acc: Array, ctx: Context) -> Iterable[Value]:
            if ctx.model == "wide" and not stop.is_set():
                stop.wait(0.03)
            done.append(ctx.model)
            yield from super().result(acc, ctx)

    scene = scenes({"acme": [Slow()]}, config={"collector": {"workers": 1}})
    wide, narrow = scene.window(), scene.window()
    for number in range(400):
        scene.add(wide, 1, agent=f"a{number}", model=("wide", ""))
    scene.add(narrow, 1, model=SOUND)
    scene.settle()
    scene.engine.close(("wide", ""), wide)
    until(lambda: scene.advance() or done, what="the wide close to begin")
    scene.engine.close(SOUND, narrow)
    assert values(scene.closed(narrow)) == {"sums": 1.0}
    assert done.count("wide") < 200
    stop.set()
    assert values(scene.closed(wide)) == {"sums": 400.0}


# --- let go with the model -------------------------------------------------------------------------------------------


def test_nothing_is_kept_of_models_that_are_forgotten(scenes: Scenes) -> None:
    """Names come from publishers: thousands of short-lived ones must not pile up."""
    scene = scenes({"acme": [fails_in("none")], "other": [Sums()]}, builtin=True)

    def generation(first: int, names: int) -> None:
        for number in range(first, first + names):
            model = (f"model-{number}", "1")
            report(scene, 0, model)
            scene.registry.metrics["acme"].record_failure(model, "broken")
            scene.engine.forget(model)
        scene.reports.clear()
        gc.collect()

    generation(0, 8)
    tracemalloc.start()
    try:
        generation(100, 3)
        before = tracemalloc.get_traced_memory()[0]
        generation(1000, 12)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 12 * 1000, f"{grown / 12:.0f} bytes a name"
