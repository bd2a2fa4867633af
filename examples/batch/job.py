"""A nightly job: yesterday's rows are scored in chunks, each with the time and the id it had."""

from __future__ import annotations

import sys
import time

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import zmon

CHUNK = 100
DAY = 86_400.0


def main() -> int:
    data = load_breast_cancer(as_frame=True)
    bare = RandomForestClassifier(50, random_state=0).fit(data.data[:300], data.target[:300])
    night = data.data[300:]
    came = np.linspace(time.time() - DAY, time.time() - DAY / 2, len(night))  # when each row came in

    with zmon.Publisher("tumours", classes=[0, 1], agent_id="nightly") as publisher:
        model = zmon.watch(bare, publisher)
        for start in range(0, len(night), CHUNK):
            chunk = night[start : start + CHUNK]
            with publisher.context(ids=chunk.index.to_numpy(), timestamps=came[start : start + CHUNK]):
                model.predict_proba(chunk)
        # A job ends at once: wait until the collector has it all.
        arrived = publisher.flush(timeout=30)
        print(f"{publisher.stats.published} rows published, {publisher.stats.acknowledged} acknowledged")
    return 0 if arrived else 1


if __name__ == "__main__":
    sys.exit(main())
