"""The rows on which zmon's engine and others compute. Needs NumPy alone, because others' environments import it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

ROWS, FEATURES, BLOCK = 200_000, 784, 1000
KEPT = 16  # blocks that are drawn; after these they come again, so that drawing does not count and memory is small


def blocks(rows: int) -> Iterator[np.ndarray]:
    """float32 matrices of 1,000 rows each."""
    kept = _kept()
    return (kept[number % KEPT] for number in range(rows // BLOCK))


@cache
def _kept() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((BLOCK, FEATURES), dtype=np.float32) for _ in range(KEPT)]
