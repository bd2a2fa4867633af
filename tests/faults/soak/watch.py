"""The watch over a collector that is soaked: what it reports, what waits for how long, and how much memory it takes.

Waiting counts only while the collector is able to work: it has answered after its start, it is not stopped, and its
disk is not full. Files are read as they appear, and added up.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import psutil
from zmon_collector.admin import ask

from tests.support.standin import StandIn
from tests.support.waiting import busy

COUNTED = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")
HOLD = 13.0  # seconds after a start in which publishers come back and no window closes
BACKOFF = 60.0  # seconds between two tries of a sink that fails, at most


class Points:
    """The files of a collector, each read once: rows by agent and outcome, and what the sound plugin gives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[str] = set()
        self.files = 0
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)  # by model/agent
        self.rollups: Counter[str] = Counter()  # rows in points, by model
        self.wrong: list[str] = []
        self.sound = 0  # windows of agents with a value of the sound plugin
        self._windows: set[tuple[str, int]] = set()

    def read(self) -> set[str]:
        """Read what is new; return the models of which there are new windows."""
        names = {path.name for path in self._folder.glob("*.json")} - self._read
        self._read |= names
        return {self._add(json.loads((self._folder / name).read_text()), name) for name in sorted(names)}

    def _add(self, samples: list[Any], name: str) -> str:
        self.files += 1
        model, start = samples[0]["properties"]["model"], samples[0]["timestamp"]
        if (model, start) in self._windows:
            self.wrong.append(f"{name}: a second report of {model} at {start}")
        self._windows.add((model, start))
        values: dict[tuple[str, str], float] = defaultdict(float)
        for sample in samples:
            said = sample["properties"]
            if "segment_name" not in said:
                values[said.get("agent_id", ""), said["what"]] += sample["value"]
        for (agent, what), value in values.items():
            if what in COUNTED and agent:
                self.rows[f"{model}/{agent}"][what] += int(value)
            elif what == "buffer_count":
                self.rollups[model] += int(value)
            elif what == "sound_rows":
                rows, scaled = values.get((agent, "buffer_count"), 0), values.get((agent, "sound_scaled"), 0)
                self.sound += bool(agent)
                if value != rows or (rows and scaled / rows not in (1, 1_000, 1_000_000)):
                    self.wrong.append(f"{name}: {agent or 'rollup'} of {rows} rows: {value} seen, {scaled} scaled")
        return str(model)


