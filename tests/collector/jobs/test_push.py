"""`zmon push`: ours and the earlier agent's files, each sample once across interruptions, in order, with reasons."""

from __future__ import annotations

import doctest
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.cli.main import cli
from zmon_collector.jobs.push import files, plan, run
from zmon_collector.jobs.push.files import parse_samples, read_file
from zmon_collector.jobs.push.plan import FileSpan
from zmon_plugins.sinks.anodot_file import AnodotFile

from tests.support.standin import TOKEN, StandIn, key
from tests.support.waiting import until
from zmon.testing import example_report

OLD = 1_000_000_020


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("ANODOT_TOKEN", TOKEN)
    with StandIn() as server:
        yield server


def sample(name: int = 0, window: int = 0, **changes: Any) -> dict[str, Any]:
    properties = {"what": "accuracy", "class_name": f"c{name}", "ver": "1", "target_type": "gauge", "agent_id": "a"}
    return {"tags": {}, "timestamp": OLD + 60 * window, "value": name + window / 7, "properties": properties, **changes}


def earlier(path: Path, samples: list[Any]) -> Path:
    """A file as the earlier MLWatcher wrote it: no brackets, a comma behind every sample."""
    path.write_text("".join(json.dumps(each) + ",\n" for each in samples))
    return path


def config(folder: Path, api: StandIn, **options: Any) -> Path:
    path = folder / "zmon.toml"
    table = {"url": api.url, "requests_per_second": 1e6, "samples_per_second": 1e9, "read_timeout": "1s", **options}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    path.write_text(
        "\n".join([f"[collector]\ndata_dir = {json.dumps(str(folder / 'data'))}", "[sinks.anodot]", *lines])
    )
    return path


def push(folder: Path, api: StandIn, *arguments: object, **options: Any) -> Result:
    given = ["push", "--config", str(config(folder, api, **options)), *map(str, arguments)]
    result = CliRunner().invoke(cli, given)
    assert TOKEN not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_our_files_and_the_earlier_ones_arrive(tmp_path: Path, api: StandIn) -> None:
    sink = AnodotFile(tmp_path / "anodot", 3600)
    sink.open()
    sink.write(example_report())
    theirs = earlier(tmp_path / "PROD.json", [sample(i, w) for w in range(3) for i in range(10)])
    result = push(tmp_path, api, theirs, *(tmp_path / "anodot").iterdir())
    assert (result.exit_code, result.output) == (0, "2 files, 45 samples: 45 accepted, 0 refused\n")
    assert len(api.exchanges) == 1
    assert len(set(api.keys())) == 45
    assert not api.out_of_order


def test_nothing_is_sent_twice(tmp_path: Path, api: StandIn) -> None:
    first = earlier(tmp_path / "1.json", [sample(i) for i in range(10)])
    copy = earlier(tmp_path / "copy.json", [sample(i) for i in range(10)])
    assert push(tmp_path, api, first, copy).exit_code == 0
    assert len(api.accepted) == 10
    result = push(tmp_path, api, first)
    assert (result.exit_code, len(api.accepted)) == (0, 10)
    assert "10 accepted, 0 refused, 10 of them in earlier runs" in result.output
    api.token = "another"
    os.environ["ANODOT_TOKEN"] = "another"  # another account has nothing yet
    assert push(tmp_path, api, first).exit_code == 0
    assert len(api.accepted) == 20


def test_refused_samples_are_reported_and_the_others_are_sent(tmp_path: Path, api: StandIn) -> None:
    api.refuses = lambda s: ("1005", "too many streams") if s["properties"]["class_name"] == "c3" else None
    lines = [sample(i) for i in range(10)]
    bad = [sample(20, value=float("nan")), sample(21, properties={"what": "a b"}), sample(22, value=10**400), [1], 7]
    path = earlier(tmp_path / "f.json", lines + bad)
    with path.open("a") as file:
        file.write('{"half": ')
    result = push(tmp_path, api, path)
    assert result.exit_code == 1
    assert "1 file, 16 samples: 9 accepted, 7 refused" in result.output
    for text in ("2026         2", "2011         1", "1001", "1005         1  too many streams", "f.json, sample"):
        assert text in result.output, result.output
    again = push(tmp_path, api, path)
    assert (again.exit_code, len(api.accepted)) == (1, 9)
    assert "9 accepted, 7 refused, 16 of them in earlier runs" in again.output


