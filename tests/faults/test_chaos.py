"""Everything at once, at random: links that cut, a collector that is killed and stopped, publishers that come and go.

The model's side sends dicts, arrays whose labels come later, and frames of which some are left out or wrong. At the end
each row of each agent is in a point or counted, and each label has one outcome.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import zmon
from tests.faults.harness import FULL
from tests.support.databases import stored
from tests.support.mortal import Mortal
from tests.support.proxy import Proxy
from tests.support.waiting import until

SECONDS = 15.0 if FULL else 10.0
SEEDS = range(20 if FULL else 1)
COUNTED = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")
CLASSES = ("no", "yes", "maybe")
CONFIG = """
[collector]
window = "3s"
grace = "500ms"
idle = "2s"
max_wait = "3s"
[metrics]
preset = "full"
[web]
enabled = false
"""


class Agent(ABC):
    """A process of the model: it publishes, and now and then its publisher ends and another one begins."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def __init__(self, number: int, links: tuple[Proxy, Proxy], chance: random.Random) -> None:
        self.agent = f"{self.name}-{number}"
        self.links = links
        self.chance = chance
        self.random = np.random.default_rng(chance.randrange(2**32))
        self.issued = 0  # rows
        self.again = threading.Event()  # set: its publisher is to end, and another one to begin
        self.publisher = self._begin()

    def _begin(self) -> zmon.Publisher:
        data, control = (link.endpoint for link in self.links)
        return zmon.Publisher(
            "m", classes=CLASSES, collector=data, control=control, agent_id=self.agent, **self.options
        )

    def live(self, stop: threading.Event) -> None:
        while not stop.wait(self.chance.random() * 0.02):  # the load
            self.publish(int(self.chance.choice([1, 1, 5, 40])))
            if self.again.is_set():
                self.end()
                self.publisher = self._begin()
                self.again.clear()

    @abstractmethod
    def publish(self, rows: int) -> None:
        """Publish so many rows, and add to `issued`."""

    def end(self) -> None:
        self.publisher.close(60)
        assert "closed" not in self.publisher.stats.dropped, self.publisher.stats

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
    """Arrays of rows with ids; their labels come later, some twice, some for rows that never were."""

    name = "arrays"
    ids = count()

    def __init__(self, number: int, links: tuple[Proxy, Proxy], chance: random.Random) -> None:
        self.unlabelled: deque[int] = deque()
        self.labels = 0
        super().__init__(number, links, chance)

    def publish(self, rows: int) -> None:
        ids = [next(self.ids) for _ in range(rows)]
        self.publisher.publish(self.outputs(rows), self.random.random((rows, 3)), ids=ids, timestamps=self.times(rows))
        self.issued += rows
        self.unlabelled += ids
        while len(self.unlabelled) > 300:
            known = [self.unlabelled.popleft() for _ in range(50)]
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


class Chaos:
    """One run: a collector behind two links, three agents, and what happens to all of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.collector = Mortal(folder, CONFIG)
        port = int(self.collector.endpoint.rpartition(":")[2])
        self.links = Proxy(port, self._fork()), Proxy(port + 1, self._fork())
        self.agents = [kind(0, self.links, self._fork()) for kind in (Dicts, Arrays, Frames)]
        self.happened: Counter[str] = Counter()
        self.stop = threading.Event()

    def _fork(self) -> random.Random:
        return random.Random(self.chance.randrange(2**32))

    def run(self) -> None:
        self.collector.start()
        threads = [threading.Thread(target=agent.live, args=(self.stop,)) for agent in self.agents]
        for thread in threads:
            thread.start()
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                self._happens()
        finally:
            self.stop.set()
            self._calm(True)
            if not self.collector.alive:
                self.collector.start()
            for thread in threads:
                thread.join()
        for agent in self.agents:
            agent.publisher.flush(60)
            agent.end()

    def _happens(self) -> None:
        what = self.chance.choice(["kill", "terminate", "freeze", "calm", "storm", "die while starting", "begin again"])
        self.happened[what] += 1
        collector = self.collector
        match what:
            case "kill" | "terminate":
                collector.wait_until_up()
                time.sleep(self.chance.random() * 2)  # the life
                collector.kill(signal.SIGKILL if what == "kill" else signal.SIGTERM)
                time.sleep(self.chance.random() * 0.5)
                collector.start()
            case "die while starting":
                time.sleep(self.chance.random())
                collector.kill()
                collector.start()
            case "begin again":
                # While the collector is there: of what a publisher holds that gives up nobody hears.
                collector.wait_until_up()
                self._calm(True)
                agent = self.chance.choice(self.agents)
                agent.again.set()
                until(lambda: not agent.again.is_set(), "the next publisher")
            case "freeze":
                collector.freeze()
                time.sleep(self.chance.random() * 2)
                collector.thaw()
            case _:
                self._calm(what == "calm")
                time.sleep(self.chance.random())

    def _calm(self, calm: bool) -> None:
        for link in self.links:
            link.calm = calm

    def end(self) -> None:
        if self.collector.alive:
            self.collector.kill()
        for link in self.links:
            link.close()


def counted(collector: Mortal) -> dict[str, Counter[str]]:
    """What the points say of each agent's rows."""
    found: dict[str, Counter[str]] = {}
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


@pytest.mark.timeout(300)
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
        there = rows.get(agent.agent, Counter())
        print(f"{agent.agent}: {agent.issued} issued, {dict(there)}")
    print(f"labels: {dict(labels)}")
    for agent in chaos.agents:
        there = rows.get(agent.agent, Counter())
        sent = agent.labels if isinstance(agent, Arrays) else 0
        settled = there.total() + (sum(labels.values()) - labels["repeated"] if sent else 0)
        assert settled == agent.issued + sent, (agent.agent, there, sent)
    assert not labels["repeated"], "no id is used twice"
