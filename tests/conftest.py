"""The fixture that starts real collectors, and what holds for all tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection, WebSection

from tests.support import tiers
from tests.support.collectors import Collector

# How long a machine takes says nothing about the code: no test fails for it but those that measure.
settings.register_profile("zmon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zmon")

GUARD = tiers.UnitGuard()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[tiers.COUNTS] = tiers.assign(items, Path(__file__).parent)


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep unit tests from sockets, processes and databases."""
    GUARD.test = request.node.nodeid if request.node.get_closest_marker("unit") else ""
    yield
    GUARD.test = ""


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start collectors: ``collect(plugins={name: object}, config=…, **options of [collector])``.

    Windows wait for their agents for long: none closes because the machine stood still.
    """
    with contextlib.ExitStack() as stack:

        def start(
            *,
            plugins: Mapping[str, object] | None = None,
            config: Config | None = None,
            folder: str = "data",
            **options: Any,
        ) -> Collector:
            path = tmp_path / folder
            section = CollectorSection(
                **{
                    "bind": f"ipc://{tmp_path}/{folder}.sock",
                    "data_dir": path,
                    "window": 60,
                    "idle": 60.0,
                    "max_wait": 120.0,
                    "flush_on_exit": True,
                    **options,
                }
            )
            collector = Collector(
                path, replace(config or Config(web=WebSection(enabled=False)), collector=section), plugins or {}
            )
            stack.callback(collector.stop)
            return collector

        yield start
