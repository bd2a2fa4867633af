"""Arrays, the large ones in memory that is reused. Holds no lock; safe to use from many threads.

The system hands out fresh memory page by page, with a fault for each: for a large batch this takes ten times as long
as the copy itself.
"""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import numpy as np

from zmon.batch import Array

KEEP = 32 * 2**20  # bytes of memory kept for later arrays, in the whole process
LARGE = 128 * 2**10  # bytes from which malloc gets memory from the system and returns it there


class BufferPool:
    """Memory for snapshots.

    Parameters
    ----------
    keep : int
        Bytes of unused memory to keep for later arrays.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: dict[int, list[Array]] = {}  # by size, powers of two

    @property
    def unused(self) -> int:
        """Bytes kept for later arrays."""
        return sum(size * len(free) for size, free in list(self._free.items()))

    def copy(self, array: Array) -> Array:
        """Return a copy of an array, in C order."""
        if array.nbytes < LARGE:
            return array.copy()
        copy = self.empty(array.shape, array.dtype)
        np.copyto(copy, array)
        return copy

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array in C order whose values are whatever was there."""
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < LARGE:
            return np.empty(shape, dtype)
        size = 1 << (nbytes - 1).bit_length()
        try:
            memory = self._free[size].pop()  # the one used last is the likeliest to be in a cache
        except LookupError:
            memory = np.empty(size, dtype=np.uint8)
        view = memory[:nbytes]
        # Whoever holds the array, or a slice of it, also holds the view: through a buffer, because the bases of arrays
        # are collapsed to the memory itself. The memory returns when the last of them is dropped.
        weakref.finalize(view, self._give_back, memory).atexit = False
        return np.frombuffer(view.data, dtype=dtype).reshape(shape)

    def clear(self) -> None:
        """Free the memory that is kept for later copies."""
        self._free.clear()

    def _give_back(self, memory: Array) -> None:
        if memory.size + self.unused <= self._keep:
            self._free.setdefault(memory.size, []).append(memory)


POOL = BufferPool(KEEP)
