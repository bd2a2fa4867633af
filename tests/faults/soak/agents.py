"""Many agents of many models in one process, with a publisher each: ``python -m tests.faults.soak.agents``.

Arguments are the collector's endpoint, a seed, the first model, how many, how many agents each has, and the seconds
between two batches of an agent, in the mean. Standard input takes ``again`` (some publishers end, others begin in their
place) and ``end``. Standard output says once a second which publishers wait for an acknowledgement and since when, and
at the end how many rows each agent has issued.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas

import zmon
from tests.support.waiting import until

CLASSES = ("no", "yes", "maybe")
SKEWS = (0.0,) * 16 + (-7.0, 3.0, 100.0, 1000.0)  # seconds that an agent's clock is wrong
AGAIN = 10  # publishers that begin again at once
BUSY = 0.03  # of the agents have so many rows that checkpoints of their windows are smaller


class Agent:
    """One agent of one model: rows of one form, now and then a bad batch, and labels that come later."""

    def __init__(self, model: str, agent: str, endpoint: str, chance: random.Random) -> None:
        self.name = f"{model}/{agent}"
        self.model, self.agent, self.endpoint = model, agent, endpoint
        self.chance = chance
        self.random = np.random.default_rng(chance.randrange(2**32))
        self.form = chance.choice([self.rows_of_dicts, self.arrays, self.labelled_arrays, self.frames])
        self.skew = chance.choice(SKEWS)
        self.batches = (300, 500) if chance.random() < BUSY else (1, 1, 3, 10, 30)  # rows
        self.issued = self.ids = 0
        self.unlabelled: deque[int] = deque()
        self.due = 0.0
        self.leaving = False
        self.publisher = self.begin()
        self.progress: tuple[int, float] | None = None  # rows settled, and since when no more were

    def begin(self) -> zmon.Publisher:
        small = self.form == self.frames
        return zmon.Publisher(
            self.model,
            classes=CLASSES,
            collector=self.endpoint,
            agent_id=self.agent,
            buffer_bytes=2**16 if small else 2**22,
            sample_rate=0.5 if small else 1.0,
        )

    def publish(self) -> None:
        burst = self.form == self.frames and self.chance.random() < 0.01  # more than its buffer holds
        for rows in [300] * 4 if burst else [self.chance.choice(self.batches)]:
            self.form(rows)
            self.issued += rows

    def times(self, rows: int) -> Any:
        return time.time() + self.skew - self.chance.choice([0, 0, 0, 0, 0, 0, 1, 15]) - self.random.random(rows)

    def outputs(self, rows: int) -> Any:
        return self.random.dirichlet(np.ones(3), rows)

    def rows_of_dicts(self, rows: int) -> None:
        for _ in range(rows):
            row = dict(zip(CLASSES, self.outputs(1)[0].tolist(), strict=True))
            self.publisher.publish(row, {"x": self.chance.random(), "colour": self.chance.choice(["red", "green"])})

    def arrays(self, rows: int) -> None:
        outputs = self.outputs(rows)
        if self.chance.random() < 0.02:
            outputs = self.chance.choice([outputs[:, :2], outputs * 3])
        segments = {"country": self.random.choice(["de", "fr"], rows).tolist()}
        self.publisher.publish(outputs, self.random.random((rows, 3)), segments=segments, timestamps=self.times(rows))

    def labelled_arrays(self, rows: int) -> None:
        ids = list(range(self.ids, self.ids + rows))
        self.ids += rows
        self.publisher.publish(
            self.outputs(rows), self.random.random((rows, 2)), ids=[f"{self.agent}-{i}" for i in ids],
            timestamps=self.times(rows),
        )  # fmt: skip
        self.unlabelled += ids
        if len(self.unlabelled) > 60:
            known = [self.unlabelled.popleft() for _ in range(30)]
            self.publisher.publish_labels([f"{self.agent}-{i}" for i in known], [CLASSES[i % 3] for i in known])

    def frames(self, rows: int) -> None:
        frame = pandas.DataFrame(self.random.random((rows, 8)), columns=[f"x{i}" for i in range(8)])
        frame["colour"] = self.random.choice(["red", "blue"], rows)
        self.publisher.publish(self.outputs(rows), frame, timestamps=self.times(rows))

    def waits_since(self, now: float) -> float | None:
        """Since when the publisher waits for an acknowledgement without getting any; None if it does not wait."""
        stats = self.publisher.stats
        if not stats.queued + stats.underway:
            self.progress = None
            return None
        settled = stats.acknowledged + sum(stats.rejected.values()) + sum(stats.dropped.values())
        if self.progress is None or self.progress[0] != settled:
            self.progress = settled, now
        return self.progress[1]

    def close(self) -> None:
        """End the publisher, which has reached the collector: one that never did would not wait."""
        until(lambda: self.publisher.stats.acknowledged or not self.publisher.stats.queued, "an acknowledgement")
        self.publisher.close(300)
        stats = self.publisher.stats
        assert "closed" not in stats.dropped, (self.name, stats)

    def again(self) -> None:
        """End the publisher and begin another one, while nothing is published."""
        self.close()
        self.publisher, self.progress = self.begin(), None
        self.leaving = False


def main(endpoint: str, seed: int, first: int, models: int, agents: int, every: int) -> None:
    chance = random.Random(seed)
    crowd = [
        Agent(f"model-{m}", f"pod-{a}", endpoint, random.Random(chance.randrange(2**32)))
        for m in range(first, first + models)
        for a in range(agents)
    ]
    sys.setswitchinterval(0.05)
    asked: deque[str] = deque()
    threading.Thread(target=lambda: asked.extend(iter(sys.stdin.readline, "")), daemon=True).start()
    with ThreadPoolExecutor(AGAIN) as pool:
        leaving: list[Any] = []
        told, ends = time.monotonic(), False
        for agent in crowd:
            agent.due = told + chance.random() * every
        while not ends:
            now = time.monotonic()
            for agent in crowd:
                if agent.due <= now and not agent.leaving:
                    agent.publish()
                    agent.due = now + chance.expovariate(1 / every)
            while asked:
                ends = asked.popleft().strip() == "end"
                if not ends:
                    for agent in chance.sample([each for each in crowd if not each.leaving], AGAIN):
                        agent.leaving = True
                        leaving.append(pool.submit(agent.again))
            if now >= told:
                told = now + 1.0
                waiting = {a.name: since for a in crowd if not a.leaving and (since := a.waits_since(now)) is not None}
                print(json.dumps({"waiting": waiting, "rows": sum(a.issued for a in crowd)}), flush=True)
            time.sleep(0.05)  # the load
        for each in leaving:
            each.result()
    print(json.dumps({"waiting": {}}), flush=True)
    with ThreadPoolExecutor(len(crowd)) as pool:
        list(pool.map(Agent.close, crowd))
    print(
        json.dumps({"issued": {agent.name: agent.issued for agent in crowd}, "began_again": len(leaving)}), flush=True
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
