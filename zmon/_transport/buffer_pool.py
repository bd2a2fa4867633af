"""Copies of arrays, the large ones in memory that is used again. Holds no lock: may be used by many threads.

Fresh memory comes page by page, at a fault each: for a large batch these take ten times as long as the copy itself.
"""

from __future__ import annotations

import weakref

import numpy as np

from zmon.batch import Array

LARGE = 128 * 2**10  # bytes from which malloc takes memory from the system and gives it back


class BufferPool:
    """Makes snapshots.

    Parameters
    ----------
    keep : int
        Bytes of memory without a use that are kept for later copies.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: dict[int, list[Array]] = {}  # by size, powers of two

    def take(self, array: Array) -> bytes | memoryview:
        """The array's bytes in C order, which nobody else changes."""
        nbytes = array.nbytes
        if nbytes < LARGE:
            return array.tobytes()
        size = 1 << (nbytes - 1).bit_length()
        try:
            memory = self._free[size].pop()  # the one used last: it is likeliest to be in a cache
        except LookupError:
            memory = np.empty(size, dtype=np.uint8)
        copy = memory[:nbytes]
        np.copyto(copy.view(array.dtype).reshape(array.shape), array)
        # Whoever holds the copy, the ring or a socket, holds the memory; it comes back when the last of them lets go.
        weakref.finalize(copy, self._give_back, memory).atexit = False
        return copy.data

    def _give_back(self, memory: Array) -> None:
        if memory.size + sum(size * len(free) for size, free in list(self._free.items())) <= self._keep:
            self._free.setdefault(memory.size, []).append(memory)
