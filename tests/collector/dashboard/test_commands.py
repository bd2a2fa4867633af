"""Without a browser: `zmon top`, `zmon tap`, `zmon report`, `zmon.read_points`, and the notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from zmon_collector.cli import tap
from zmon_collector.cli.main import cli
from zmon_collector.dashboard.batch_tap import A_SECOND, KEPT, RECORDING, BatchTap
from zmon_collector.dashboard.timeseries import series_of_frame
from zmon_plugins.sinks.anodot_file import AnodotFile

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.pages import Start, shown
from tests.support.processes import Running
from tests.support.reports import window
from tests.support.waiting import until
from zmon._wire.frames import Message, Topic
from zmon.errors import MissingExtraError

ROOT = Path(__file__).parents[3]
EVIL = "<img src=x onerror=alert(1)>"


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def now() -> int:
    return int(time.time()) // 10 * 10


@pytest.fixture
def running(paged: Start) -> Collector:
    """A collector with ten windows."""
    collector = paged()
    shown(collector, *(window(i + 1, now() - 100 + 10 * i, model="fraud\x1b[2J") for i in range(10)))
    return collector


def tapped(collector: Collector, *arguments: str) -> Result:
    """What a tap says while windows close, until it has seen as many as it is to: not those from before it looked."""
    done: list[Result] = []
    folder = ("--data-dir", str(collector.folder))
    thread = threading.Thread(target=lambda: done.append(command("tap", *folder, *arguments)), daemon=True)
    thread.start()
    sequence = count(100)

    def feed() -> list[Result]:
        number = next(sequence)
        shown(collector, window(number, now() + 10 * number))
        time.sleep(0.1)
        return done

    (result,) = until(feed, what="the end of the tap")
    assert result.exit_code == 0
    return result


def test_top_once(running: Collector) -> None:
    done = command("top", "--data-dir", str(running.folder), "--once")
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert [part in lines[1] for part in ("fraud?[2J", "ok", "20", "90.0%", "85.0%", "▇▇▇")] == [True] * 6
    assert [line.split()[0] for line in lines[2:4]] == ["a", "b"]


def test_tap_prints_points_as_windows_close(running: Collector) -> None:
    lines = tapped(running, "--windows", "2", "--what", "prediction_*", "--most", "3").output.splitlines()
    assert sum("prediction_freq class_name=no  0.5" in line for line in lines) >= 2
    assert not any("accuracy" in line for line in lines)


def test_tap_as_json(running: Collector) -> None:
    result = tapped(running, "--json", "--agents", "--windows", "1", "--most", "1000")
    points = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(points) == len(window(1, 0).points)
    assert {point["properties"].get("agent_id") for point in points} == {None, "a", "b"}


def test_tap_prints_headers_of_batches_and_says_what_it_left_out(tmp_path: Path) -> None:
    running = Running(tmp_path / "data", "--window", "60s")
    arguments = ["--batches", "--data-dir", str(running.folder), "--rate", "5", "--seconds", "4"]
    p = np.full((3, 2), 0.5, dtype=np.float32)
    ends = {"collector": running.health["data"], "control": running.health["control"]}
    with zmon.Publisher("fraud", classes=2, agent_id=EVIL, features=["a", "b"], **ends) as one:

        def looked() -> list[tuple[str, str]] | None:
            """What two taps say while messages pass; None where the machine stood still and they saw too little."""
            taps = [
                subprocess.Popen([sys.executable, "-m", "zmon_collector", "tap", *arguments, *more],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for more in ([], ["--json", "--model", "other*"])
            ]  # fmt: skip
            while any(each.poll() is None for each in taps):
                one.publish(p, inputs=np.zeros((3, 2)), labels=[0, 1, None])
                assert one.flush(60)
            said = [each.communicate(timeout=60) for each in taps]
            return said if [each.returncode for each in taps] == [0, 0] and said[0][1] else None

        (out, err), (other, _) = until(looked, what="two taps that were answered")
        sent = one.stats.published // 3
        assert one.stats.acknowledged == 3 * sent, "a tap takes nothing away"
    running.end()
    lines = out.splitlines()
    assert 1 <= len(lines) <= 25
    assert f"  fraud {EVIL}  " in lines[0]
    assert re.search(
        r"  batch  3 rows from \d+  .*probabilities=float32.*labels=\S+.*  2 inputs, labels  \d+ B$", lines[0]
    )
    left_out = sum(int(number) for number in re.findall(r"… (\d+) more messages omitted", err))
    assert left_out > 0 and len(lines) + left_out <= sent + 1
    assert other == "", "no model of that name"


def test_names_from_the_wire_do_not_steer_the_terminal() -> None:
    batch_tap = BatchTap()
    batch_tap.read(0, 0.0)
    batch_tap.record(Message(Topic("a\x1b[2J", "\x07", "b\nc"), "labels", b"s" * 16, b"h", rows=2), 0.0, 0.0)
    (header,) = batch_tap.read(0, 0.0)["batches"]
    line = tap._header(header)
    assert line.isprintable() and "  a?[2J ? b?c  73737373  labels  2 rows from 0  " in line


def test_what_the_collector_did_not_note_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batch_tap = BatchTap()
    batch_tap.read(0, 0.0)
    for _ in range(60):
        batch_tap.record(Message(Topic("m", "", "a"), "batch", b"s" * 16, b"h", rows=2), 0.0, 0.0)
    headers = batch_tap.read(0, 0.0)["batches"]
    answers = iter([{"batches": headers[:10], "seen": 10}, {"batches": headers[10:14], "seen": 60}, None])
    monkeypatch.setattr(tap, "ask", lambda *_: next(answers))
    done = command("tap", "--batches", "--data-dir", str(tmp_path), "--rate", "3")
    assert done.exit_code == 1, "the collector has gone"
    assert done.stdout.count("  batch  2 rows from 0") == 3
    assert "… 47 more messages omitted" in done.stderr


def test_nothing_is_noted_when_nobody_asks() -> None:
    message = Message(Topic("m", "", "a"), "batch", b"s" * 16, b"h", rows=2, nbytes=100)
    batch_tap = BatchTap()
    batch_tap.record(message, 0.0, 10.0)
    assert batch_tap.read(0, 11.0) == {"batches": [], "seen": 0}
    for _ in range(A_SECOND + 5):
        batch_tap.record(message, 0.0, 12.0)
    for _ in range(2):  # several may ask: nothing is taken from one another
        found = batch_tap.read(0, 13.0)
        assert (len(found["batches"]), found["seen"]) == (A_SECOND, A_SECOND + 5)
    assert batch_tap.read(A_SECOND + 5, 13.0)["batches"] == []
    for second in range(14, 14 + 5):
        for _ in range(A_SECOND):
            batch_tap.record(message, 0.0, float(second))
        batch_tap.read(0, float(second))
    assert len(batch_tap.read(0, 19.0)["batches"]) == KEPT
    seen = batch_tap.read(0, 19.0)["seen"]
    batch_tap.record(message, 0.0, 19.0 + RECORDING + 1)
    assert batch_tap.read(0, 30.0)["seen"] == seen


@pytest.mark.parametrize("name", ["top", "tap", "tap --batches"])
def test_a_missing_collector_is_reported(name: str, tmp_path: Path) -> None:
    done = command(*name.split(), "--data-dir", str(tmp_path))
    assert done.exit_code == 1
    assert "no collector runs" in done.output


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    sink = AnodotFile(tmp_path / "anodot", 1e9)
    sink.open()
    for i in range(6):
        sink.write(
            window(
                i + 1,
                1_700_000_000 + 10 * i,
                shift=4.0 * (i > 3),
                confidence=0.4 if i > 3 else 0.9,
                classes=("no", EVIL),
            )
        )
    return tmp_path


def test_read_points_is_tidy(written: Path) -> None:
    pandas = require("pandas")
    frame = zmon.read_points(written)
    assert len(frame) == 6 * len(window(1, 0).points)
    assert str(frame.time.dtype).startswith("datetime64[") and "UTC" in str(frame.time.dtype)
    assert frame.time.is_monotonic_increasing
    rollup = frame[(frame.what == "accuracy") & (frame.agent_id == "") & (frame.class_name == "")]
    assert rollup.value.tolist() == [pytest.approx(0.85)] * 4 + [pytest.approx(0.35)] * 2
    assert zmon.read_points(written / "anodot", what="f1").what.unique().tolist() == ["f1"]
    (first, *_) = sorted((written / "anodot").glob("*.json"))
    assert zmon.read_points(first).time.unique().tolist() == [pandas.Timestamp(1_700_000_000, unit="s", tz="UTC")]
    lines = series_of_frame(frame)
    assert sum(len(line.times) for line in lines) == len(frame)
    (count,) = (line for line in lines if line.names == {"what": "buffer_count", "model": "m"})
    assert (count.times.tolist(), set(count.values)) == ([1_700_000_000 + 10 * i for i in range(6)], {200.0})


def test_read_points_of_nothing_and_of_something_else(tmp_path: Path) -> None:
    require("pandas")
    assert zmon.read_points(tmp_path).empty
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        zmon.read_points(tmp_path / "nowhere")
    for text in ('{"a": 1}', "[1]", "no json", '[{"value": 1}]'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other\.json is not a file of Anodot samples"):
            zmon.read_points(tmp_path)


def test_without_pandas_it_says_what_to_install(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r'pip install "zmon-agent\[notebook\]"'):
        zmon.read_points(written)
    assert command("report", str(written)).exit_code == 3


def test_the_report_is_one_file_that_needs_nothing_else(written: Path, tmp_path: Path, browser: Any) -> None:
    out = tmp_path / "report.html"
    done = command("report", str(written), "--out", str(out), "--title", f"a {EVIL}")
    assert done.exit_code == 0, done.output
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 900}, timezone_id="Asia/Tokyo")
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(out.as_uri())
    page.wait_for_selector(".main-svg")
    assert page.evaluate("document.querySelectorAll('.js-plotly-plot').length") > 6
    assert page.locator("h1").inner_text() == f"a {EVIL}"
    assert page.locator("img").count() == 0
    assert page.locator(".xtick text").first.text_content().startswith("22:1"), "not UTC"
    page.close()
    assert wrong == []


def test_the_report_of_nothing_is_refused(tmp_path: Path) -> None:
    require("pandas")
    done = command("report", str(tmp_path))
    assert (done.exit_code, "no points" in done.output) == (1, True)
