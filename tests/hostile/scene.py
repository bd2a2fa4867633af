"""A collector that is attacked, and what must hold meanwhile.

A good publisher beside the attacker loses nothing and flushes in time, the operator's question and the probe are
answered, and the collector's memory stays within a bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from zmon_collector.admin import ask

from tests.support.mortal import Mortal
from tests.support.ports import free_port
from tests.support.waiting import busy, until

ANSWER = 1.0  # seconds in which an answer comes
FLUSH = 5.0  # seconds in which the good publisher delivers what it has
EVERY = 0.2  # seconds between two questions
CONFIG = """
[collector]
window = "60s"
grace = "0s"
idle = "60s"
max_wait = "120s"
{collector}
[health]
bind = "127.0.0.1:{port}"
[web]
{web}
"""


class Scene:
    """A collector process with a good publisher of model ``steady``, agent ``good``; a context manager.

    Leaving it without an error ends the good publisher and the collector, and asserts all of the above but memory.

    Parameters
    ----------
    folder : Path
    config : str
        Further sections of zmon.toml.
    collector, web : str
        Further lines of [collector], and the lines of [web].
    files : int, optional
        Files that the collector may open.
    good : mapping
        Further arguments of the good `zmon.Publisher`.

    Attributes
    ----------
    collector : Mortal
        Its `folder` is the data folder; `said()` returns its log.
    health : dict
        The newest answer to the question ``health``.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        collector: str = "",
        web: str = "enabled = false",
        files: int | None = None,
        **good: Any,
    ) -> None:
        self.probe = f"http://127.0.0.1:{free_port()}"
        port = self.probe.rpartition(":")[2]
        self.collector = Mortal(folder, CONFIG.format(collector=collector, port=port, web=web) + config, files)
        self.health: dict[str, Any] = {}
        self.slowest: dict[str, float] = {"admin": 0.0, "health": 0.0}  # seconds for an answer
        self.unanswered: list[str] = []
        self.base = self.peak = 0  # bytes of resident memory: before the attack, and most
        self._good_options = good
        self._stop = threading.Event()
        self._good: subprocess.Popen[str] | None = None
        self._watch: threading.Thread | None = None
        self._watch: threading.Thread | None = None
        self._good: subprocess.Popen[str] | None = None

    def __enter__(self) -> Scene:
        self.collector.start()
        try:
            self.collector.wait_until_up()
            assert self.collector.process is not None
            self._process = psutil.Process(self.collector.process.pid)
            self._good = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.good", self.collector.endpoint, json.dumps(self._good_options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert self._hear()["ready"]
        except BaseException:
            self._end()
            raise
        self.base = self.peak = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._ask_now_and_again)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._assert_all_is_well()
        finally:
            self._end()

    def wait_for(self, condition: Callable[[dict[str, Any]], Any], what: str = "the health that was waited for") -> Any:
        """Wait until health fulfils a condition: a fault test asserts that its fault happened."""
        return until(lambda: self.health and condition(self.health), what)

    @property
    def grown(self) -> int:
        """Bytes by which the collector's memory had grown when it was largest."""
        return self.peak - self.base

    def _assert_all_is_well(self) -> None:
        assert self._good is not None and self._good.stdin is not None and self._watch is not None
        self._good.stdin.write("end\n")
        self._good.stdin.flush()
        good = self._hear()
        self._stop.set()
        self._watch.join()
        assert good["issued"] and good["flushed"] and good["seconds"] < FLUSH * busy(), good
        assert not self.unanswered, self.unanswered
        assert max(self.slowest.values()) < ANSWER * busy(), self.slowest
        assert self._good.wait(60) == 0
        self.collector.end()
        rows = self._rows_of_good()
        assert rows == {"buffer_count": good["issued"]}, (rows, good)

    def _rows_of_good(self) -> dict[str, int]:
        """Return the good publisher's rows in points, and by what else became of them."""
        kinds = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_degraded", "rows_sampled_out")
        rows: dict[str, int] = {}
        for path in (self.collector.folder / "anodot").glob("*.json"):
            for sample in json.loads(path.read_text()):
                said = sample["properties"]
                if said["model"] == "steady" and said.get("agent_id") == "good" and said["what"] in kinds:
                    rows[said["what"]] = rows.get(said["what"], 0) + int(sample["value"])
        return {what: count for what, count in rows.items() if count}

    def _hear(self) -> dict[str, Any]:
        assert self._good is not None and self._good.stdout is not None
        said: dict[str, Any] = json.loads(self._good.stdout.readline())
        return said

    def _ask_now_and_again(self) -> None:
        while not self._stop.wait(EVERY):
            self.peak = max(self.peak, self._process.memory_info().rss)
            began = time.monotonic()
            health = ask(self.collector.folder, "health", 10.0)
            self._note("admin", began, health is not None)
            self.health = health or self.health
            began = time.monotonic()
            try:
                urllib.request.urlopen(f"{self.probe}/healthz", timeout=10.0).close()
            except OSError as error:
                self._note(f"health: {error}", began, False)
            else:
                self._note("health", began, True)

    def _note(self, what: str, began: float, answered: bool) -> None:
        if not answered:
            self.unanswered.append(what)
        else:
            self.slowest[what] = max(self.slowest[what], time.monotonic() - began)

    def _end(self) -> None:
        self._stop.set()
        if self.collector.alive:
            self.collector.kill()
        if self._watch is not None:
            self._watch.join()
        if self._good is not None:
            self._good.kill()
            with self._good:
                pass
