"""One collector for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.edge.harness import Edge


@pytest.fixture(scope="package")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    edge = Edge(tmp_path_factory.mktemp("edge"))
    yield edge
    edge.stop()
