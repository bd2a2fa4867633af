"""The fixture of tests that write to a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database of its own, whose thread runs."""
    made = Database(tmp_path / "state.sqlite", Telemetry())
    made.open()
    made.start()
    yield made
    made.close(60)