def test_a_dry_run_needs_no_token_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANODOT_TOKEN", raising=False)
    good = earlier(tmp_path / "good.json", [sample(i) for i in range(10)])
    bad = earlier(tmp_path / "bad.json", [sample(1, timestamp=int(time.time()) + 7200), sample(2)])
    for command in (["push", "--dry-run"], ["validate"]):
        result = CliRunner().invoke(cli, [*command, str(good)])
        assert (result.exit_code, result.output) == (0, "1 file, 10 samples: 10 valid, 0 refused\n")
        result = CliRunner().invoke(cli, [*command, str(bad)])
        assert result.exit_code == 1
        assert "1 valid, 1 refused" in result.output
        assert "2022" in result.output


def test_files_whose_times_overlap_go_in_order(tmp_path: Path, api: StandIn) -> None:
    chance = random.Random(3)
    windows = list(range(40))
    chance.shuffle(windows)
    paths = [earlier(tmp_path / f"{i}.json", [sample(n, w) for w in windows[i::4] for n in range(5)]) for i in range(4)]
    assert push(tmp_path, api, *paths, chunk=7).exit_code == 0
    assert len(api.accepted) == 200
    assert not api.out_of_order


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12))
def test_groups_never_overlap(spans: list[tuple[int, int]]) -> None:
    given_ = [FileSpan(str(i), first, first + length) for i, (first, length) in enumerate(spans)]
    found = list(plan.overlapping_files(given_))
    assert sorted(name for group in found for name in group) == sorted(span.name for span in given_)
    for before, after in itertools.pairwise(found):
        assert max(given_[int(n)].last for n in before) <= min(given_[int(n)].first for n in after)


@given(st.text(alphabet='{}[],:"\\ \n1aen.-', max_size=60))
def test_whatever_a_file_holds_reading_ends(text: str) -> None:
    assert len(list(parse_samples(text))) <= len(text)


@pytest.mark.parametrize("module", [plan, files])
def test_examples_in_docstrings_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_wrong_token_stops_at_once_and_is_not_shown(tmp_path: Path, api: StandIn) -> None:
    api.token = "the right one"
    result = push(tmp_path, api, earlier(tmp_path / "f.json", [sample()]))
    assert result.exit_code == 1
    assert "check the token" in result.output
    assert "1 not sent" in result.output
    assert (tmp_path / "data/push.sqlite").exists()
    assert TOKEN.encode() not in (tmp_path / "data/push.sqlite").read_bytes()


def test_an_api_that_stays_down_ends_the_patience(
    tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE", 0.2)
    api.choose = lambda: "503"
    path = earlier(tmp_path / "f.json", [sample(i) for i in range(3)])
    result = push(tmp_path, api, path)
    assert result.exit_code == 1
    assert "Rerun the same command to resume" in result.output
    api.choose = lambda: "ok"
    assert push(tmp_path, api, path).exit_code == 0
    assert len(api.accepted) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--token-env", "NOT_SET"], "NOT_SET holds no token"),
        (["--url", "ftp://x"], "base address"),
        (["--token", "x"], "No such option"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], text: str) -> None:
    path = earlier(tmp_path / "f.json", [sample()])
    command = [sys.executable, "-m", "zmon_collector", "push", str(path), "--data-dir", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumes(number: int, tmp_path: Path, api: StandIn) -> None:
    """As often as it takes; the token is in no process list; what comes twice was not answered."""
    chance = random.Random(number)
    paths = [earlier(tmp_path / f"{w}.json", [sample(i, w) for i in range(100)]) for w in range(20)]
    command = [sys.executable, "-m", "zmon_collector", "push", *map(str, paths), "--config",
               str(config(tmp_path, api, requests_per_second=60, chunk=50))]  # fmt: skip
    interrupted = 0
    for _ in range(30):
        before = len(api.exchanges)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until(lambda p=process, n=before: len(api.exchanges) > n or p.poll() is not None)  # type: ignore[misc]
        argv = Path(f"/proc/{process.pid}/cmdline")
        assert not argv.exists() or TOKEN.encode() not in argv.read_bytes()
        if interrupted < 4:
            time.sleep(chance.uniform(0.0, 0.15))
            process.send_signal(number)
            interrupted += 1
        said, _ = process.communicate(timeout=60)
        assert TOKEN not in said
        assert "Traceback" not in said, said
        if process.returncode == 0:
            break
        assert process.returncode == (130 if number == signal.SIGINT else -number), said
    counts = Counter(api.keys())
    assert set(counts) == {key(json.loads(json.dumps(each))) for path in paths for each in read_file(path).samples}
    assert sum(counts.values()) - len(counts) <= 50 * interrupted, "at most the request under way, each time"
    assert all(counts[key(each)] > 1 for each in api.out_of_order), "out of order is only what comes twice"
