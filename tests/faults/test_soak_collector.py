"""Half an hour of everything at random: reloads, clocks that jump, plugins that misbehave, kills, outages, full disks.

Each row of each agent is in a point or counted, nothing is stuck for long, and memory stays flat.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL
from tests.faults.soak.collector import LIBRARY, environment
from tests.faults.soak.watch import Watch
from tests.support.disks import small_disk
from tests.support.mortal import Mortal
from tests.support.ports import free_port
from tests.support.standin import TOKEN, StandIn
from tests.support.waiting import until

SECONDS = float(os.environ.get("ZMON_SOAK_SECONDS", 0)) or (1800.0 if FULL else 45.0)
SEED = int(os.environ.get("ZMON_SOAK_SEED", 0)) or random.randrange(1, 2**16)
MODELS, PROCESSES, AGENTS = (300 if FULL else 30), 3, 2
EVERY = 4 if FULL else 2  # seconds between two batches of an agent
RELOAD_EVERY = 20.0 if FULL else 10.0
STUCK = 10.0 if FULL else 30.0  # seconds; a machine that tests other things, too, is slow
LIVES = (5, 15, 30, 60, 60, 120, 240) if FULL else (6, 12)  # seconds until the next kill
WINDOWS = (20, 30, 40) if FULL else (10, 15)  # seconds
CLOCKS = (0, 0, -3600, -90, -3, 4, 90, 3000)  # seconds that the system's clock is ahead
DISK, LEAST = 2**31, 2**24  # bytes of the disk
GROWTH = 24 * 2**20  # bytes that the last third of a life may need beyond the middle one
MOODS = {  # of the plugins in tests/faults/soak/plugins
    "update": ("hang", "raise", "none", "text", "object", "cyclic"),
    "merge": ("hang", "raise", "none", "set"),
    "result": ("hang", "raise", "set", "text", "surrogate", "nan", "huge", "array"),
    "memory": ("raise", "set", "surrogate", "object", "cyclic", "huge", "array"),
    "detail": ("raise", "set", "surrogate", "object", "cyclic"),
    "open": ("raise",),
    "write": ("raise", "text"),
    "close": ("raise",),
    "window_closed": ("raise",),
}
CONFIG = """
[collector]
window = "{window}s"
grace = "{grace}ms"
idle = "10s"
max_wait = "4s"
sample_rows = {sample}
metric_timeout = "3s"
plugins_dir = "{plugins}"
[limits]
sample_bytes = 64000000
journal_bytes = {journal}
inflight_bytes = 16000000
message_bytes = 4000000
[metrics]
preset = "{preset}"
add = ["rows_*", "buffer_count"]
reference_windows = {reference}
[models."model-1"]
window = "{window_of_one}s"
[plugins.sound]
scale = {scale}
[health]
bind = "127.0.0.1:{health}"
[web]
enabled = false
[sinks.anodot_file]
keep = "365d"
[sinks.anodot]
url = "{api}"
agents = "none"
requests_per_second = 1000
samples_per_second = 1000000
[sinks.moody]
"""


class FakedTime(Mortal):
    """A collector whose wall clock is set by a file."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder, config)
        self.clock = folder / "clock"
        self.environment = environment(self.clock)

    def start(self, point: str = "-", *arguments: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.soak.collector", "collect", "--config", str(self.config),
                 "--bind", self.endpoint, *arguments, "--data-dir", str(self.folder)],
                stderr=log, env=self.environment,
            )  # fmt: skip


class Crowd:
    """A process of agents."""

    def __init__(self, number: int, endpoint: str, seed: int, watch: Watch) -> None:
        models = MODELS // PROCESSES
        self.number, self.watch = number, watch
        self.issued: dict[str, int] = {}
        self.began_again = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.soak.agents", endpoint,
             *map(str, (seed, number * models, models, AGENTS, EVERY))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            self.watch.waiting[self.number] = said.get("waiting", {})
            if "issued" in said:
                self.issued, self.began_again = said["issued"], said["began_again"]

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        assert self.process.wait(600) == 0
        self._reader.join()

    def end(self) -> None:
        self.process.kill()
        with self.process:
            self._reader.join()


