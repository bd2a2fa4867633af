"""The command line in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from zmon_collector.admin import ask

import zmon
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
OLD = 1_000_000_020  # a minute in 2001


def environment(path: Path | None = None) -> dict[str, str]:
    """The test's own environment, with a folder of further packages."""
    paths = [str(path or ""), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def command(*arguments: str, path: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``zmon`` with these arguments; `path` is a folder of further packages."""
    return subprocess.run(
        [sys.executable, "-m", "zmon_collector", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(path),
        **options,
    )


class Running:
    """`zmon collect` as a process, whose log is a file beside its folder."""

    def __init__(self, folder: Path, *arguments: str, path: Path | None = None, flush: bool = True) -> None:
        self.folder = folder
        self._log = folder.with_name(f"{folder.name}.log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zmon_collector", "collect", "--bind", "tcp://127.0.0.1:0",
                 *([] if "--web" in arguments else ["--no-web"]), *(["--flush-on-exit"] if flush else []),
                 *arguments, "--data-dir", str(folder)],
                stderr=log, env=environment(path),
            )  # fmt: skip
        self.health = until(lambda: ask(folder, "health"), what="the collector's answer")

    def publisher(self, **options: Any) -> zmon.Publisher:
        return zmon.Publisher("m", classes=2, collector=self.health["data"], control=self.health["control"], **options)

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal; its log."""
        self.process.send_signal(number)
        self.process.wait(120)
        return self.said()

    def said(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()
