"""Three replicas of one model, each a process and an agent; the collector gives each one's series and those of all."""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import zmon

REPLICAS = 3


def replica(number: int, batches: int) -> None:
    data = load_digits()
    bare = LogisticRegression(max_iter=2000).fit(data.data[:1000], data.target[:1000])
    rows, labels = data.data[1000:], data.target[1000:]
    random = np.random.default_rng(number)
    with zmon.Publisher("digits", agent_id=f"replica-{number}") as publisher:
        model = zmon.watch(bare, publisher)
        for _ in range(batches):
            some = random.integers(0, len(rows), 10 * (number + 1))  # the load is not even
            given = 16 - rows[some] if number == 2 else rows[some]  # and the last one's inputs are inverted
            with publisher.context(labels=labels[some]):
                model.predict_proba(given)
            time.sleep(0.05)
        publisher.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"replica-{number}: {publisher.stats.published} rows published", flush=True)


def main(batches: int) -> None:
    start = multiprocessing.get_context("spawn").Process
    replicas = [start(target=replica, args=(number, batches)) for number in range(REPLICAS)]
    for each in replicas:
        each.start()
    for each in replicas:
        each.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
