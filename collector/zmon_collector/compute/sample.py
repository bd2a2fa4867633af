"""The keyed row sample: uniform, mergeable, the same whatever the order and the split. Pure.

Each row has a key, a hash of (stream, row number). A sample holds the rows with the smallest keys, and a bound: every
row with a key below the bound is in it. So samples merge exactly (union below the least bound, keep the
smallest), and once a sample is full almost every row is passed over by one comparison.
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
    """A 64-bit seed for a stream's keys."""
    return int.from_bytes(blake2b(stream, digest_size=8).digest(), "little")


def row_keys(seeds: NDArray[np.uint64] | np.uint64, numbers: NDArray[np.uint64]) -> Keys:
    """Keys of the rows with these numbers: SplitMix64 (Steele, Lea and Flood, 2014) from each stream's seed.

    `seeds` is one for all rows or one per row.
    """
    with np.errstate(over="ignore"):
        x = seeds + numbers * _INCREMENT
        x = (x ^ (x >> _30)) * _MIX_1
        x = (x ^ (x >> _27)) * _MIX_2
        keys: Keys = x ^ (x >> _31)
        return keys


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows with keys below `bound`, all of them that there were.

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
    def complete(self) -> bool:
        return self.bound == TOP


def draw(batches: Sequence[Batch], keys: Keys, size: int, bound: int = TOP) -> Sample:
    """The sample of these batches' rows: at most `size`, none at or above `bound`. `keys` are those of all rows."""
    below = np.arange(len(keys)) if bound == TOP else np.flatnonzero(keys < np.uint64(bound))
    found = keys[below]
    if len(found) > size:
        parted = np.argpartition(found, size)
        bound = int(found[parted[size]])
        below = np.sort(below[parted[:size]])
        found = keys[below]
    order = np.argsort(found)
    return Sample(found[order], _rows(batches, below).take(order), bound)


def merge(samples: Sequence[Sample], size: int) -> Sample:
    """The sample of all: as if drawn from all their rows at once."""
    keys = np.concatenate([each.keys for each in samples])
    return draw([each.batch for each in samples], keys, size, min(each.bound for each in samples))


def _rows(batches: Sequence[Batch], positions: NDArray[np.intp]) -> Batch:
    """The rows at these places, ascending, in the batches one behind the other; no other row is copied."""
    starts = np.cumsum([0, *(batch.rows for batch in batches)])
    cuts = np.searchsorted(positions, starts)
    taken = []
    for batch, start, low, high in zip(batches, starts.tolist(), cuts.tolist(), cuts[1:].tolist(), strict=False):
        if high - low == batch.rows:
            taken.append(batch)
        elif high > low:
            taken.append(batch.take(positions[low:high] - start))
    return concat(batches[0].schema, taken or [batches[0].take(slice(0, 0))])


def row_bytes(batch: Batch) -> int:
    """Bytes a row of this batch takes in a sample."""
    columns: Any = batch.raw().values()
    return 8 + int(sum(column.nbytes // max(1, batch.rows) for column in columns))