class Soak:
    """One run: a collector, its agents, and what happens to them."""

    def __init__(self, folder: Path, disk: Path, api: StandIn) -> None:
        self.chance = random.Random(SEED)
        self.api, self.disk = api, disk
        self.port = free_port()
        self.moods = folder / "moods.json"
        self.collector = FakedTime(folder, "")
        self.collector.environment |= {"ZMON_SOAK_MOODS": str(self.moods), "ANODOT_TOKEN": TOKEN}
        self.collector.clock.write_text("+0\n")
        self.happened: Counter[str] = Counter()
        self.full_since: float | None = None
        self.configure()
        probe = f"http://127.0.0.1:{self.port}/healthz"
        self.watch = Watch(self.collector.folder, probe, api, limit=STUCK, due=max(WINDOWS) + 0.5 + 4)
        self.crowds: list[Crowd] = []

    # --- what happens ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        choose = self.chance.choice
        text = CONFIG.format(
            window=choose(WINDOWS), grace=choose([0, 200, 500]), sample=choose([50, 5000]),
            plugins=Path(__file__).parent / "soak" / "plugins", journal=choose([2**25, 2**30]),
            preset=choose(["minimal", "minimal", "default"]), reference=choose([0, 0, 2]),
            window_of_one=choose(WINDOWS), scale=choose([1, 1_000, 1_000_000]), health=self.port, api=self.api.url,
        )  # fmt: skip
        self.collector.config.write_text(text)

    def reload(self) -> None:
        if self.chance.random() < 0.1:
            self.collector.config.write_text("[collector]\nwindow = 'never'\n")
            self.happened["reload of an invalid file"] += 1
            self.send_hangup()
            time.sleep(0.5)  # it is read
        self.configure()
        self.send_hangup()

    def send_hangup(self) -> None:
        if self.collector.alive and self.collector.process is not None:
            self.collector.process.send_signal(signal.SIGHUP)
            self.happened["reload"] += 1

    def jump(self) -> None:
        self.collector.clock.write_text(f"{self.chance.choice(CLOCKS):+}\n")

    def change_moods(self) -> None:
        wheres = self.chance.sample(sorted(MOODS), 3)
        moods = {where: (self.chance.choice(MOODS[where]), self.chance.choice([0.001, 0.01, 0.3])) for where in wheres}
        self.moods.write_text(json.dumps(moods))

    def begin_again(self) -> None:
        self.chance.choice(self.crowds).tell("again")

    def sink_down(self) -> None:
        def outage(seconds: float) -> None:
            time.sleep(seconds)  # the outage
            self.api.up()
            self.watch.api_up = time.monotonic()

        if self.watch.api_up < float("inf"):
            self.watch.api_up = float("inf")
            self.api.down()
            threading.Thread(target=outage, args=(self.chance.uniform(1.0, 6.0),)).start()

    def fill_disk(self) -> None:
        if self.full_since is None:
            self.full_since = time.monotonic()
            self.watch.able(False)
            for _ in range(20):
                state = os.statvfs(self.disk)
                used = (state.f_blocks - state.f_bfree) * state.f_frsize
                self.resize(max(used, LEAST), check=False)

    def free_disk(self) -> None:
        if self.full_since is not None:
            self.resize(DISK)
            self.full_since = None
            if self.collector.alive:
                self.watch.able(True)

    def resize(self, size: int, *, check: bool = True) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.disk)], check=check, capture_output=True)

    def freeze(self) -> None:
        self.watch.runs(None)
        self.collector.freeze()
        time.sleep(self.chance.uniform(0.2, 3.0))  # stopped
        self.collector.thaw()
        self.is_up()

    def kill(self) -> None:
        self.end_life(signal.SIGKILL)

    def terminate(self) -> None:
        self.end_life(signal.SIGTERM)

    def end_life(self, number: int) -> None:
        self.watch.runs(None)
        self.collector.kill(number)
        time.sleep(self.chance.choice([0.0, 0.0, 0.5, 2.0]))
        if self.full_since is not None and self.chance.random() < 0.5:
            self.free_disk()
        self.collector.start()
        if self.chance.random() < 0.2:
            self.happened["kill while starting"] += 1
            time.sleep(self.chance.random() * 2)
            self.collector.kill()
            self.collector.start()
        self.is_up()

    def is_up(self) -> None:
        """Wait for the collector, and note that it is there."""
        assert self.collector.process is not None
        self.watch.runs(self.collector.process.pid)
        self.collector.wait_until_up()
        if self.full_since is None:
            self.watch.able(True)

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.collector.start()
        self.is_up()
        for number in range(PROCESSES):
            self.crowds.append(Crowd(number, self.collector.endpoint, self.chance.randrange(2**32), self.watch))
        began = time.monotonic()
        reload_at, dies_at = began + RELOAD_EVERY, began + max(LIVES)
        events: list[tuple[Callable[[], None], int]] = [
            (self.jump, 4), (self.change_moods, 6), (self.begin_again, 3), (self.sink_down, 2), (self.fill_disk, 1),
            (self.freeze, 1),
        ]  # fmt: skip
        while (now := time.monotonic()) < began + SECONDS:
            assert self.collector.alive, self.collector.said()[-4000:]
            assert all(crowd.process.poll() is None for crowd in self.crowds)
            if self.full_since is not None and now > self.full_since + self.chance.uniform(1.0, 8.0):
                self.free_disk()
            if now >= reload_at:
                self.reload()
                reload_at = now + RELOAD_EVERY
            elif now >= dies_at:
                self.happens(self.chance.choice([self.kill, self.kill, self.terminate]))
                dies_at = time.monotonic() + self.chance.choice(LIVES)
            elif self.chance.random() < 0.15:
                self.happens(self.chance.choices(*zip(*events, strict=True))[0])
            time.sleep(0.25)  # the load
        self.heal()

    def happens(self, event: Callable[[], None]) -> None:
        self.happened[event.__name__] += 1
        event()

    def heal(self) -> None:
        """All is well again: publishers deliver what they have, and end."""
        self.free_disk()
        self.moods.write_text("{}")
        until(lambda: self.watch.api_up < float("inf"), what="the end of the outage")
        for crowd in self.crowds:
            crowd.tell("end")
        for crowd in self.crowds:
            crowd.wait()
        self.watch.stop()
        self.collector.end()
        with self.collector.running():  # until the sinks have all that was closed
            until(lambda: not any(self.collector.wait_until_up()["behind"].values()), what="the last reports")
            self.collector.kill(signal.SIGTERM)
        self.watch.points.read()

    def end(self) -> None:
        for crowd in self.crowds:
            crowd.end()
        self.watch.stop()
        if self.collector.alive:
            self.collector.kill()

    def figures(self) -> str:
        watch = self.watch
        rows = sum(watch.points.rows.values(), Counter())
        longest = {
            what: f"{stuck:.1f} s, {watch.age[what]:.0f} s after a start"
            for what, stuck in watch.longest.items()
            if stuck
        }
        lives = [f"{life[-1][0]:.0f} s {middle >> 20}→{last >> 20} MiB" for life, middle, last in self.lives(30.0)]
        return "\n".join(
            [
                f"seed {SEED}: {SECONDS:.0f} s, {MODELS} models × {AGENTS} agents",
                f"rows issued: {sum(self.issued.values())}; {dict(rows)}",
                f"reports: {watch.points.files}, agents in them with the sound plugin: {watch.points.sound}",
                f"samples at the API: {watch.taken}",
                f"happened: {dict(self.happened)}, {sum(each.began_again for each in self.crowds)} publishers again",
                f"longest stuck: {longest}",
                f"slowest answer: {watch.worst_answer:.2f} s; pauses {dict(watch.pauses)}",
                f"memory, most in the middle third → the last: {'; '.join(lives)}",
                f"said: {dict(watch.said)}",
                *watch.faults[:20],
            ]
        )

    @property
    def issued(self) -> dict[str, int]:
        return {agent: rows for crowd in self.crowds for agent, rows in crowd.issued.items()}

    def lives(self, least: float) -> list[tuple[list[tuple[float, int]], int, int]]:
        """Lives of at least so many seconds, with the most memory of their middle and their last third."""
        found = []
        for life in self.watch.memory:
            sizes, third = [rss for _, rss in life], len(life) // 3
            if life and life[-1][0] >= least:
                found.append((life, max(sizes[third : 2 * third]), max(sizes[2 * third :])))
        return found


