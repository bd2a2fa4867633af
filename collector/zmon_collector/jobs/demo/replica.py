"""Serving process of the demonstration: a random forest on scikit-learn's digits, published with zmon.

Run as ``python -m zmon_collector.jobs.demo.replica``. It prints ``ready``, then reads its plan as one JSON line from
standard input.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import zmon

BATCH = 20  # rows
EVERY = 0.1  # seconds
FEATURES = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
WHITE = 16.0  # the brightest pixel

Images = NDArray[np.float64]


class Traffic:
    """A trained classifier, and requests drawn from images that it was not trained on."""

    def __init__(self, seed: int) -> None:
        digits = load_digits()
        seen, self._images, target, self._labels = train_test_split(
            digits.data, digits.target, test_size=0.5, random_state=0, stratify=digits.target
        )
        self.model = RandomForestClassifier(n_estimators=40, random_state=0).fit(seen, target)
        self._random = np.random.default_rng(seed)

    def batch(self, *, inverted: bool) -> tuple[Images, NDArray[np.int64]]:
        """Return images and their labels; with `inverted`, dark and light are swapped."""
        rows = self._random.integers(0, len(self._images), BATCH)
        images = self._images[rows]
        return (WHITE - images if inverted else images), self._labels[rows]

    def reference(self) -> zmon.Profile:
        """Return the reference profile of the demonstration, from the images that it was not trained on."""
        return zmon.profile(
            self.model.predict_proba(self._images), self._images, self._labels, classes=10, features=FEATURES
        )


def moments(start: float, end: float, *, replay: bool) -> Iterator[float]:
    """Yield the times at which batches are served: at intervals until `end`, or all at once to replay history.

    A batch that is overdue is still served, so a machine that stalled catches up.
    """
    if replay:
        yield from np.arange(start + EVERY / 2, end, EVERY)
        return
    due = start
    while due < end:
        time.sleep(max(0.0, due - time.time()))
        yield due
        due += EVERY


def main() -> None:
    """Serve according to the plan."""
    agent, seed = sys.argv[1], int(sys.argv[2])
    traffic = Traffic(seed)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    plan = json.loads(sys.stdin.readline())
    with zmon.Publisher(
        "digits", classes=10, collector=plan["data"], control=plan["control"], agent_id=agent, features=FEATURES
    ) as publisher:
        for moment in moments(plan["start"], plan["end"] or math.inf, replay=plan["replay"]):
            window = int(moment // plan["period"]) - plan["start"] // plan["period"]
            images, labels = traffic.batch(inverted=window % plan["cycle"] in plan["inverted"])
            publisher.publish(traffic.model.predict_proba(images), images, labels, timestamps=moment)
        if not publisher.flush(10.0):
            sys.exit("the collector did not acknowledge everything")


if __name__ == "__main__":
    main()
