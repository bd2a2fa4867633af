"""Files: who may read what a collector writes, and what files that are broken or hostile cost."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zmon
from tests.hostile.scene import Scene


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_nothing_that_a_collector_writes_can_be_read_by_others(tmp_path: Path) -> None:
    """In a folder that was there before and is open to all, with a database that an earlier run left open."""
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    (data / "history.sqlite").touch(mode=0o666)
    with Scene(tmp_path) as scene:
        with zmon.Publisher("m", classes=3, collector=scene.collector.endpoint, agent_id="a") as publisher:
            publisher.publish(np.full((10, 3), 1 / 3), ids=np.arange(10))
            assert publisher.flush(30)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*")}
        assert {"state.sqlite", "state.sqlite-wal", "history.sqlite", "admin.sock", "anodot"} <= modes.keys()
        assert {name for name, mode in modes.items() if mode & 0o077} == set()
        said = f"all users can write to the folder {str(data)!r} (mode 777), which holds rows; run chmod 700 on it"
        assert scene.collector.said().count(said) == 1