@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.xdist_group("serial")
def test_everything_at_once_for_long(tmp_path: Path, capsys: Any) -> None:
    if LIBRARY is None:
        assert not os.environ.get("ZMON_REQUIRE_ALL"), "libfaketime is missing"
        pytest.skip("libfaketime is missing")
    with StandIn() as api, small_disk(tmp_path / "data", str(DISK)) as disk:
        soak = Soak(tmp_path, disk, api)
        try:
            soak.run()
        finally:
            soak.end()
            with capsys.disabled():
                print(f"\n{soak.figures()}")
    watch = soak.watch
    assert not watch.points.wrong, watch.points.wrong[:20]
    found = {agent: counts.total() for agent, counts in watch.points.rows.items()}
    wrong = {
        agent: (rows, dict(watch.points.rows[agent])) for agent, rows in soak.issued.items() if found.get(agent) != rows
    }
    assert not wrong, (wrong, watch.faults[:20])  # first: a row that is missing is worse than one that is late
    assert not watch.faults, watch.faults[:20]
    assert len(soak.issued) == MODELS * AGENTS
    in_points = sum(counts["buffer_count"] for counts in watch.points.rows.values())
    assert watch.points.rollups.total() == in_points
    for life, middle, last in soak.lives(120.0):
        assert last < middle + GROWTH, [(round(age), rss >> 20) for age, rss in life[::10]]
