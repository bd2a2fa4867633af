"""A Dask cluster gives the points that threads give, whichever of its processes dies meanwhile."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.collector.jobs.history import OPTIONS, backfill, points, rows, same
from tests.support.frameworks import require
from tests.support.waiting import until

distributed = require("distributed")
pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]


class Cluster:
    """A scheduler and two workers, each a process; one thread a worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.scheduler = self._run("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        self.workers = [self._run("worker", f"tcp://127.0.0.1:{self.port}", "--nthreads", "1", "--no-dashboard")
                        for _ in range(2)]  # fmt: skip

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments], cwd=self._folder, stdout=log, stderr=log
            )

    @property
    def address(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    def wait(self) -> None:
        with distributed.Client(self.address.replace("dask", "tcp"), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The process and those it has started: a nanny would start its worker again."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    process.kill()
    process.wait(60)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        made.wait()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred thousand rows of forty minutes, and in ``threads`` what comes of them on threads."""
    folder = tmp_path_factory.mktemp("history")
    rows(100_000, 40).to_parquet(folder / "rows.parquet", row_group_size=2500)
    result = backfill(folder / "threads", str(folder / "rows.parquet"))
    assert result.exit_code == 0, result.output
    return folder


def started(history: Path, out: Path, where: str) -> subprocess.Popen[str]:
    """The command in a process that was stopped when it had written some windows and not all."""
    command = [sys.executable, "-m", "zmon_collector", "backfill", *OPTIONS, "--config", str(history / "threads.toml"),
               "--executor", where, "--data-dir", str(out), str(history / "rows.parquet")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: process.poll() is not None or written(out) >= 3, what="three windows")
    process.send_signal(signal.SIGSTOP)  # so that it does not get to the end before something has died
    if process.poll() is not None or written(out) >= 40:
        process.kill()
        raise AssertionError(process.communicate())
    return process


def go_on(process: subprocess.Popen[str]) -> str:
    """What it says until it ends."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=120)[1]


def written(out: Path) -> int:
    return len(list((out / "anodot").glob("*.json")))


def test_the_points_of_a_cluster_and_of_one_whose_worker_dies(history: Path, tmp_path: Path, cluster: Cluster) -> None:
    result = backfill(tmp_path / "out", str(history / "rows.parquet"), "--executor", cluster.address)
    assert result.exit_code == 0, result.output
    assert same(points(history / "threads"), points(tmp_path / "out")) > 10_000
    process = started(history, tmp_path / "killed", cluster.address)
    kill(cluster.workers[0])
    said = go_on(process)
    assert process.returncode == 0, said
    same(points(history / "threads"), points(tmp_path / "killed"))


def test_a_scheduler_that_dies(history: Path, tmp_path: Path, cluster: Cluster) -> None:
    """The run says what happened and goes on, here on threads: where it runs changes nothing in what is written."""
    process = started(history, tmp_path / "out", cluster.address)
    kill(cluster.scheduler)
    said = go_on(process)
    before = written(tmp_path / "out")
    assert process.returncode == 1 and 3 <= before < 40, said
    assert "the scheduler has gone" in said and "Traceback" not in said, said
    result = backfill(tmp_path / "out", str(history / "rows.parquet"))
    assert result.exit_code == 0 and "40 windows" in result.output, result.output
    same(points(history / "threads"), points(tmp_path / "out"))


def test_no_scheduler_and_no_workers(history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zmon_collector.jobs.backfill import executors

    monkeypatch.setattr(executors, "CONNECT", 0.5)
    result = backfill(tmp_path / "out", str(history / "rows.parquet"), "--executor", "dask://127.0.0.1:9")
    assert result.exit_code == 1 and "no scheduler answers" in result.output, result.output
    result = backfill(tmp_path / "out", str(history / "rows.parquet"), "--executor", "ray://x")
    assert "give threads, or dask://host:port" in str(result.exception)


def test_data_is_not_in_the_graph(history: Path) -> None:
    """What a task is sent does not grow with the rows that it reads."""
    import cloudpickle
    from zmon_collector.config import Config
    from zmon_collector.jobs.backfill.job import Job, detect_schema
    from zmon_collector.jobs.tabular import Columns, Dataset

    table = Dataset([history / "rows.parquet"], Columns(probabilities=("p_*",), time="ts"))
    layout, schema = detect_schema(table)
    sent = cloudpickle.dumps((Job("m", "", "a", Config(), layout, schema), 0, next(table.pieces()), 0, 1))
    assert len(sent) < 10_000 < 1_000_000 < (history / "rows.parquet").stat().st_size
