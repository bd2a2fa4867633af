"""Fixtures of the tests that run a publisher in a host process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.children import Child
from tests.support.collectors import Collector

Start = Callable[..., Child]


@pytest.fixture
def child(tmp_path: Path) -> Start:
    return lambda collector, script, *arguments, **options: Child(tmp_path, collector, script, *arguments, **options)


@pytest.fixture
def collector(collect: Callable[..., Collector]) -> Collector:
    return collect()
