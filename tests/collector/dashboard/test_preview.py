"""The window that is being filled: shown to whoever looks, equal to what it will be, and without a trace in it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from zmon_collector.config import Config
from zmon_collector.config.sections import WebSection
from zmon_collector.dashboard import panels as views

from tests.support.collectors import Collector
from tests.support.pages import Look, Start, get, open_window
from tests.support.points import by_names
from tests.support.waiting import until


def publish(collector: Collector, start: int, agents: tuple[str, ...], batches: int, rng: np.random.Generator) -> None:
    for agent in agents:
        with collector.publisher("m", classes=3, agent_id=agent, features=["a", "b"]) as publisher:
            for _ in range(batches):
                p = rng.dirichlet([1, 1, 1], 50)
                publisher.publish(p, inputs=rng.normal(size=(50, 2)), labels=p.argmax(axis=1), timestamps=start + 1.0)
            assert publisher.flush(60)


def view(collector: Collector) -> dict[str, Any]:
    url = f"{collector.service.site.url}api/v1/view"
    found: dict[str, Any] = get(url, params={"view": "model", "model": "m", "range": "all"}).json()
    return found


def rows(found: dict[str, Any], length: int) -> float:
    panel = next((each for each in found["panels"] if each["id"] == "rows"), {"figure": None})
    return length * panel["figure"]["data"][0]["y"][-1] if panel["figure"] else 0.0


def test_an_open_window_shows_what_it_holds_so_far(paged: Start, look: Look) -> None:
    start, length = open_window()
    collector = paged(window=length)
    rng = np.random.default_rng(0)
    viewer = look(collector, "view=model&model=m&range=all")
    assert viewer.next()[1]["missing"]
    publish(collector, start, ("a", "b"), 3, rng)
    until(lambda: collector.service.live.partials, what="a preview")
    found = until(lambda: (now := view(collector)) and not now.get("missing") and now, what="the model")
    confidence = next(panel for panel in found["panels"] if panel["id"] == "confidence")["figure"]
    assert confidence["layout"]["meta"] == {"partial": [start, start + length]}
    assert "so far" in json.dumps(confidence["layout"]["annotations"])
    publish(collector, start, ("a",), 2, rng)
    until(lambda: round(rows(view(collector), length)) == 400, what="the further rows")


def test_a_preview_equals_the_window_and_leaves_no_trace(paged: Start, look: Look) -> None:
    start, length = open_window()
    watched, alone = paged(window=length, folder="watched"), paged(window=length, folder="alone")
    look(watched, "view=model&model=m&range=all").next()
    for batches in (3, 4):  # looked at in between
        for collector in (watched, alone):
            publish(collector, start, ("a", "b"), batches, np.random.default_rng(batches))
        wanted = 100 * (batches if batches == 3 else 7)
        seen = lambda wanted=wanted: [  # noqa: E731
            p.value.value for report in watched.service.live.partials.values() for p in report.points
            if p.agent_id is None and p.value.what == "prediction_count"
        ]  # fmt: skip
        until(lambda wanted=wanted, seen=seen: sum(seen()) == wanted, what="a preview of all rows")
    (report,) = watched.service.live.partials.values()
    names = [report.properties(point) for point in report.points]
    partial = by_names(
        [{"properties": each, "value": p.value.value} for each, p in zip(names, report.points, strict=True)]
    )
    for collector in (watched, alone):
        collector.stop()
    # Streams differ, so samples lie in another order: all but their order is equal while the sample is complete.
    closed, undisturbed = by_names(watched.points()), by_names(alone.points())
    assert closed.keys() == undisturbed.keys() == partial.keys()
    for key, value in undisturbed.items():
        np.testing.assert_allclose([closed[key], partial[key]], value, rtol=1e-9, atol=1e-12, err_msg=str(key))


def test_a_window_that_waits_for_late_rows_stays_beside_the_next(collect: Start, look: Look) -> None:
    start, length = open_window()
    config = Config(web=WebSection(bind="127.0.0.1:0"))
    collector = collect(config=config, window=length, grace=3000.0, idle=3000.0, max_wait=3000.0)
    look(collector, "view=model&model=m&range=all").next()
    for at, agents in ((start - length, ("a", "b")), (start, ("a",))):
        publish(collector, at, agents, 2, np.random.default_rng(0))

    def both() -> Any:
        panel = next((each for each in view(collector)["panels"] if each["id"] == "rows"), {"figure": None})
        shown = [round(length * y) for y in panel["figure"]["data"][0]["y"]] if panel["figure"] else []
        return panel["figure"] if shown == [200, 100] else None

    figure = until(both, what="both windows")
    assert figure["layout"]["meta"] == {"partial": [start - length, start + length]}


def test_nobody_looks_nothing_is_computed(paged: Start) -> None:
    start, length = open_window()
    collector = paged(window=length)
    publish(collector, start, ("a",), 1, np.random.default_rng(0))
    until(lambda: len(collector.service.live.health_history) > 2, what="three seconds")
    assert not collector.service.live.partials


def test_only_charts_over_time_are_marked() -> None:
    panels = [{"figure": {"layout": {"xaxis": {"type": kind}}}} for kind in ("date", "linear")] + [{"figure": None}]
    marked = views.mark_partial(panels, (0, 60))
    assert ["shapes" in (each["figure"] or {"layout": {}})["layout"] for each in marked] == [True, False, False]
