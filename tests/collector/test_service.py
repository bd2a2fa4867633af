"""How a collector begins and ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import cli

from tests.support.waiting import until
from zmon._transport import engine


def test_what_is_there_at_the_start_is_not_looked_through_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look through all objects would stop every thread for a tenth of a second."""
    frozen = []
    service = SimpleNamespace(
        start=lambda: None,
        run=lambda: frozen.append(gc.get_freeze_count()),
        failed=False,
        engine=SimpleNamespace(stuck_threads=0),
    )
    monkeypatch.setattr("zmon_collector.cli.collect.Service", lambda *_, **__: service)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    try:
        assert CliRunner().invoke(cli, ["collect", "--data-dir", str(tmp_path)]).exit_code == 0
    finally:
        gc.unfreeze()
    assert frozen[0] > 10_000


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


def test_a_signal_may_come_while_the_thread_holds_the_lock_of_its_wakeup(collect: Callable[..., Any]) -> None:
    """Its handler runs in that thread: a lock that it waits for would never be released."""
    collector = collect()
    service = collector.service
    with service.wakeup._cond:
        for ask in (service.request_reload, service.stop):
            handler = threading.Thread(target=ask, daemon=True)
            handler.start()
            handler.join(60)
            assert not handler.is_alive(), f"{ask.__name__} waits for a lock"
