"""A service whose model is watched: one line, and its own calls stay as they are."""

from __future__ import annotations

import sys
import time

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zmon


def main(batches: int) -> None:
    data = load_iris(as_frame=True)
    rows, names = data.data, data.target_names
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, names[data.target])

    with zmon.Publisher("iris") as publisher:
        model = zmon.watch(model, publisher)  # the line that zmon adds
        for _ in range(batches):
            model.predict_proba(rows.sample(20))  # what the service does anyway
            time.sleep(0.1)
        publisher.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"{publisher.stats.published} rows published")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
