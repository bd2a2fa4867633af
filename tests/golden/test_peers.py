"""Publishers and collectors of earlier releases talk to today's, both ways: their own code, kept in ``source.zip``."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zmon_collector.config import Config, parse

import zmon
from tests.golden.calls import OLD, calls
from tests.support.collectors import Collector
from tests.support.points import by_names
from tests.support.processes import Running, environment
from tests.support.waiting import until

SOURCES = sorted(Path(__file__).parent.glob("*/source.zip"))
SCRIPT = """
import json, sys
import zmon
assert zmon.__file__.startswith(sys.argv[1]), zmon.__file__
classes, at = ["a", "b", "c"], {"collector": sys.argv[2], "control": sys.argv[3]}
with zmon.Publisher("m", classes=classes, agent_id="a", **at) as publisher:
    calls(publisher)
    stats = publisher.stats
    print(json.dumps([stats.published, stats.acknowledged, dict(stats.rejected), dict(stats.dropped)]))
"""
CONFIG = '[collector]\nwindow = "60s"\nidle = "60s"\nmax_wait = "120s"\n[metrics]\npreset = "full"\n'
NEW_SERIES = {"rows_degraded"}


@pytest.fixture(params=SOURCES, ids=lambda path: path.parent.name)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an earlier release's packages, for ``PYTHONPATH``."""
    with zipfile.ZipFile(request.param) as kept:
        kept.extractall(tmp_path / "old")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # or the working directory would come first
    return tmp_path / "old"


def publisher(of: Collector | Running, **options: Any) -> zmon.Publisher:
    data, control = (of.data, of.control) if isinstance(of, Collector) else (of.health["data"], of.health["control"])
    return zmon.Publisher("m", classes=["a", "b", "c"], agent_id="a", collector=data, control=control, **options)


def windows(folder: Path) -> dict[int, dict[Any, float]]:
    """Return the points of each window by their names, without what is new, or depends on the clock."""
    reports = [json.loads(path.read_text()) for path in sorted((folder / "anodot").glob("2*.json"))]
    return {
        points[0]["timestamp"]: {
            names: value
            for names, value in by_names(points).items()
            if dict(names)["what"] not in NEW_SERIES and "delay" not in str(names)
        }
        for points in reports
    }


def of_today(collect: Any, folder: str = "today") -> dict[int, dict[Any, float]]:
    """Return the points that today's publisher and today's collector make of the calls."""
    collector = collect(folder=folder, config=full())
    with publisher(collector) as one:
        calls(one)
    collector.stop()
    return windows(collector.folder)


def full() -> Config:
    return parse({"metrics": {"preset": "full"}, "web": {"enabled": False}})


def rejected(points: dict[int, dict[Any, float]]) -> Counter[Any]:
    """Take the rejected rows out, by their names: the news of them counts in whichever window it finds, a race."""
    found: Counter[Any] = Counter()
    for values in points.values():
        for names in [names for names in values if dict(names)["what"] == "rows_rejected"]:
            found[names] += int(values.pop(names))
    return found


def same(found: dict[int, dict[Any, float]], expected: dict[int, dict[Any, float]]) -> None:
    assert found.keys() == expected.keys()
    assert rejected(found) == rejected(expected)
    for start, points in expected.items():
        assert found[start] == pytest.approx(points, rel=1e-9, abs=1e-12), start


def test_a_publisher_of_an_earlier_release_at_todays_collector(old: Path, collect: Any) -> None:
    collector = collect(config=full())
    script = Path(calls.__code__.co_filename).read_text() + SCRIPT
    run = subprocess.run(
        [sys.executable, "-c", script, str(old), collector.data, collector.control],
        capture_output=True, text=True, timeout=240, check=False, env=environment(old),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    issued = 3 * (50 + 20 + 2 + 10)
    assert json.loads(run.stdout) == [issued, issued, {"probabilities_nan": 21}, {}]
    counters = collector.service.telemetry.snapshot()
    assert not [name for name in counters if name.startswith("rejected_messages")], counters
    collector.stop()
    same(windows(collector.folder), of_today(collect))


def test_todays_publisher_at_a_collector_of_an_earlier_release(old: Path, collect: Any, tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text(CONFIG)
    running = Running(tmp_path / "data", "--config", str(config), path=old)
    with publisher(running) as one:
        calls(one)
        stats = one.stats
    log = running.end()
    issued = 3 * (50 + 20 + 2 + 10)
    assert (stats.published, stats.acknowledged, stats.rejected, stats.failed) == (
        issued, issued, {"probabilities_nan": 21}, "",
    )  # fmt: skip
    assert "rejected_messages" not in log and "Error" not in log, log
    same(windows(running.folder), of_today(collect))


def test_what_only_todays_publisher_counts_disturbs_no_earlier_collector(old: Path, tmp_path: Path) -> None:
    """Degraded rows, drops before a row has a number, refused columns: further keys of tallies and greetings."""
    config = tmp_path / "zmon.toml"
    config.write_text(CONFIG)
    running = Running(tmp_path / "data", "--config", str(config), path=old)
    p = np.full((40, 3), 1 / 3)
    with publisher(running) as one:
        one.publish(p, [{"age": 1.0}] * 40, ["a"] * 39 + ["unknown"], timestamps=OLD)
        one.publish(p, [{"age": "text"}] * 40, ["b"] * 40, ids=["x"] * 39 + [object()], timestamps=OLD)
        one.publish(p / 2, timestamps=OLD)
        one.publish(p, labels=["c"] * 7, timestamps=OLD)
        assert one.flush(60)
        until(lambda: sum(one.stats.degraded.values()) >= 40 + 1 + 40 + 40, what="degraded rows")
        assert (one.stats.published, one.stats.acknowledged, one.stats.rejected) == (160, 160, {})
    log = running.end()
    assert "Error" not in log, log
    (points,) = windows(running.folder).values()
    assert points[(("what", "buffer_count"),)] == 160
    assert points[(("what", "accuracy"),)] == pytest.approx(39 / 79)
    assert points[(("feat_name", "age"), ("stat", "mean"), ("what", "feature_value"))] == 1.0


def test_an_earlier_collector_that_is_killed_and_started_again(old: Path, tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text(CONFIG)
    bind = f"ipc://{tmp_path}/s"
    first = Running(tmp_path / "data", "--config", str(config), "--bind", bind, path=old)
    p = np.full((40, 3), 1 / 3)
    with publisher(first) as one:
        one.publish(p, labels=["a"] * 40, timestamps=OLD)
        assert one.flush(60)
        first.process.kill()
        first.process.wait(60)
        one.publish(p, labels=["a"] * 40, timestamps=OLD)
        second = Running(tmp_path / "data", "--config", str(config), "--bind", bind, path=old)
        assert one.flush(60)
        assert (one.stats.published, one.stats.acknowledged) == (80, 80)
    second.end()
    (points,) = windows(second.folder).values()
    assert points[(("what", "buffer_count"),)] == 80
