"""The page in a real browser: every view, live updates, and everything that a person can do with it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.ingest.answers import Detail

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.pages import Start, shown
from tests.support.reports import behind, window
from zmon import Point, Value

VIEWS = {
    "overview": "#/overview",
    "model": "#/model?model={model}",
    "series": "#/series?model={model}&what=feature_value&feat_name={feature}",
    "alerts": "#/alerts",
    "health": "#/health",
}
EVIL = "<img src=x onerror=\"document.body.dataset.evil='yes'\">"
LONG = "<b>long</b>" + "x" * 10_000


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Open a page of a collector; at the end there must have been no error and no request to elsewhere."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def start(collector: Collector, address: str = "", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        url = collector.service.site.url
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, "data:", "blob:")) else wrong.append(asked.url),
        )
        page.goto(url + address)
        return page

    yield start
    for context in contexts:
        context.close()
    assert wrong == []


def now() -> int:
    return int(time.time()) // 10 * 10


@pytest.fixture
def served(paged: Start) -> Collector:
    """Twelve windows, of which the last four are another world."""
    collector = paged()
    random = np.random.default_rng(0)
    features = ["age", "amount"]
    p, inputs = random.dirichlet((1, 1), 1000), random.normal((40, 0), (9, 1), (1000, 2))
    profile = zmon.profile(p, inputs, classes=["no", "yes"], features=features)
    collector.service.live.reference = lambda model: profile
    found = behind(profile, p, inputs + np.array([9, 0]), (random.random(1000) < p[:, 1] * 0.8).astype(int))
    for i in range(12):
        odd = i >= 8
        shares = {"no": 0.9, "yes": 0.1} if odd else {"no": 0.4, "yes": 0.6}
        made = window(
            i + 1, now() - 120 + 10 * i, confidence=0.3 if odd else 0.9, shift=5.0 * odd, shares=shares, details=found
        )
        shown(collector, made)
    return collector


TRACES = """panel => document.querySelector(`[data-panel=${panel}] .js-plotly-plot`)
    .data.map(({name, x, y, z}) => ({name, x, y, z}))"""


def figure(page: Any, panel: str) -> list[dict[str, Any]]:
    """The traces that a panel really shows."""
    page.wait_for_selector(f"[data-panel={panel}] .main-svg")
    found: list[dict[str, Any]] = page.evaluate(TRACES, panel)
    return found


def whole(page: Any) -> None:
    """Scroll through all panels, so that each is drawn or says why it is empty; back to the top."""
    page.wait_for_selector("main h1")
    page.wait_for_selector("#connection[data-state=live]")
    for panel in page.query_selector_all("[data-panel]"):
        panel.scroll_into_view_if_needed()
        page.wait_for_function("node => node.querySelector('.main-svg, .empty, table, .list')", arg=panel)
    page.evaluate("() => scrollTo(0, 0)")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_without_an_error(served: Collector, opened: Open, view: str, tmp_path: Path) -> None:
    page = opened(served, VIEWS[view].format(model="m", feature="age"), color_scheme="light")
    folder = Path(os.environ.get("ZMON_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        whole(page)
        assert page.evaluate("() => document.documentElement.dataset.theme") == theme
        page.screenshot(path=folder / f"{view}-{theme}.png", full_page=True)
        page.keyboard.press("t")


def test_a_change_shows_in_confidence_classes_and_features(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m")
    confidence = next(trace for trace in figure(page, "confidence") if trace["name"] == "mean confidence")
    assert confidence["y"] == [0.9] * 8 + [0.3] * 4
    classes = {trace["name"]: trace["y"] for trace in figure(page, "classes")}
    assert classes["no"] == [0.4] * 8 + [0.9] * 4
    (heat,) = figure(page, "movement")
    assert all(max(row[:8]) < 0.5 < 1.0 < min(row[8:]) for row in heat["z"])
    assert page.locator(".head .state").inner_text() == "drifting"


AXIS = "() => [...document.querySelectorAll('[data-panel=confidence] .xtick text')].map((tick) => tick.textContent)"


@pytest.mark.parametrize(("zone", "hour"), [("UTC", "09"), ("Asia/Tokyo", "18"), ("America/New_York", "04")])
@pytest.mark.parametrize("windows", [1, 3])
def test_charts_are_on_the_clock_of_the_viewer(paged: Start, opened: Open, zone: str, hour: str, windows: int) -> None:
    collector, nine = paged(), now() // 86400 * 86400 - 15 * 3600
    for i in range(windows):
        shown(collector, window(i + 1, nine + 10 * i))
    page = opened(collector, "#/model?model=m&range=24h&to=" + str(nine + 60), timezone_id=zone)
    page.wait_for_selector("[data-panel=confidence] .xtick")
    ticks = page.evaluate(AXIS)
    assert {tick[:3] for tick in ticks} == {f"{hour}:"}
    assert windows > 1 or [tick[:8] for tick in ticks] == [f"{hour}:00:00"]


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_a_phone(served: Collector, opened: Open, view: str) -> None:
    page = opened(served, VIEWS[view].format(model="m", feature="age"))
    page.set_viewport_size({"width": 390, "height": 800})
    whole(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_the_newest_window_is_shown_over_the_reference_and_by_confidence(served: Collector, opened: Open) -> None:
    page = opened(served, "#/series?model=m&what=feature_value&feat_name=age")
    reference, current = ({trace["name"]: trace["y"] for trace in figure(page, "reference")}[name]
                          for name in ("reference", "window"))  # fmt: skip
    assert reference == pytest.approx([0.1] * 10, abs=0.002)
    assert current[0] < 0.05 < 0.2 < current[-1]
    page.evaluate("() => { location.hash = '#/model?model=m' }")
    page.wait_for_selector("[data-panel=reliability]")
    page.locator("[data-panel=reliability]").scroll_into_view_if_needed()
    assert {trace["name"] for trace in figure(page, "reliability")} == {
        "rows", "calibrated", "newest window", "12 windows",
    }  # fmt: skip


def test_a_closing_window_shows_within_a_second_and_a_half(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m")
    figure(page, "confidence")
    started = time.monotonic()
    shown(served, window(50, now(), confidence=0.77))
    page.wait_for_function(
        "() => document.querySelector('[data-panel=confidence] .js-plotly-plot').data.some(t => t.y.includes(0.77))",
        polling=20,
    )
    assert time.monotonic() - started < 1.5


def test_pause_holds_the_view_and_its_link_restores_it(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m&range=5m")
    before = figure(page, "confidence")
    page.keyboard.press("p")
    page.wait_for_selector("#connection[data-state=paused]")
    assert page.locator("#notice").is_visible()
    shown(served, window(50, now() + 600, confidence=0.77))
    link = page.url.partition("/#")[2]
    other = opened(served, f"#{link}")
    assert [trace["y"] for trace in figure(other, "confidence")] == [trace["y"] for trace in before]
    assert [trace["y"] for trace in figure(page, "confidence")] == [trace["y"] for trace in before]
    page.keyboard.press("p")
    page.wait_for_selector("#connection[data-state=live]")


def test_the_range_is_chosen_and_kept_in_the_address(paged: Start, opened: Open) -> None:
    collector = paged()
    shown(collector, window(1, now() - 3000), window(2, now() - 10))
    page = opened(collector, "#/model?model=m")
    assert len(figure(page, "confidence")[-1]["x"]) == 1
    page.get_by_role("button", name="1h", exact=True).click()
    page.wait_for_function(
        "() => document.querySelector('[data-panel=confidence] .js-plotly-plot').data.at(-1).x.length >= 2"
    )
    assert "range=1h" in page.url
    page.get_by_role("link", name="Health").click()
    assert "range=1h" in page.url


def test_search_by_keyboard_leads_to_a_series(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m")
    page.wait_for_selector("main h1")
    page.keyboard.press("/")
    page.keyboard.type("amount")
    page.wait_for_selector("#found a")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text('amount')")
    names = {trace["name"] for trace in figure(page, "bands")}
    assert {"middle half", "median", "mean"} <= names
    assert {trace["name"] for trace in figure(page, "by_replica")} == {"a", "b"}


def test_enter_waits_for_the_answer_to_all_that_was_typed(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m")
    page.wait_for_selector("main h1")
    page.keyboard.press("/")
    page.keyboard.type("a")
    page.wait_for_selector("#found a")
    page.route("**/api/v1/series*", lambda route: (time.sleep(0.3), route.continue_()))
    page.keyboard.type("mount")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text('amount')", timeout=10_000)


def test_many_features_stay_usable(paged: Start, opened: Open) -> None:
    collector = paged()
    features = tuple(f"pixel_{i}" for i in range(784))
    classes = tuple(f"digit {i}" for i in range(10))
    for i in range(8):
        shown(collector, window(i + 1, now() - 80 + 10 * i, features=features, classes=classes, agents=("a",)))
    page = opened(collector, "#/model?model=m")
    (heat,) = figure(page, "movement")
    assert len(heat["z"]) == 40
    assert page.locator("[data-panel=movers] a").count() == 100
    assert len(page.query_selector_all(".js-plotly-plot")) < 16
    page.fill("#search", "pixel_777")
    page.wait_for_selector("#found a")
    assert page.locator("#found a").count() == 1


def test_the_theme_turns_and_is_remembered(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m", color_scheme="light")
    figure(page, "confidence")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(
        "document.querySelector('[data-panel=confidence] .js-plotly-plot').layout.template.layout.font.color"
    ) == ("#e8eaf2")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_points_are_exported(served: Collector, opened: Open) -> None:
    page = opened(served, "#/model?model=m")
    figure(page, "confidence")
    with page.expect_download() as download:
        page.locator("[data-panel=confidence] .csv").click()
    text = Path(download.value.path()).read_text()
    assert text.splitlines()[0] == "time,timestamp,what,model,stat,value"
    assert len(re.findall(r"max_prediction_proba,m,mean", text)) == 12


def test_an_alert_appears(served: Collector, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    live = served.service.live
    page = opened(served, "#/alerts")
    page.wait_for_selector("main .empty span:text('No alert has fired.')")
    alert = {"state": "firing", "model": "m", "version": "", "text": f"confidence {EVIL}", "since": now(), "value": 0.3}
    monkeypatch.setattr(live, "alerts", lambda: [alert])
    page.wait_for_selector("main tr:has-text('onerror') .state[data-state=degraded]")
    assert EVIL in page.locator("table").inner_text()
    page.keyboard.press("1")
    page.wait_for_selector("tr.lead .state[data-state=drifting]")
    assert page.locator("tr.lead td").last.inner_text() == "1"


def test_refused_rows_are_shown_with_their_detail_as_text(served: Collector, opened: Open) -> None:
    live = served.service.live
    live.details_of = lambda model: [Detail("rejected", EVIL, "a", f"feature {EVIL}", 1.0)]
    page = opened(served, "#/model?model=m")
    page.wait_for_selector("[data-panel=rows]")
    assert page.locator("[data-panel=refusals]").count() == 0
    points = [Point("a", Value("rows_rejected", 7.0, reason=EVIL)), Point("a", Value("rows_degraded", 3.0, reason="d"))]
    made = window(13, now())
    shown(served, replace(made, points=[*made.points, *points]))
    page.wait_for_selector("[data-panel=refusals] tr:has-text('7'):has-text('feature <img')")
    assert page.locator("[data-panel=refusals] tbody tr").count() == 2
    assert page.evaluate("document.body.dataset.evil") is None


def test_two_versions_stand_side_by_side(served: Collector, opened: Open) -> None:
    shown(served, *(window(100 + i, now() - 60 + 10 * i, version="canary", confidence=0.6) for i in range(5)))
    page = opened(served, "#/model?model=m")
    page.locator("[data-panel=version_confidence]").scroll_into_view_if_needed()
    assert {trace["name"] for trace in figure(page, "version_confidence")} == {"no version", "canary"}


def test_names_are_text_whatever_they_hold(paged: Start, opened: Open) -> None:
    pandas = require("pandas")
    collector = paged()
    names = {"features": (EVIL, LONG), "classes": (EVIL, LONG), "agents": (EVIL, f"<i>{LONG[:140]}")}
    random = np.random.default_rng(0)
    long = LONG[:1024]  # the longest name that a profile takes
    columns = {
        EVIL: pandas.Categorical(random.choice([EVIL, "<b>b</b>"], 300)),
        long: random.normal(size=300),
    }
    rows = random.dirichlet((1, 1), 300), pandas.DataFrame(columns)
    profile = zmon.profile(*rows, classes=[EVIL, "<b>yes</b>"])
    collector.service.live.reference = lambda model: profile
    names["details"] = behind(profile, *rows, random.integers(0, 2, 300))  # type: ignore[assignment]
    for i in range(8):
        shown(collector, window(i + 1, now() - 80 + 10 * i, model=EVIL, version="<u>1</u>", **names))
    quoted = {"model": EVIL, "version": "<u>1</u>"}
    page = opened(collector, "#/overview")
    views = [
        ("overview", {}),
        ("series", {**quoted, "what": "feature_value", "feat_name": LONG}),
        ("model", quoted),
        ("alerts", {}),
        ("series", {**quoted, "what": "feature_value", "feat_name": long}),
        ("health", {}),
        ("series", {**quoted, "what": "feature_freq", "feat_name": EVIL, "category": EVIL}),
        ("overview", {}),
        ("series", {**quoted, "what": "prediction_freq", "class_name": EVIL}),
    ]
    for i, (view, own) in enumerate(views):
        page.evaluate("hash => { location.hash = hash }", page.evaluate(
            "([view, own]) => `#/${view}?${new URLSearchParams(own)}`", [view, own]))  # fmt: skip
        if view == "series" and i > 1:  # the first is of a feature that the reference does not have
            page.wait_for_selector("[data-panel=reference] .main-svg")
        elif view == "model":
            page.locator("[data-panel=reliability]").scroll_into_view_if_needed()
            page.wait_for_selector("[data-panel=reliability] .main-svg")
        whole(page)
        assert page.locator("main img, main b, main i, main u, svg a, svg image[href^=x]").count() == 0, view
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} is too wide"
    page.fill("#search", "onerror")
    page.wait_for_selector("#found a")
    assert page.locator("#found img").count() == 0
    assert page.evaluate("document.body.dataset.evil ?? 'no'") == "no"
    page.evaluate("() => { location.hash = '#/overview' }")
    page.wait_for_selector("h1:text('Models')")
    assert EVIL in page.locator("table").inner_text()


def test_a_token_is_requested_on_the_page(paged: Start, browser: Any, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-token-of-some-length")
    collector = paged(token_file=secret)
    page = browser.new_page()  # the browser logs the refusals: not an error here
    page.goto(collector.service.site.url)
    page.fill("input[type=password]", "wrong")
    page.click("text=Open")
    page.wait_for_selector("text=This is not the token.")
    page.fill("input[type=password]", "a-token-of-some-length")
    page.click("text=Open")
    page.wait_for_selector("#connection[data-state=live]")
    page.close()


def test_it_says_when_the_collector_is_gone(served: Collector, browser: Any) -> None:
    page = browser.new_page()
    page.goto(served.service.site.url)
    page.wait_for_selector("#connection[data-state=live]")
    served.stop()
    page.wait_for_selector("#connection[data-state=lost]")
    page.close()
