"""The real demonstration: its inversion is there to see in a browser and in the files, and it ends when it is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from zmon_collector.jobs.demo.run import PERIOD, DemoPlan
from zmon_collector.jobs.demo.verdict import changed_windows, read_window

import zmon
from tests.collector.dashboard.test_page import figure
from tests.support.points import legal

VIEWS = ("#/overview", "#/alerts", "#/health", "#/series?model=digits&what=feature_value&feat_name=pixel_3_3")
SURE = "t => t.name === 'mean confidence'"


def test_the_inversion_is_seen_live(browser: Any, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ZMON_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "zmon_collector", "demo", "--no-browser", "--duration", "20s", "--data-dir",
         str(tmp_path / "demo")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = next(found[1] for line in process.stdout if (found := re.search(r"Live page: (http\S+)", line)))
        wrong: list[str] = []
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else wrong.append(asked.url))
        for view in VIEWS:
            page.goto(url + view)
            page.wait_for_selector("#connection[data-state=live]")
        page.goto(f"{url}#/model?model=digits")
        figure(page, "confidence")
        page.wait_for_function(
            f"""() => document.querySelector('[data-panel=confidence] .js-plotly-plot').data.find({SURE})
                .y.filter(value => value < 0.4).length >= 3""",
            timeout=60_000,
        )
        page.wait_for_selector(".head .state[data-state=drifting]")
        (sure,) = (trace["y"] for trace in figure(page, "confidence") if trace["name"] == "mean confidence")
        assert max(sure) > 0.6
        classes = {trace["name"]: trace["y"] for trace in figure(page, "classes")}
        assert any(max(share) > 0.25 for share in classes.values()), "one class takes a quarter; ten are alike before"
        assert len(classes) == 10
        (heat,) = figure(page, "movement")
        assert max(abs(value) for row in heat["z"] for value in row[-2:] if value is not None) > 1.0
        page.wait_for_function(
            f"""() => document.querySelector('[data-panel=confidence] .js-plotly-plot').data.find({SURE})
                .y.slice(-2).every(value => value > 0.6)""",
            timeout=60_000,
        )
        page.screenshot(path=folder / "demo.png")  # the README's picture
        page.close()
        assert wrong == []
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "The model changed in 3 of 10 windows" in said
        assert "Traceback" not in said + (tmp_path / "demo/log").read_text()
        views = [read_window(path) for path in sorted((tmp_path / "demo/anodot").glob("*.json"))]
        assert all(view.rows >= 200 for view in views)
        named = [(view.start - views[0].start) // PERIOD for view in changed_windows(views)]
        assert named == list(DemoPlan.of(20.0).inverted)
        points = zmon.read_points(tmp_path / "demo", what=["drifted_feature_freq", "prediction_drifted"])
        rollup = points[points["agent_id"] == ""].pivot(index="time", columns="what", values="value")
        drifted = [i for i, row in enumerate(rollup.itertuples()) if row.drifted_feature_freq > 0.5]
        assert drifted == named == [i for i, each in enumerate(rollup["prediction_drifted"]) if each]
        assert (rollup["drifted_feature_freq"].drop(rollup.index[named]) == 0).all()
        for path in (tmp_path / "demo/anodot").glob("*.json"):
            for sample in json.loads(path.read_text()):
                legal(sample)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_until_it_is_interrupted(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zmon_collector", "demo", "--no-browser", "--data-dir", str(tmp_path / "demo")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if "rows" in line)
        children = psutil.Process(process.pid).children()
        assert len(children) == 3
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "The model did not change" in said
        assert "Traceback" not in said
        assert not any(child.is_running() for child in children), "nothing is left behind"
    finally:
        process.kill()
        process.communicate()
