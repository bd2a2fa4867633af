"""How a collector begins and ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector import lifecycle, service
from zmon_collector.cli.main import cli
from zmon_collector.config import Config
from zmon_collector.config.sections import HealthSection, WebSection
from zmon_collector.dashboard.history import newest_sequence
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.reloader import Reloader
from zmon_collector.storage import journal_state
from zmon_collector.storage.database import Database

import zmon
from tests.support.ports import free_port
from tests.support.processes import Running
from tests.support.waiting import until
from zmon._transport import engine
from zmon.batch import Batch
from zmon.contract import Context, Value
from zmon.hooks import hookimpl


def test_what_is_there_at_the_start_is_not_looked_through_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look through all objects would stop every thread for a tenth of a second."""
    frozen = []
    stub = SimpleNamespace(start=lambda: None, run=lambda: frozen.append(gc.get_freeze_count()), failed=False)
    monkeypatch.setattr("zmon_collector.cli.collect.Service", lambda *_, **__: stub)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert CliRunner().invoke(cli, ["collect", "--data-dir", str(tmp_path)]).exit_code == 0
    assert frozen[0] > 10_000
    assert not gc.get_freeze_count()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Give back the handlers after a collector that ran in the test's main thread."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("moment", ["load", "open", "bound"])
@pytest.mark.usefixtures("own_signals")
def test_a_signal_during_the_start_ends_it_properly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, moment: str, number: int
) -> None:
    owner, name = {
        "load": (service, "load_plugins"),
        "open": (Database, "open"),
        "bound": (Receiver, "start"),  # whoever waits for the port sends it at once
    }[moment]
    inner = getattr(owner, name)

    def signalled(*arguments: Any) -> Any:
        result = inner(*arguments)
        os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(owner, name, signalled)
    with caplog.at_level("INFO", "zmon.collector"):
        result = CliRunner().invoke(cli, ["collect", "--no-web", "--bind", f"ipc://{tmp_path}/data",
                                          "--data-dir", str(tmp_path / "d")])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert any(line.startswith("stopped") for line in caplog.messages)


