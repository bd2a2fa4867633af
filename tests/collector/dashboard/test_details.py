"""Behind a window's values: the calibration curve, and a distribution over its reference; no sink sees them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import details
from zmon_collector.config import Config
from zmon_collector.config.sections import ModelSection, WebSection
from zmon_collector.dashboard import distributions, history_queries
from zmon_collector.dashboard.history import History
from zmon_collector.dashboard.history_queries import PointQuery
from zmon_collector.delivery import report_codec

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.pages import Look, get, open_window
from tests.support.waiting import until
from zmon import Point, Report, Value, Window
from zmon.reference import Profile

START = int(time.time()) // 3600 * 3600
COLOURS = ("red", "green", "blue")


def table(seed: int, n: int = 2000, shift: float = 0.0) -> Any:
    """Numbers of all kinds: continuous with holes, mostly 0, constant; and colours."""
    pandas = require("pandas")
    random = np.random.default_rng(seed)
    amount = random.normal(shift, 1, n)
    amount[random.random(n) < 0.05] = np.nan
    visits = np.where(random.random(n) < 0.6, 0, random.poisson(3, n)).astype(float)
    visits[random.random(n) < 0.1] = np.nan
    return pandas.DataFrame(
        {
            "amount": amount,
            "visits": visits,
            "constant": np.full(n, 7.0) + (shift > 0),
            "colour": pandas.Categorical.from_codes(random.integers(0, 3 - (shift > 0), n), COLOURS),
        }
    )


def scores(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    p = random.dirichlet((1, 1, 1), n)
    labels = (random.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    labels[::7] = -1
    return p, labels


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "m.zmon"
    zmon.profile(scores(0)[0], table(0), classes=3).save(path)
    return path


def config(**model: Any) -> Config:
    return replace(Config(web=WebSection(bind="127.0.0.1:0")), models={"m": ModelSection(**model)})


def serve(collector: Collector, *windows: tuple[str, int, int]) -> None:
    """Rows of agents: (agent, seed, start of the window); no agent leaves before all have sent theirs."""
    with contextlib.ExitStack() as stack:
        agents = dict.fromkeys(agent for agent, _, _ in windows)
        publishers = {
            agent: stack.enter_context(collector.publisher("m", classes=3, agent_id=agent)) for agent in agents
        }
        for agent, seed, start in windows:
            p, labels = scores(seed)
            given = [None if label < 0 else int(label) for label in labels]
            publishers[agent].publish(p, inputs=table(seed, shift=1.0), labels=given, timestamps=start + 1.0)
        for publisher in publishers.values():
            assert publisher.flush(60)


def view(collector: Collector, panel: str, **asked: Any) -> dict[str, Any]:
    url = f"{collector.service.site.url}api/v1/view"
    found = get(url, params={"view": "model", "model": "m", "range": "all", **asked}).json()
    return next((each for each in found["panels"] if each["id"] == panel), {"figure": None, "empty": ""})


def drawn(collector: Collector, panel: str, **asked: Any) -> dict[str, dict[str, Any]]:
    made = until(lambda: view(collector, panel, **asked)["figure"], what=f"the panel {panel}")
    return {trace["name"]: trace for trace in made["data"]}


def closed(collector: Collector, windows: int) -> None:
    collector.close_windows()
    until(lambda: len(collector.service.live.recent_reports) == windows, what=f"{windows} windows")


def test_the_calibration_curve_is_that_of_scikit_learn(collect: Any) -> None:
    curve = require("sklearn.calibration").calibration_curve
    collector = collect(config=config(), window=60)
    old = START - 86400
    serve(collector, ("a", 1, old), ("b", 2, old), ("a", 3, old + 60), ("b", 4, old + 60))
    closed(collector, 2)
    for asked, seeds, name in (
        ({}, (3, 4), "newest window"),
        ({}, (1, 2, 3, 4), "2 windows"),
        ({"agent": "b"}, (4,), "newest window"),
        ({"to": old + 60}, (1, 2), "newest window"),
    ):
        p, labels = map(np.concatenate, zip(*(scores(seed) for seed in seeds), strict=True))
        p = p.astype(np.float32).astype(float)
        p, labels = p[labels >= 0], labels[labels >= 0]
        right, confidence = curve(p.argmax(axis=1) == labels, p.max(axis=1), n_bins=15, strategy="uniform")
        found = drawn(collector, "reliability", **asked)
        np.testing.assert_allclose(found[name]["x"], confidence, rtol=1e-5)  # six digits are drawn
        np.testing.assert_allclose(found[name]["y"], right, rtol=1e-5)
        assert sum(found[name]["customdata"]) == len(p)
    rows, edges = np.histogram(p.max(axis=1), bins=15, range=(0, 1))
    assert found["rows"]["y"] == rows.tolist()
    np.testing.assert_allclose(found["rows"]["x"], (edges[:-1] + edges[1:]) / 2, rtol=1e-5)
    assert found["calibrated"]["x"] == found["calibrated"]["y"] == [0, 1]


def test_without_labels_it_says_what_is_missing(collect: Any) -> None:
    collector = collect(config=config(), window=60)
    with collector.publisher("m", classes=3, agent_id="a") as publisher:
        publisher.publish(scores(1)[0], timestamps=START - 86400.0)
        assert publisher.flush(60)
    closed(collector, 1)
    panel = view(collector, "reliability")
    assert (panel["figure"], "labelled rows" in panel["empty"]) == (None, True)
    assert "zmon profile" in view(collector, "reference", view="series", what="feature_value", feat_name="x")["empty"]


def test_distributions_are_counts_of_the_rows_in_the_references_bins(collect: Any, reference: Path) -> None:
    collector = collect(config=config(reference=reference), window=60)
    serve(collector, ("a", 1, START - 86400), ("b", 2, START - 86400))
    closed(collector, 1)
    pandas = require("pandas")
    frames = {"reference": table(0), "window": pandas.concat([table(1, shift=1.0), table(2, shift=1.0)])}
    deciles = np.unique(np.nanquantile(frames["reference"]["amount"], np.arange(1, 10) / 10, method="inverted_cdf"))
    bounds = np.array([-np.inf, *deciles * (1 + np.sign(deciles) * 2e-7), np.inf])
    for name, frame in frames.items():
        asked = {"view": "series", "what": "feature_value"}
        amount = drawn(collector, "reference", feat_name="amount", **asked)[name]
        missing = int(frame["amount"].isna().sum())
        counts = np.histogram(frame["amount"].dropna().astype(np.float32), bounds)[0]
        assert amount["customdata"] == [*counts.tolist(), missing]
        np.testing.assert_allclose(amount["y"], np.array(amount["customdata"]) / len(frame), rtol=1e-5)
        visits = drawn(collector, "reference", feat_name="visits", **asked)[name]
        assert dict(zip(visits["text"], visits["customdata"], strict=True))["0"] == (frame["visits"] == 0).sum()
        assert visits["customdata"][-1] == frame["visits"].isna().sum(), "its bins are fewer than those of the amount"
        assert sum(visits["customdata"]) == len(frame)
        colour = drawn(collector, "reference", what="feature_freq", feat_name="colour", view="series")[name]
        assert dict(zip(colour["text"], colour["customdata"], strict=True)) == {
            each: int((frame["colour"] == each).sum()) for each in COLOURS
        }
    constant = drawn(collector, "reference", feat_name="constant", **asked)
    assert constant["reference"]["customdata"] == [0, 2000, 0]
    assert constant["window"]["customdata"] == [0, 0, 4000]
    assert constant["window"]["text"] == ["&lt; 7", "7", "&gt; 7"]
    confidence = np.concatenate([scores(seed)[0].max(axis=1) for seed in (1, 2)])
    found = drawn(collector, "reference", view="series", what="max_prediction_proba")["window"]["customdata"]
    assert sum(found) == len(confidence)
    said = np.concatenate([scores(seed)[0].argmax(axis=1) for seed in (1, 2)])
    found = drawn(collector, "reference", view="series", what="prediction_freq", class_name="class_0")["window"]
    assert found["customdata"] == np.bincount(said, minlength=3).tolist()
    panel = view(collector, "reference", view="series", what="accuracy")
    assert (panel["figure"], "does not cover this series" in panel["empty"]) == (None, True)


def test_another_reference_than_that_of_the_windows_is_reported(collect: Any, reference: Path, tmp_path: Path) -> None:
    first = collect(config=config(reference=reference), window=60, folder="same")
    serve(first, ("a", 1, START - 86400))
    closed(first, 1)
    first.stop()
    zmon.profile(scores(5)[0], table(5), classes=3).save(tmp_path / "other.zmon")
    asked = {"view": "series", "what": "feature_value", "feat_name": "amount"}
    for path, empty in ((reference, False), (tmp_path / "other.zmon", True)):
        again = collect(config=config(reference=path), window=60, folder="same")
        panel = view(again, "reference", **asked)
        assert (panel["figure"] is None, "a different reference" in panel["empty"]) == (empty, empty)
        again.stop()


def test_the_open_window_is_shown(collect: Any, reference: Path, look: Look) -> None:
    start, length = open_window()
    collector = collect(config=config(reference=reference), window=length)
    viewer = look(collector, "view=model&model=m&range=all")
    viewer.next()
    serve(collector, ("a", 1, start))
    found = drawn(collector, "reliability")
    assert sum(found["newest window"]["customdata"]) == (scores(1)[1] >= 0).sum()
    asked = {"view": "series", "what": "feature_value", "feat_name": "amount"}
    assert sum(drawn(collector, "reference", **asked)["window"]["customdata"]) == 2000
    assert not collector.files()


def test_no_file_and_no_tap_has_them(collect: Any, reference: Path) -> None:
    collector = collect(config=config(reference=reference), window=60)
    serve(collector, ("a", 1, START - 86400))
    closed(collector, 1)
    (report,) = collector.service.live.recent_reports
    history, query = collector.service.live.history, PointQuery("m", "")
    until(
        lambda: history.read(lambda db: history_queries.read_details(db, query, "drift", "", 9)).result(),
        what="what the history alone has",
    )
    assert report.details == {}
    assert "details" not in str(collector.service.live.answer("reports 0").keys())
    collector.stop()
    assert len(collector.points()) == len(report.points)


# --- the way there -------------------------------------------------------------------------------------------------


def report(sequence: int, start: int, **found: bytes) -> Report:
    points = [Point(None, Value("accuracy", 0.5))]
    own = {(None if agent == "all" else agent, "x"): data for agent, data in found.items()}
    return Report(sequence, "m", "", Window(start, start + 10), points, details=own)


def test_the_outbox_and_the_history_keep_them_and_let_go(tmp_path: Path) -> None:
    made = report(1, 0, all=b"\x00\xff", pod=b"p")
    assert report_codec.decode(report_codec.encode(made)) == made
    history = History(tmp_path / "history.sqlite", 3600.0, 2**30)
    history.open()
    for each in (made, made, report(2, 10, all=b"2"), report(3, 20, all=b"3")):
        history.append(each, float(each.window.start))
    ask = lambda agent, most=9, **own: history.read(  # noqa: E731
        lambda db: history_queries.read_details(db, PointQuery("m", "", **own), "x", agent, most)
    )
    assert ask("") == [(20, b"3"), (10, b"2"), (0, b"\x00\xff")]
    assert (ask("", 1), ask("", end=20, start=5), ask("pod")) == ([(20, b"3")], [(10, b"2")], [(0, b"p")])
    history.trim(3611.0)
    assert ask("") == [(20, b"3")]
    history.close()


def test_a_file_of_the_first_schema_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path, 1e12, 2**30)
    history.open()
    history.append(report(1, 0), 0.0)
    history.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE detail")
        db.execute("DROP INDEX report_written")
        db.execute("ALTER TABLE report DROP COLUMN origin")
        db.execute("PRAGMA user_version = 1")
    db.close()
    history.open()
    history.append(report(2, 10, all=b"2"), 10.0)
    assert history.read(lambda db: history_queries.list_reports(db, "m", "", 0)) == [(0, 1), (10, 2)]
    assert history.read(lambda db: history_queries.read_details(db, PointQuery("m", ""), "x", "", 9)) == [(10, b"2")]
    assert history.set_aside == 0
    history.close()


def test_damaged_details_are_none() -> None:
    assert [details.read(each) for each in (b"", b"abc", b"x\x9c\x03\x00")] == [None, None, None]


def test_many_categories_become_as_many_as_can_be_read() -> None:
    random = np.random.default_rng(0)
    pandas = require("pandas")
    frame = pandas.DataFrame({"city": [f"city {i}" for i in random.zipf(1.3, 3000).clip(0, 900)]})
    profile: Profile = zmon.profile(random.dirichlet((1, 1), 3000), frame, classes=2)
    (column,) = profile.categorical
    counts = np.append(column.counts[:50], [column.counts[50:].sum() + column.other, 0])
    found = distributions.distribution(profile, {"codes": [counts]}, {"feat_name": "city"})
    assert found is not None
    assert len(found.labels) == distributions.MOST_BINS
    assert (found.reference.sum(), found.current.sum(), found.labels[-1]) == (3000, 3000, "28 further")
