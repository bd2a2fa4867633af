"""Services that are not started, for tests that lay messages before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from zmon_collector.config import Config

from tests.support.unstarted import Table


@pytest.fixture
def lay(tmp_path: Path) -> Iterator[Callable[..., Table]]:
    made: list[Table] = []

    def one(config: Config | None = None) -> Table:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Table(folder, config))
        return made[-1]

    yield one
    for table in made:
        table.end()
