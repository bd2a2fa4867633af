"""A service in a few lines: a scikit-learn classifier whose every batch is published.

Start ``zmon collect --window 5s`` beside it and look into zmon-data/anodot. Without a collector it runs just the same.
"""

from __future__ import annotations

import time

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import zmon

SECONDS = 15


def main() -> None:
    data = load_wine()
    train, serve, truth, later = train_test_split(data.data, data.target, random_state=0)
    model = RandomForestClassifier(random_state=0).fit(train, truth)

    with zmon.Publisher("wine", classes=list(data.target_names), features=data.feature_names) as publisher:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            probabilities = model.predict_proba(serve)  # what the service does anyway
            publisher.publish(probabilities, inputs=serve, labels=later)  # the line that zmon adds
            time.sleep(0.2)
        print(publisher.stats)


if __name__ == "__main__":
    main()
