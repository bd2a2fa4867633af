"""A canary: every tenth batch goes to version 2. The version is part of every series, so the two are never blended."""

from __future__ import annotations

import sys
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import zmon


def main(batches: int) -> None:
    data = load_digits()
    rows, labels = data.data[1000:], data.target[1000:]
    old = GaussianNB().fit(data.data[:1000], data.target[:1000])
    new = LogisticRegression(max_iter=2000).fit(data.data[:1000], data.target[:1000])
    random = np.random.default_rng(0)

    with zmon.Publisher("digits", version="1") as one, zmon.Publisher("digits", version="2") as two:
        stable, canary = zmon.watch(old, one), zmon.watch(new, two)
        for number in range(batches):
            some = random.integers(0, len(rows), 20)
            publisher, model = (two, canary) if number % 10 == 9 else (one, stable)
            with publisher.context(labels=labels[some]):
                model.predict_proba(rows[some])
            time.sleep(0.02)
        for each in (one, two):
            each.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"{one.stats.published} rows of version 1, {two.stats.published} of version 2 published")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 750)
