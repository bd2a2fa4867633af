"""Predictions with ids, and labels that come later from another process: shuffled, some twice, one unknown."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

import zmon

CLASSES = ["ok", "fraud"]


def truth(order: int) -> str:
    """What becomes known of an order."""
    return "fraud" if np.random.default_rng(order).random() < 0.2 else "ok"


def score(order: int) -> float:
    """A model that is right in most cases."""
    random = np.random.default_rng(order)
    fraud = random.random() < 0.2
    return float(np.clip(random.normal(0.75 if fraud else 0.2, 0.2), 0, 1))


def serve(batches: int, first: int) -> None:
    with zmon.Publisher("orders", classes=CLASSES, agent_id="scorer") as publisher:
        order = first
        for _ in range(batches):
            numbers = range(order, order + 20)
            publisher.publish(np.array([score(each) for each in numbers]), ids=list(numbers))
            order += 20
            time.sleep(0.1)
        if not publisher.flush(30.0):
            sys.exit("no collector took the predictions")
        print(f"{publisher.stats.published} rows published")
    subprocess.run([sys.executable, __file__, "labels", str(first), str(order)], check=True)


def tell(first: int, last: int) -> None:
    orders = np.random.default_rng(0).permutation(np.arange(first, last))
    orders = np.concatenate([orders, orders[:10], [first - 1]])  # ten twice, and one that nobody scored
    with zmon.Publisher("orders", classes=CLASSES, agent_id="back-office") as publisher:
        for some in np.array_split(orders, 10):
            publisher.publish_labels(some, [truth(int(each)) for each in some])
        if not publisher.flush(30.0):
            sys.exit("no collector took the labels")
        print(f"{publisher.stats.labels} labels published")


if __name__ == "__main__":
    if sys.argv[1:2] == ["labels"]:
        tell(int(sys.argv[2]), int(sys.argv[3]))
    else:
        serve(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(time.time()) * 1000)
