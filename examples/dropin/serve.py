"""A service whose model is watched: one line, and its own calls stay as they are."""

from __future__ import annotations

import sys
import time

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zmon


def main(seconds: float) -> None:
    data = load_iris(as_frame=True)
    rows, names = data.data, data.target_names
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, names[data.target])

    with zmon.Publisher("iris") as publisher:
        model = zmon.watch(model, publisher)  # the line that zmon adds
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            model.predict_proba(rows.sample(20))  # what the service does anyway
            time.sleep(0.1)
        print(f"{publisher.stats.published} rows published")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 15.0)