class Watch:
    """Looks at a collector once a second, on a thread of its own.

    Parameters
    ----------
    folder : Path
        The collector's data.
    healthz : str
        The address of its probe.
    api : StandIn
    limit : float
        Seconds for which nothing may be stuck; more on a machine that has more than two things to do per processor.
    due : float
        Seconds within which each model closes a window.
    """

    def __init__(self, folder: Path, healthz: str, api: StandIn, *, limit: float, due: float) -> None:
        self.folder, self.healthz, self.api = folder, healthz, api
        self.limit, self.due = limit, due
        self.points = Points(folder / "anodot")
        self.waiting: dict[int, dict[str, float]] = {}  # by process of agents: since when, by agent
        self.issued: dict[int, int] = {}
        self.api_up = 0.0  # since when; infinite while it is down
        self.taken = 0  # samples
        self.longest: dict[str, float] = defaultdict(float)  # that something was stuck, by what
        self.age: dict[str, float] = {}  # seconds since the collector had started, at that moment
        self.faults: list[str] = []
        self.pauses: dict[str, float] = defaultdict(float)
        self.said: Counter[str] = Counter()  # threads and probes that were not well
        self.memory: list[list[tuple[float, int]]] = []  # of each life, by its age
        self.health: dict[str, Any] = {}
        self.worst_answer = 0.0
        self._process: psutil.Process | None = None
        self._began = time.monotonic()
        self._runs = self._able = self._answered = float("inf")  # since when
        self._moved: dict[str, tuple[Any, float]] = {}  # of sinks: how far they were, since when
        self._closed: dict[str, float] = {}  # by model: how long the collector had been able when one closed last
        self._able_seconds = 0.0
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def runs(self, pid: int | None) -> None:
        """Note that the collector runs as this process, or not at all."""
        with self._lock:
            now = time.monotonic()
            if pid is None:
                self._process, self._runs, self._able = None, float("inf"), float("inf")
                return
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
                self.memory.append([])
                self._began = now
            self._runs = self._answered = now

    def able(self, able: bool) -> None:
        """Note that from now on the collector is able to do all its work, or not."""
        with self._lock:
            self._able = time.monotonic() if able else float("inf")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            try:
                self.look()
            except psutil.NoSuchProcess:
                pass
            except Exception as error:
                self.faults.append(f"the watch failed: {error!r}")
                raise

    def look(self) -> None:
        self.taken += len(self.api.accepted)
        for kept in (self.api.accepted, self.api.exchanges, self.api.refused, self.api.out_of_order):
            kept.clear()
        models = self.points.read()
        asked = time.monotonic()
        health = ask(self.folder, "health", 2.0)
        now = time.monotonic()
        with self._lock:
            if self._process is not None:
                self.memory[-1].append((now - self._began, self._process.memory_info().rss))
            runs, able = self._runs, self._able
            if now > able + HOLD:
                self._able_seconds += now - max(self._looked, able + HOLD)
            self._looked = now
            if health is not None and runs < asked:
                self._answered, self.health = now, health
                self.worst_answer = max(self.worst_answer, now - asked)
        if health is None or not runs < asked:
            self._stuck("an answer", now - self._answered if runs < asked else 0.0)
        else:
            self._look_at_health(health, now, able)
        self._probe(runs)
        for model in models:
            self._closed[model] = self._able_seconds
        for model, at in self._closed.items():
            self._stuck(f"closing of {model}", self._able_seconds - at - self.due)
        for waiting in list(self.waiting.values()):
            for agent, since in waiting.items():
                self._stuck(f"acknowledgement of {agent}", now - max(since, able))

    def _look_at_health(self, health: dict[str, Any], now: float, able: float) -> None:
        for pause in health["paused"]:
            self.pauses[pause["by"]] = max(self.pauses[pause["by"]], pause["seconds"])
            if pause["by"] != "disk_full":
                self._stuck(f"the pause {pause['by']}", min(pause["seconds"], now - able))
        for thread, state in health["threads"].items():
            if state != "ok":
                self.said[f"{thread}: {state}"] += 1
        for sink, behind in health["behind"].items():
            moved = health["counters"].get(f"sink_written{{{sink}}}"), behind
            if not behind or sink not in self._moved or self._moved[sink][0] != moved:
                self._moved[sink] = moved, now
            since = max(self._moved[sink][1], able, self.api_up if sink == "anodot" else 0.0)
            failing = health["sinks"].get(sink, "ok") != "ok"
            self._stuck(f"reports of {sink}", now - since - (BACKOFF if failing else 0.0))

    def _probe(self, runs: float) -> None:
        try:
            urllib.request.urlopen(self.healthz, timeout=2.0).close()
        except urllib.error.HTTPError as error:
            self.said[f"/healthz: {error.read().decode()[:200]}"] += 1
            self.faults.append(f"/healthz fails: {error.code}")
        except OSError:  # it starts, or is stopped
            pass

    def _stuck(self, what: str, seconds: float) -> None:
        kind = what.partition(" of ")[0]
        if seconds > self.longest[kind]:
            self.longest[kind] = seconds
            self.age[kind] = time.monotonic() - self._began
            if seconds > self.limit * busy():
                paused = [pause["by"] for pause in self.health.get("paused", ())]
                self.faults.append(f"{what} is stuck for {seconds:.1f} s; paused: {paused}")
