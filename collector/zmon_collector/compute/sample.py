"""The keyed row sample: uniform, mergeable, the same whatever the order and the split. Pure.

Each row has a key, a hash of (stream, row number). A sample holds the rows with the smallest keys, and a bound: every
row with a key below the bound is in it. So samples merge exactly (their union below the least bound, of which the
smallest keys are kept), and once a sample is full almost every row is passed over by one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmon.batch import Batch, concat

Keys = NDArray[np.uint64]
TOP = 2**64 - 1  # a bound above every key but one

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def stream_seed(stream: bytes) -> int:
    """Return a 64-bit seed for a stream's keys."""
    return int.from_bytes(blake2b(stream, digest_size=8).digest(), "little")


def row_keys(seeds: NDArray[np.uint64] | np.uint64, numbers: NDArray[np.uint64]) -> Keys:
    """Return the keys of rows with these numbers: SplitMix64 (Steele, Lea and Flood, 2014) from each stream's seed.

    `seeds` is one for all rows, or one per row.
    """
    with np.errstate(over="ignore"):
        x = seeds + numbers * _INCREMENT
        x = (x ^ (x >> _30)) * _MIX_1
        x = (x ^ (x >> _27)) * _MIX_2
        keys: Keys = x ^ (x >> _31)
        return keys


@dataclass(frozen=True, slots=True)
class Sample:
    """All rows with keys below `bound`.

    Attributes
    ----------
    keys : ndarray of uint64
        Ascending.
    batch : Batch
        The rows, in the keys' order.
    bound : int
        `TOP` while the sample holds every row it has seen.
    """

    keys: Keys
    batch: Batch
    bound: int = TOP

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(self.keys.nbytes) + self.batch.nbytes


AgentSamples = dict[str | None, Sample | None]  # by agent, None for the rollup


def draw(batches: Sequence[Batch], keys: Keys, size: int, bound: int = TOP) -> Sample:
    """Draw at most `size` rows of these batches, none at or above `bound`; `keys` are those of all rows."""
    below = np.arange(len(keys)) if bound == TOP else np.flatnonzero(keys < np.uint64(bound))
    drawn = keys[below]
    if len(drawn) > size:
        parted = np.argpartition(drawn, size)
        bound = int(drawn[parted[size]])
        below = np.sort(below[parted[:size]])
        drawn = keys[below]
    order = np.argsort(drawn)
    return Sample(drawn[order], _rows(batches, below).take(order), bound)


def merge(samples: Sequence[Sample], size: int) -> Sample:
    """Merge samples: the result is as if drawn from all their rows at once."""
    keys = np.concatenate([sample.keys for sample in samples])
    return draw([sample.batch for sample in samples], keys, size, min(sample.bound for sample in samples))


def _rows(batches: Sequence[Batch], positions: NDArray[np.intp]) -> Batch:
    """Return the rows at these ascending positions in the concatenated batches; no other row is copied."""
    starts = np.cumsum([0, *(batch.rows for batch in batches)])
    cuts = np.searchsorted(positions, starts)
    parts = []
    for batch, start, low, high in zip(batches, starts.tolist(), cuts.tolist(), cuts[1:].tolist(), strict=False):
        if high - low == batch.rows:
            parts.append(batch)
        elif high > low:
            parts.append(batch.take(positions[low:high] - start))
    return concat(batches[0].schema, parts or [batches[0].take(slice(0, 0))]).compacted()


def row_bytes(batch: Batch) -> int:
    """Return the bytes that a row of this batch takes in a sample."""
    columns: Any = batch.raw().values()
    return 8 + int(sum(column.nbytes // max(1, batch.rows) for column in columns))
