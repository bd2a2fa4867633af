"""A real collector in the test's process; the fixture `collect` starts them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zmon_collector.admin import ask
from zmon_collector.config import Config
from zmon_collector.loading import load_plugins
from zmon_collector.service import Service

import zmon
from tests.support.waiting import until


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
        self.service.request_reload()

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(120)
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


def received(collector: Collector) -> int:
    """Return the number of rows that it has accepted."""
    return collector.service.telemetry.get("rows")


def delivered(collector: Collector, rows: int) -> None:
    """Assert that exactly so many rows arrive, and none is lost."""
    until(lambda: received(collector) >= rows, what=f"{rows} rows")
    collector.stop()
    assert received(collector) == rows
    assert collector.service.telemetry.get("lost") == 0
    assert collector.counts("buffer_count", agent_id=None) == rows
