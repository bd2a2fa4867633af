"""First pass over the rows of a reference: moments, categories, and a uniform sample that determines the bins. Pure.

Bounded for any number of rows. The sample holds the rows with the smallest random keys.
"""

from __future__ import annotations

import numpy as np

from zmon.batch import Array, Batch, Schema, concat

SAMPLE_BYTES = 64 * 2**20
SAMPLE_ROWS = 50_000
TRACKED = 2**16  # categories of a column that are counted; rows of further categories are `other`


class Sketch:
    """A mergeable accumulator over the rows so far; every batch is aligned to `schema`.

    Sketches that are to be merged need different seeds, or their samples would prefer the same rows.
    """

    def __init__(self, schema: Schema, seed: int = 0) -> None:
        self.schema = schema
        self.rows = 0
        columns = len(schema.numeric)
        self.n = np.zeros(columns, dtype=np.int64)
        self.mean, self.m2 = np.zeros(columns), np.zeros(columns)
        self.low, self.high = np.full(columns, np.inf), np.full(columns, -np.inf)
        self.categories: list[dict[str, int]] = [{} for _ in schema.categorical]
        self.other, self.missing = ([0] * len(self.categories) for _ in range(2))
        self.sample: Batch | None = None
        width = 8 * (columns + len(schema.classes) + 2)
        self.limit = min(SAMPLE_ROWS, max(1000, SAMPLE_BYTES // width))
        self._keys = np.empty(0)
        self._random = np.random.default_rng(seed)

    @property
    def error(self) -> float:
        """Standard error of the rank of a quantile taken from the sample, at most √(¼ / rows of it)."""
        kept = len(self._keys)
        return 0.0 if self.rows <= kept else 0.5 / float(np.sqrt(kept))

    def add(self, batch: Batch) -> None:
        """Add rows."""
        batch = batch.aligned(self.schema)
        self.rows += batch.rows
        held = batch.columns
        if "inputs" in held:
            self._merge_moments(*_moments(batch.inputs.astype(np.float64)))
        if "codes" in held:
            for i, names in enumerate(batch.categories):
                counts = np.bincount(batch.codes[:, i] + 1, minlength=len(names) + 1)
                self.missing[i] += int(counts[0])
                self._count(i, {name: int(n) for name, n in zip(names, counts[1:], strict=True) if n})
        kept = {"inputs", "probabilities", "predictions"} & batch.raw().keys()
        keys = self._random.random(batch.rows)
        if kept:
            self._keep(batch.only(kept), keys)

    def merge(self, other: Sketch) -> None:
        """Add the rows of another sketch of the same schema."""
        self.rows += other.rows
        self._merge_moments(other.n, other.mean, other.m2, other.low, other.high)
        for i, counts in enumerate(other.categories):
            self.missing[i] += other.missing[i]
            self.other[i] += other.other[i]
            self._count(i, counts)
        if other.sample is not None:
            self._keep(other.sample, other._keys)

    def _merge_moments(self, n: Array, mean: Array, m2: Array, low: Array, high: Array) -> None:
        """Merge moments by Chan's update."""
        both = np.maximum(self.n + n, 1)
        delta = mean - self.mean
        self.m2 += m2 + delta * delta * self.n * (n / both)
        self.mean += delta * (n / both)
        self.n = self.n + n
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def _count(self, column: int, counts: dict[str, int]) -> None:
        tracked = self.categories[column]
        for name, n in counts.items():
            if name in tracked or len(tracked) < TRACKED:
                tracked[name] = tracked.get(name, 0) + n
            else:
                self.other[column] += n

    def _keep(self, batch: Batch, keys: Array) -> None:
        if len(self._keys) >= self.limit:  # most rows are dropped without a copy
            near = np.flatnonzero(keys < self._keys.max())
            batch, keys = batch.take(near), keys[near]
        if not len(keys):
            return
        if self.sample is not None:
            batch = concat(self.schema, [self.sample, batch])  # either may lack columns
            keys = np.concatenate([self._keys, keys])
        if len(keys) > self.limit:
            least = np.sort(np.argpartition(keys, self.limit)[: self.limit])
            keys, batch = keys[least], batch.take(least)
        self._keys, self.sample = keys, batch


def _moments(values: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Return count, mean, squared deviations, least and greatest of each column's finite values."""
    finite = np.isfinite(values)
    n = np.count_nonzero(finite, axis=0)
    with np.errstate(all="ignore"):
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(n, 1)
        m2 = (np.where(finite, values - mean, 0.0) ** 2).sum(axis=0)
    low = np.where(finite, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf)
    return n, mean, m2, low, high
