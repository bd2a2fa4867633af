"""Twins of publishers, publishers without a collector, and the report of what watching costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import zmon
from tests.support.collectors import Collector
from tests.support.twins import COSTS, Twins


@pytest.fixture
def twins(collect: Callable[..., Collector]) -> Callable[..., Twins]:
    return lambda **options: Twins(collect(), options)


@pytest.fixture
def publisher() -> Iterator[Callable[..., zmon.Publisher]]:
    """Publishers that nobody listens to: their counters tell."""
    made: list[zmon.Publisher] = []

    def make(**options: Any) -> zmon.Publisher:
        made.append(zmon.Publisher("m", collector="ipc:///nonexistent/zmon", **options))
        return made[-1]

    yield make
    for each in made:
        each.close(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COSTS:
        terminalreporter.section("what watching adds to a call, of 32 rows unless said")
        for line in COSTS:
            terminalreporter.write_line(line)