@pytest.mark.usefixtures("own_signals")
def test_a_reload_that_is_requested_during_the_start_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, reload = Receiver.start, Reloader.reload_or_log
    happened = []

    def signalled(receiver: Receiver) -> None:
        start(receiver)
        os.kill(os.getpid(), signal.SIGHUP)
        happened.append("bound")

    def noted(reloader: Reloader) -> None:
        reload(reloader)
        happened.append("reloaded")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Receiver, "start", signalled)
    monkeypatch.setattr(Reloader, "reload_or_log", noted)
    arguments = ["collect", "--no-web", "--bind", f"ipc://{tmp_path}/data", "--data-dir", str(tmp_path / "d")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert happened == ["bound", "reloaded"]


def test_sockets_are_bound_before_anything_is_restored(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes: publishers connect, probes are answered, and what is sent waits."""
    release, load = threading.Event(), journal_state.load

    def load_later(*arguments: Any, **options: Any) -> Any:
        assert release.wait(120)
        return load(*arguments, **options)

    monkeypatch.setattr(journal_state, "load", load_later)
    bind = f"127.0.0.1:{free_port()}"
    config = Config(web=WebSection(enabled=False), health=HealthSection(bind=bind))
    started: list[Any] = []
    starting = threading.Thread(target=lambda: started.append(collect(config=config)))
    starting.start()
    try:

        def probe(path: str) -> int:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://{bind}/{path}", timeout=30).status_code
            return 0

        until(lambda: probe("healthz") == 200, what="the answer")
        assert probe("readyz") == 503
        assert not started
    finally:
        release.set()
        starting.join()
    with started[0].publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
        assert probe("readyz") == 200


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, "-m", "zmon_collector", "collect", "--no-web", "--data-dir", tmp_path / "file" / "data"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("zmon: [collector] data_dir: ")


def test_a_data_folder_that_cannot_be_looked_into_is_left_to_those_who_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert newest_sequence(tmp_path / "history.sqlite") == 0


def test_a_unix_socket_is_not_taken_from_another_collector(tmp_path: Path, collect: Callable[..., Any]) -> None:
    """libzmq would remove its file and bind again: nobody would reach the first one any more."""
    first = collect(bind=f"ipc://{tmp_path}/shared")
    with pytest.raises(zmon.ConfigurationError, match=r"cannot bind ipc://.*Address already in use; is another"):
        collect(folder="second", bind=f"ipc://{tmp_path}/shared")
    with first.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
    first.stop()
    collect(folder="third", bind=f"ipc://{tmp_path}/shared")


def test_rows_that_a_collector_took_are_acknowledged_before_it_ends(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not read a collector's last answers sends the same rows to whoever takes over."""
    monkeypatch.setattr(engine, "BUSY_POLL", 0.35)  # a publisher looks at its answers later than it usually does
    collector = collect()
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
        before = collector.service.telemetry.snapshot()["rows"]
        while collector.service.telemetry.snapshot()["rows"] == before:  # the thread is awake, and naps
            publisher.publish(np.full((4, 2), 0.5))
            time.sleep(0.01)
        collector.stop()
        taken = collector.counts("buffer_count", agent_id=None)
        until(lambda: not publisher.stats.connected, what="the end of the connection")
        assert publisher.stats.acknowledged == taken
        publisher.close(0)


class Wide(zmon.MetricBase[int]):
    """Takes a while for each agent."""

    name = "wide"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> int:
        return acc + batch.rows

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, acc: int, ctx: Context) -> Iterable[Value]:
        time.sleep(0.2)
        yield Value("wide", float(acc))


class WidePlugin:
    @hookimpl
    def register_metrics(self, register: Any, options: Any) -> None:
        register(Wide())


def test_a_close_at_the_end_takes_as_long_as_its_agents_need(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a journal its rows would be lost: the collector waits as long as there is progress."""
    monkeypatch.setattr("zmon_collector.service.EXIT_WAIT", 0.0)
    collector = collect(plugins={"acme": WidePlugin()}, metric_timeout=1.5, journal="off")
    for number in range(12):
        with collector.publisher(agent_id=f"a{number}", classes=2) as publisher:
            publisher.publish(np.full((4, 2), 0.5), timestamps=1_000_000_000)
            assert publisher.flush(60)
    collector.stop()
    assert collector.counts("wide", agent_id=None) == 48
    assert collector.counts("buffer_count", agent_id=None) == 48


HANGS = """
import threading
from pathlib import Path
from zmon import MetricBase
from zmon.hooks import hookimpl

class Hangs(MetricBase):
    name = "hangs"
    def create(self, ctx): return 0
    def update(self, acc, batch, ctx):
        Path(__file__).with_name("called").touch()
        threading.Event().wait()
    def merge(self, left, right): return 0
    def result(self, acc, ctx): return ()

@hookimpl
def register_metrics(register): register(Hangs())
"""


@pytest.mark.system
def test_a_metric_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    """It has been in its call for less than metric_timeout, so nobody has given it up yet."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "hangs.py").write_text(HANGS)
    arguments = ("--plugins-dir", str(plugins), "--window", "1s")
    running = Running(tmp_path / "data", *arguments, flush=False)
    with running.publisher() as publisher:
        publisher.publish(np.full((4, 2), 0.5), timestamps=1_000_000_000)
        assert publisher.flush(60)
    until((plugins / "called").exists, what="the metric")
    assert "does not end; the process ends without it" in running.end()
    assert running.process.returncode == 0


def test_a_database_that_is_removed_while_it_is_used_is_said_and_costs_no_window(
    collect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    collector = collect(flush_on_exit=False)
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
        for path in collector.folder.glob("state.sqlite*"):
            path.unlink()
        until(lambda: any("was removed" in each for each in collector.service.health().problems), what="the problem")
        publisher.publish(np.full((3, 2), 0.5))
        assert publisher.flush(60)
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 7
    assert sum("was removed or replaced" in message for message in caplog.messages) == 1
    again = collect(flush_on_exit=False)
    assert not again.service.health().problems


def test_a_history_whose_disk_hangs_does_not_keep_the_collector_from_ending(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "EXIT_WAIT", 0.2)
    collector = collect()
    release = threading.Event()
    collector.service.live.history.read(lambda connection: release.wait())
    try:
        collector.stop()
        assert any("history could not be closed" in message for message in caplog.messages)
    finally:
        release.set()


def test_a_signal_may_come_while_the_thread_holds_the_lock_of_its_wakeup(collect: Callable[..., Any]) -> None:
    """Its handler runs in that thread: a lock that it waits for would never be released."""
    collector = collect()
    running = collector.service
    with running.wakeup._cond:
        for ask in (running.request_reload, running.stop):
            handler = threading.Thread(target=ask, daemon=True)
            handler.start()
            handler.join(60)
            assert not handler.is_alive(), f"{ask.__name__} waits for a lock"
