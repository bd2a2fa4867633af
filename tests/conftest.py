"""Shared by all tests: real collectors on loopback or ipc, and frameworks that must be there when CI says so."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from zmon_collector.admin import ask
from zmon_collector.config import CollectorSection, Config, WebSection
from zmon_collector.loading import load_plugins
from zmon_collector.service import Service

import zmon

# How long a machine takes says nothing about the code: no test fails for it but those that measure.
settings.register_profile("zmon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zmon")


def require(name: str) -> Any:
    """A framework: imported, or the test is skipped, or fails where ZMON_REQUIRE_ALL is set."""
    if os.environ.get("ZMON_REQUIRE_ALL"):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def until(condition: Callable[[], Any], timeout: float = 20.0, what: str = "condition") -> Any:
    """Wait until `condition` gives something true; its value."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {timeout} s")


def answer(folder: Path, question: str = "health") -> dict[str, Any]:
    """What the collector that runs on a folder says, however long it takes."""
    found: dict[str, Any] = until(lambda: ask(folder, question), what="the collector's answer")
    return found


class Collector:
    """A real collector in this process, on a thread, with its files."""

    def __init__(self, folder: Path, config: Config, plugins: Mapping[str, object]) -> None:
        self.folder = folder
        self._config = config
        self.registry = load_plugins(config)
        for name, plugin in plugins.items():
            self.registry.register(plugin, name)
        self.service = Service(config, self.registry, lambda: self._config)
        self.service.start()
        self.data, self.control = self.service.receiver.data, self.service.receiver.control
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        self._thread.start()

    def publisher(self, model: str = "model", **options: Any) -> zmon.Publisher:
        return zmon.Publisher(model, collector=self.data, control=self.control, **options)

    def close_windows(self) -> None:
        """Everybody has sent all there is: what is open waits for nobody any longer, and closes once it has ended."""
        self._config = replace(self._config, collector=replace(self._config.collector, idle=0.0))
        self.service.ask_to_reload()

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the collector does not stop"

    def files(self) -> list[Path]:
        return sorted((self.folder / "anodot").glob("*.json"))

    def points(self) -> list[dict[str, Any]]:
        """Every sample written so far, in the files' order."""
        return [sample for path in self.files() for sample in json.loads(path.read_text())]

    def counts(self, what: str, **names: str | None) -> int:
        """Sum over all windows of a series; `agent_id=None` means the rollup's."""
        return sum(
            point["value"]
            for point in self.points()
            if point["properties"]["what"] == what
            and all(point["properties"].get(key) == value for key, value in names.items())
        )


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


def by_names(points: list[dict[str, Any]]) -> dict[tuple[tuple[str, str], ...], float]:
    """Values by their properties, without what every series has."""
    found: dict[tuple[tuple[str, str], ...], float] = {}
    for point in points:
        names = {k: v for k, v in point["properties"].items() if k not in ("ver", "target_type", "model")}
        key = tuple(sorted(names.items()))
        assert key not in found, f"two points of one series: {key}"
        found[key] = point["value"]
    return found
