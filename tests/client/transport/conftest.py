"""A collector's side for a publisher to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peer import Peer


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    one = Peer(str(tmp_path / "z"))
    yield one
    one.close()
    one.context.term()
