"""A regressor: what it predicts is published as values, with the truth where it is known."""

from __future__ import annotations

import sys
import time

from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor

import zmon


def main(batches: int) -> None:
    data = load_diabetes(as_frame=True)
    bare = HistGradientBoostingRegressor(random_state=0).fit(data.data[:300], data.target[:300])
    serve, truth = data.data[300:], data.target[300:]

    with zmon.Publisher("diabetes", task="regression") as publisher:
        model = zmon.watch(bare, publisher)
        for _ in range(batches):
            rows = serve.sample(20)
            with publisher.context(labels=truth[rows.index]):
                model.predict(rows)
            time.sleep(0.1)
        publisher.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"{publisher.stats.published} rows published")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
