"""What a person runs: the command line in processes of its own, installed plugins, the demonstration."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from zmon_collector.admin import ask
from zmon_collector.jobs.demo.run import PERIOD, DemoPlan, run_demo
from zmon_collector.jobs.demo.verdict import changed_windows, read_window

from tests.support.frameworks import require
from tests.support.points import legal
from tests.support.processes import OLD, ROOT, Running, command
from tests.support.waiting import until


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The two example distributions and a broken one, installed as pip does, in a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    for source in ("examples/metric_plugin", "examples/sink_plugin", "tests/e2e/broken"):
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
             str(target), str(ROOT / source)],
            check=True, timeout=120,
        )  # fmt: skip
    yield target


def test_plugins_are_listed_with_origin_and_state(installed: Path, tmp_path: Path) -> None:
    done = command("plugins", "--data-dir", str(tmp_path), "--json", path=installed)
    assert done.returncode == 1, "some are quarantined"
    rows = {(row["kind"], row["name"]): row for row in json.loads(done.stdout)}
    assert rows["metric", "unsure"]["origin"] == "zmon-example-unsure 1.0"
    assert rows["metric", "unsure"]["state"] == "ok"
    assert "a_package_that_is_not_there" in rows["plugin", "cannot_import"]["error"]
    assert "register_metricks" in rows["plugin", "unknown_hook"]["error"]
    text = command("plugins", "--data-dir", str(tmp_path), path=installed).stdout
    assert re.search(r"sink +lines +off +zmon-example-lines 1.0", text)
    assert re.search(r"sink +anodot_file +ok +zmon_plugins", text)
    assert re.search(r"plugin +cannot_import +quarantined", text)
    assert command("plugins", "--data-dir", str(tmp_path)).returncode == 0


def test_installed_plugins_work_beside_broken_and_hanging_ones(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text(
        "[collector]\nmetric_timeout = '1s'\n[plugins.unsure]\nbelow = 0.7\n"
        f"[sinks.lines]\npath = '{tmp_path}/lines.txt'"
    )
    running = Running(tmp_path / "data", "--config", str(config), path=installed)
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.35, 0.65], [0.2, 0.8]])
    with running.publisher(agent_id="a") as publisher:
        for minute in range(3):
            publisher.publish(p, timestamps=OLD + 60 * minute)
            assert publisher.flush(60)

    def state() -> str:
        answer = ask(running.folder, "plugins") or {"plugins": []}
        return next((row["state"] for row in answer["plugins"] if row["name"] == "hangs"), "")

    until(lambda: state() == "stuck", what="the hanging metric to be left behind")
    assert command("plugins", "--data-dir", str(running.folder), path=installed).returncode == 1
    said = running.end()
    assert running.process.returncode == 0, "a stuck thread does not keep the process"
    assert "metric 'hangs' of plugin 'hangs' is disabled: it did not return" in said
    assert "plugin 'cannot_import'" in said
    assert "Traceback" not in said
    points = [json.loads(path.read_text()) for path in sorted((running.folder / "anodot").glob("*.json"))]
    assert len(points) == 3
    for window in points:
        values = [point["value"] for point in window if point["properties"]["what"] == "unsure_freq"]
        assert values == [0.5, 0.5]
    assert [line.split()[2] for line in (tmp_path / "lines.txt").read_text().splitlines()] == ["4"] * 3


def test_files_load_and_hold_only_legal_samples(tmp_path: Path) -> None:
    pandas = require("pandas")
    running = Running(tmp_path / "data", "--window", "2s")
    with running.publisher(agent_id="a", features=["petal length (cm)", "a.b", "a=b"], tags={"zone": "eu west"}) as one:
        for _ in range(30):
            one.publish(
                np.random.default_rng(0).dirichlet([1, 1], 50), inputs=np.ones((50, 3)), labels=["class_0"] * 50
            )
            time.sleep(0.1)
    running.end()
    files = sorted((running.folder / "anodot").glob("*.json"))
    assert files
    for path in files:
        samples = json.loads(path.read_text())
        for sample in samples:
            legal(sample)
        frame = pandas.read_json(path)  # its default parser may be off in the last digit
        np.testing.assert_allclose(frame["value"], [sample["value"] for sample in samples], rtol=1e-12)
        assert oct((running.folder).stat().st_mode)[-3:] == "700"


def test_a_second_collector_reports_why_it_cannot_start(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    done = command("collect", "--bind", running.health["data"], "--data-dir", str(tmp_path / "other"))
    running.end()
    assert done.returncode == 2
    assert "cannot bind" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_is_open_was_written(number: int, tmp_path: Path) -> None:
    running = Running(tmp_path / "data", "--window", "1h")
    publisher = running.publisher(agent_id="a")
    publisher.publish(np.full(100, 0.9))
    assert publisher.flush(60)
    said = running.end(number)
    publisher.close(timeout=0)
    assert running.process.returncode == 0
    assert "Traceback" not in said
    (path,) = (running.folder / "anodot").glob("*.json")
    assert 100 in [point["value"] for point in json.loads(path.read_text())]


def test_validate(tmp_path: Path) -> None:
    assert command("validate", str(ROOT / "examples/zmon.toml")).returncode == 0
    bad = tmp_path / "bad.toml"
    bad.write_text("[collector]\nwindo = '5s'")
    done = command("validate", str(bad))
    assert done.returncode == 2
    assert "did you mean 'window'?" in done.stderr
    bad.write_text("[sinks.lines]\n")
    done = command("validate", str(bad))
    assert done.returncode == 2
    assert "[sinks.lines]: no such sink" in done.stderr
    (written := tmp_path / "points.json").write_text("[]")
    done = command("validate", str(bad), str(written))
    assert done.returncode == 2
    assert "not both" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["collect", "--window", "60"], "not a duration"),
        (["collect", "--bind", "0.0.0.0"], "tcp://HOST:PORT"),
        (["collect", "--bind", "tcp://0.0.0.0:5757"], "insecure = true"),
        (["collect", "--bind", "tcp://127.0.0.1:0", "--web", "127.0.0.1"], "HOST:PORT"),
        (["collect", "--bind", "tcp://127.0.0.1:0", "--web", "0.0.0.0:0"], "set token_file or token_env"),
        (["demo", "--duration", "1s"], "too short"),
        (["colect"], "No such command"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_help_stands_alone() -> None:
    assert all(name in command("--help").stdout for name in ("collect", "demo", "plugins", "validate", "Exit codes"))
    for name in ("collect", "demo", "plugins", "report", "tap", "top", "validate"):
        done = command(name, "--help")
        assert done.returncode == 0
        assert len(done.stdout) > 200


def test_print_config_is_a_config(tmp_path: Path) -> None:
    printed = command("collect", "--window", "5m", "--print-config").stdout
    path = tmp_path / "printed.toml"
    path.write_text(printed)
    assert 'window = "300s"' in printed
    assert command("validate", str(path)).returncode == 0


# --- the demonstration ----------------------------------------------------------------------------------------------


def shown(plan: DemoPlan, folder: Path) -> tuple[str, list[int], int]:
    """What the demonstration says, which windows it names (by number), and how many there are."""
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    assert run_demo(plan, folder, console)
    console.file.close()
    views = [read_window(path) for path in sorted((folder / "anodot").glob("*.json"))]
    first = views[0].start
    assert all(view.rows >= 200 for view in views)
    return console.export_text(), [(view.start - first) // PERIOD for view in changed_windows(views)], len(views)


def test_a_minutes_plan_is_twelve_ten_eight() -> None:
    assert DemoPlan.of(60.0) == DemoPlan(30, range(12, 22))


@pytest.mark.parametrize("seed", range(4))
def test_it_names_the_inversion_wherever_it_is(seed: int, tmp_path: Path) -> None:
    start = random.Random(seed).randrange(0, 21)
    _, named, windows = shown(DemoPlan(30, range(start, start + 10), replay=True), tmp_path)
    assert (windows, named) == (30, list(range(start, start + 10)))


def test_without_an_inversion_it_names_none(tmp_path: Path) -> None:
    said, named, windows = shown(DemoPlan(30, range(0), replay=True), tmp_path)
    assert (windows, named) == (30, [])
    assert "did not change in any of 30 windows" in said
