"""A TensorFlow classifier of digits in three scenarios: a good model, inverted inputs, a bad training set."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import zmon

SCENARIOS = ("good", "inverted", "unbalanced")


def trained(rows: Any, labels: Any) -> Any:
    """A small network, trained in a few seconds."""
    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.layers.Dense(64, activation="relu"), tf.keras.layers.Dense(10, activation="softmax")]
    network = tf.keras.Sequential([tf.keras.layers.Input((64,)), *layers])
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(rows, labels, epochs=8, verbose=0)
    return network


def main(scenario: str, batches: int) -> None:
    data = load_digits()
    rows, labels = (data.data / 16).astype(np.float32), data.target
    random = np.random.default_rng(0)
    seen = np.arange(1200)
    if scenario == "unbalanced":  # nearly all of the training set shows odd digits
        seen = seen[(labels[seen] % 2 == 1) | (random.random(len(seen)) < 0.03)]
    network = trained(rows[seen], labels[seen])

    with zmon.Publisher("digits", classes=[str(digit) for digit in range(10)], agent_id=scenario) as publisher:
        model = zmon.watch(network, publisher, output="proba")
        for _ in range(batches):
            some = random.integers(1200, len(rows), 20)
            given = 1 - rows[some] if scenario == "inverted" else rows[some]
            with publisher.context(labels=labels[some]):
                model(given)
            time.sleep(0.05)
        publisher.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"{publisher.stats.published} rows published")


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "good"
    if chosen not in SCENARIOS:
        sys.exit(f"usage: serve.py [{'|'.join(SCENARIOS)}] [BATCHES]")
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 300)
