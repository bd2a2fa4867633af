"""A collector process that is killed and started again on the same port and folder."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from zmon_collector.admin import ask

import zmon
from tests.faults.collector import DIED
from tests.support.points import by_names
from tests.support.ports import free_port
from tests.support.waiting import until

CONFIG = """
[collector]
window = "60s"
grace = "0s"
idle = "60s"
max_wait = "120s"
[metrics]
preset = "full"
"""


class Mortal:
    """A collector process on one port and one folder, started as often as needed."""

    def __init__(self, folder: Path, config: str = CONFIG, files: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder / "data"
        self.config = folder / "zmon.toml"
        self.config.write_text(config)
        self.log = folder / "log"
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.checkpoint_bytes = 150_000
        # Files that it may open.
        self._limited = [] if files is None else ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, point: str = "-", *arguments: str) -> None:
        """Start it, to die at a point of tests/faults/collector.py if one is named."""
        ended = self.process and self.process.poll()
        assert ended in (None, 0, -signal.SIGKILL), f"it ended by itself, with {ended}: {self.said()}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._limited,
                 sys.executable, "-m", "tests.faults.collector", str(self.checkpoint_bytes), point, "collect",
                 "--config", str(self.config),
                 "--bind", self.endpoint, *arguments, "--data-dir", str(self.folder)],
                stderr=log,
            )  # fmt: skip

    def wait_until_up(self) -> dict[str, Any]:
        def answer() -> dict[str, Any] | None:
            assert self.alive, f"it has ended: {self.said()}"
            return ask(self.folder, "health", 2.0)  # seconds in which a busy machine answers

        health: dict[str, Any] = until(answer, what="the collector's answer")
        return health

    def wait_until_it_listens(self) -> None:
        """Wait until its port accepts connections, which it does before it answers anything."""
        port = int(self.endpoint.rpartition(":")[2])

        def listens() -> bool:
            assert self.alive, f"it has ended: {self.said()}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, what="the collector to listen")

    def hang_up(self) -> None:
        """Have it read its configuration again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal; it must have been alive until then."""
        assert self.process is not None and self.alive, self.said()
        self.process.send_signal(number)
        ended = self.process.wait(60)
        assert ended == (-number if number == signal.SIGKILL else 0), f"it ended by itself, with {ended}: {self.said()}"

    def freeze(self) -> None:
        """Stop it, as a debugger or a machine out of memory does, until `thaw`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        status = psutil.Process(self.process.pid).status
        until(lambda: status() == psutil.STATUS_STOPPED, what="the process to be stopped")

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def deaths(self, point: str) -> int:
        """How often it has died at a point."""
        return self.said().count(f"{DIED} {point}\n")

    def end(self) -> None:
        """Stop as an operator does, start again, close every window, and stop."""
        if self.alive:
            self._terminate()
        self.start("-", "--flush-on-exit")
        self.wait_until_up()
        self._terminate()

    def _terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text()

    def points(self) -> dict[int, dict[Any, float]]:
        """Values by window start; a window that was written twice fails here."""
        found: dict[int, list[Any]] = {}
        for path in sorted((self.folder / "anodot").glob("*.json")):
            samples = json.loads(path.read_text())
            assert samples[0]["timestamp"] not in found, f"window {samples[0]['timestamp']} was written twice"
            found[samples[0]["timestamp"]] = samples
        return {start: by_names(samples) for start, samples in found.items()}

    def total(self, what: str, agents: bool = True) -> int:
        """Sum of a series over all windows and agents (or of the rollup)."""
        return int(
            sum(
                value
                for window in self.points().values()
                for names, value in window.items()
                if dict(names)["what"] == what
                and ("agent_id" in dict(names)) == agents
                and "segment_name" not in dict(names)
            )
        )

    def publisher(self, agent: str, model: str = "m", **options: Any) -> zmon.Publisher:
        return zmon.Publisher(model, classes=3, collector=self.endpoint, agent_id=agent, **options)

    @contextmanager
    def running(self, *arguments: str, point: str = "-") -> Iterator[Mortal]:
        self.start(point, *arguments)
        try:
            self.wait_until_up()
            yield self
        finally:
            if self.alive:
                self.kill()
