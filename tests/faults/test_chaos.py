"""Everything at once, at random: links that cut, a collector that is killed and stopped, publishers that come and go.

The model's side sends dicts, arrays whose labels come later, and frames of which some are left out or wrong. Publishers
are closed at any instant, whatever the collector is doing. At the end each row of each agent is in a point or counted,
and each label has one outcome. Further publishers are killed, or given no time to deliver: their acknowledged rows are
there, and no row is there twice.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import zmon
from tests.faults.harness import FULL
from tests.support.children import Child
from tests.support.databases import stored
from tests.support.mortal import Mortal
from tests.support.proxy import Proxy

SECONDS = 300.0 if FULL else 20.0
SEEDS = range(20 if FULL else 1)
LIFE = 3.0  # seconds of a publisher, on average
HOUR = 3600.0  # longer than anything here takes, through links that cut and to a collector that dies
COUNTED = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")
CLASSES = ("no", "yes", "maybe")
CONFIG = """
[collector]
window = "3s"
grace = "500ms"
idle = "2s"
max_wait = "3s"
[limits]
agents = 1000
[metrics]
preset = "full"
[web]
enabled = false
"""
Links = tuple[Proxy, Proxy]
Counts = dict[str, Counter[str]]


class Agent(ABC):
    """A process of the model: it publishes, and now and then its publisher is closed and another one begins."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def __init__(self, links: Links, chance: random.Random) -> None:
        self.links = links
        self.chance = chance
        self.random = np.random.default_rng(chance.randrange(2**32))
        self.issued = 0  # rows
        self.publishers = 0
        self.met = False  # a collector, so that the end of each publisher waits for it
        self.longest_close = 0.0  # seconds
        self.error: BaseException | None = None

    def live(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._one_publisher(stop)
        except BaseException as error:  # of a thread nobody would hear
            self.error = error

    def _one_publisher(self, stop: threading.Event) -> None:
        """Publish until its time is over, and close it."""
        data, control = (link.endpoint for link in self.links)
        self.publisher = zmon.Publisher(
            "m", classes=CLASSES, collector=data, control=control, agent_id=self.name, **self.options
        )
        self.publishers += 1
        end = time.monotonic() + self.chance.expovariate(1 / LIFE)
        while not self.met or (time.monotonic() < end and not stop.is_set()):
            time.sleep(self.chance.random() * 0.02)  # the load
            self.publish(int(self.chance.choice([1, 1, 5, 40])))
            self.met = self.met or self.publisher.stats.connected
        closing = time.monotonic()
        self.publisher.close(HOUR)
        self.longest_close = max(self.longest_close, time.monotonic() - closing)
        assert "closed" not in self.publisher.stats.dropped, self.publisher.stats

    @abstractmethod
    def publish(self, rows: int) -> None:
        """Publish so many rows, and add to `issued`."""

    def outputs(self, rows: int) -> Any:
        return self.random.dirichlet(np.ones(3), rows)

    def times(self, rows: int) -> Any:
        """Times that are now, or some seconds ago."""
        return time.time() - self.chance.choice([0, 0, 0, 1, 8]) - self.random.random(rows)


class Dicts(Agent):
    """Single rows, as a web service has them."""

    name = "dicts"

    def publish(self, rows: int) -> None:
        for _ in range(rows):
            row = dict(zip(CLASSES, self.outputs(1)[0].tolist(), strict=True))
            self.publisher.publish(row, {"x": self.chance.random(), "colour": self.chance.choice(["red", "green"])})
        self.issued += rows


class Arrays(Agent):
    """Arrays of rows with ids; their labels come soon or late, some twice, some for rows that never were."""

    name = "arrays"
    ids = count()

    def __init__(self, links: Links, chance: random.Random) -> None:
        self.unlabelled: deque[int] = deque()
        self.labels = 0
        super().__init__(links, chance)

    def publish(self, rows: int) -> None:
        ids = [next(self.ids) for _ in range(rows)]
        self.publisher.publish(self.outputs(rows), self.random.random((rows, 3)), ids=ids, timestamps=self.times(rows))
        self.issued += rows
        self.unlabelled += ids
        while len(self.unlabelled) > 6000:  # some seconds of rows
            newest = self.chance.random() < 0.5
            known = [self.unlabelled.pop() if newest else self.unlabelled.popleft() for _ in range(50)]
            if self.chance.random() < 0.1:
                known += [known[0], -next(self.ids)]
            self.publisher.publish_labels(known, [CLASSES[i % 3] for i in known])
            self.labels += len(known)


class Frames(Agent):
    """Frames of which half of the rows are left out, and some are wrong."""

    name = "frames"
    options = {"sample_rate": 0.5, "buffer_bytes": 2**17}  # noqa: RUF012 - never changed; the ring overflows, too

    def publish(self, rows: int) -> None:
        outputs = self.outputs(rows)
        if self.chance.random() < 0.1:
            outputs = self.chance.choice([outputs[:, :2], outputs * 3, outputs.astype(str)])
        frame = pandas.DataFrame({"x": self.random.random(rows), "colour": self.random.choice(["red", "blue"], rows)})
        self.publisher.publish(outputs, frame, timestamps=self.times(rows))
        self.issued += rows


class Pods:
    """Processes that are killed, or end with less than a second to deliver what they hold."""

    SCRIPT = r"""
    _, data, control, agent = sys.argv
    publisher = zmon.Publisher("m", classes=["no", "yes", "maybe"], collector=data, control=control, agent_id=agent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    issued = 0
    def tell():  # in one piece, whenever the signal comes
        os.write(1, b"%d %d\n" % (issued, publisher.stats.acknowledged))
    try:
        while True:
            rows = random.choice([1, 5, 40])
            issued += rows
            tell()
            publisher.publish(np.full((rows, 3), 1 / 3))
            time.sleep(random.random() * 0.1)
    finally:
        publisher.close(random.random())
        tell()
    """

    def __init__(self, folder: Path, links: Links, chance: random.Random) -> None:
        self.folder = folder
        self.links = links
        self.chance = chance
        self.pods: dict[str, tuple[int, int]] = {}  # rows issued and acknowledged
        self.error: BaseException | None = None

    def live(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                agent = f"pod-{len(self.pods)}"
                self.pods[agent] = self._one_pod(agent, stop)
        except BaseException as error:  # of a thread nobody would hear
            self.error = error

    def _one_pod(self, agent: str, stop: threading.Event) -> tuple[int, int]:
        data, control = (link.endpoint for link in self.links)
        pod = Child(self.folder, data, self.SCRIPT, control, agent)
        last, ended = pod.line(), False
        end = time.monotonic() + self.chance.expovariate(1 / LIFE)
        while line := pod.line():
            last = line
            if not ended and (stop.is_set() or time.monotonic() > end):
                ended = True
                pod.process.send_signal(self.chance.choice([signal.SIGKILL, signal.SIGTERM]))
        pod.end()
        issued, acknowledged = map(int, last.split())
        return issued, acknowledged


class Chaos:
    """One run: a collector behind two links, publishers, and what happens to all of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.collector = Mortal(folder, CONFIG)
        port = int(self.collector.endpoint.rpartition(":")[2])
        self.links = Proxy(port, self._fork()), Proxy(port + 1, self._fork())
        self.agents = [kind(self.links, self._fork()) for kind in (Dicts, Arrays, Frames)]
        self.pods = Pods(folder, self.links, self._fork())
        self.happened: Counter[str] = Counter()
        self.happenings: list[Callable[[], None]] = [
            *(self.killed, self.ended, self.dies_while_starting, self.ended_once_it_listens),
            *(self.frozen, self.killed_while_frozen, self.reloaded_once_it_listens, self.left_alone),
            *(self.calm, self.storm),
        ]

    def _fork(self) -> random.Random:
        return random.Random(self.chance.randrange(2**32))

    def run(self) -> None:
        stop = threading.Event()
        self.collector.start()
        everybody = (*self.agents, self.pods)
        threads = [threading.Thread(target=each.live, args=(stop,), daemon=True) for each in everybody]
        for thread in threads:
            thread.start()
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end and all(each.error is None for each in everybody):
                happening = self.chance.choice(self.happenings)
                self.happened[happening.__name__] += 1
                happening()
        finally:
            stop.set()
        self.calm()
        for thread in threads:
            thread.join()
        for each in everybody:
            if each.error is not None:
                raise each.error

    def killed(self) -> None:
        self.left_alone()
        self._again(signal.SIGKILL)

    def ended(self) -> None:
        self.left_alone()
        self._again(signal.SIGTERM)

    def left_alone(self) -> None:
        self.collector.wait_until_up()
        self._pause(4)

    def dies_while_starting(self) -> None:
        self._pause(1)
        self._again(signal.SIGKILL)

    def ended_once_it_listens(self) -> None:
        self.collector.wait_until_it_listens()
        self._pause(0.25)
        self._again(signal.SIGTERM)

    def reloaded_once_it_listens(self) -> None:
        self.collector.wait_until_it_listens()
        self._pause(0.25)
        self.collector.hang_up()

    def frozen(self) -> None:
        self.collector.freeze()
        self._pause(self.chance.choice([0.5, 2, 5]))
        self.collector.thaw()

    def killed_while_frozen(self) -> None:
        self.collector.freeze()
        self._pause(2)
        self._again(signal.SIGKILL)

    def calm(self) -> None:
        self._weather(calm=True)

    def storm(self) -> None:
        self._weather(calm=False)

    def _weather(self, *, calm: bool) -> None:
        for link in self.links:
            link.calm = calm
        self._pause(2)

    def _again(self, number: int) -> None:
        self.collector.kill(number)
        self._pause(self.chance.choice([0.1, 0.5, 2]))
        self.collector.start()

    def _pause(self, most: float) -> None:
        time.sleep(self.chance.random() * most)

    def end(self) -> None:
        if self.collector.alive:
            self.collector.kill()
        for link in self.links:
            link.close()


def counted(collector: Mortal) -> Counts:
    """What the points say of each agent's rows."""
    found: Counts = {}
    for window in collector.points().values():
        for names, value in window.items():
            said = dict(names)
            if said["what"] in COUNTED and "agent_id" in said and "segment_name" not in said:
                found.setdefault(said["agent_id"], Counter())[said["what"]] += int(value)
    return found


def outcomes(collector: Mortal) -> Counter[str]:
    """What became of labels, of all agents together, and how many still wait."""
    found: Counter[str] = Counter()
    for window in collector.points().values():
        for names, value in window.items():
            said = dict(names)
            if said["what"] == "late_label_count" and "agent_id" not in said:
                found[said["reason"]] += int(value)
    ((waiting,),) = stored(collector.folder, "SELECT count(*) FROM labels_waiting")
    return found + Counter(waiting=int(waiting))


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_and_every_label_once_whatever_happens(seed: int, tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed)
    try:
        chaos.run()
        chaos.collector.end()
    finally:
        chaos.end()
    rows, labels = counted(chaos.collector), outcomes(chaos.collector)
    print(f"seed {seed}: {dict(chaos.happened)}, {sum(link.cuts for link in chaos.links)} cuts")
    for agent in chaos.agents:
        there = rows.get(agent.name, Counter())
        print(f"{agent.name}: {agent.publishers} publishers, {agent.issued} issued, {dict(there)}, "
              f"longest close {agent.longest_close:.1f} s")  # fmt: skip
    print(f"labels: {sum(a.labels for a in chaos.agents if isinstance(a, Arrays))} issued, {dict(labels)}")
    print(f"pods: {len(chaos.pods.pods)}, {sum(issued for issued, _ in chaos.pods.pods.values())} issued")
    for agent in chaos.agents:
        there = rows.get(agent.name, Counter())
        sent = agent.labels if isinstance(agent, Arrays) else 0
        settled = there.total() + (sum(labels.values()) - labels["repeated"] if sent else 0)
        assert settled == agent.issued + sent, (agent.name, there, sent)
    assert not labels["repeated"], "no id is used twice"
    for pod, (issued, acknowledged) in chaos.pods.pods.items():
        there = rows.get(pod, Counter())
        assert acknowledged <= there.total() <= issued, (pod, there, acknowledged, issued)
