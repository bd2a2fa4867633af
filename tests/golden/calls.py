"""Calls that every release takes, published by a process of that release: it reads this file, so it imports no test."""

from __future__ import annotations

from typing import Any

import numpy as np

OLD = 1_700_000_040


def calls(publisher: Any) -> None:
    """Publish three minutes of batches and single rows, labels now and later, and broken ones."""
    random = np.random.default_rng(3)
    for minute in range(3):
        start = OLD + 60 * minute
        p = random.dirichlet(np.ones(3), 50)
        rows = [{"age": float(i), "colour": "rgb"[i % 3], "vip": i % 2 == 0} for i in range(50)]
        ids = [f"{minute}-{i}" for i in range(50)]
        labels = ["a", "b", None, "c", "a"] * 10
        publisher.publish(p, rows, labels, ids=ids, segments={"country": ["de", "fr"] * 25}, timestamps=start)
        for i in range(20):
            publisher.publish(p[i : i + 1], rows[i : i + 1], timestamps=start + 0.5)
        publisher.publish(np.full((7, 3), np.nan), timestamps=start)
        publisher.publish(predictions=["a", "c"], timestamps=start)
        assert publisher.flush(60)
        publisher.publish_labels(ids[2::5], ["b"] * 10, start + 1)
        assert publisher.flush(60)
