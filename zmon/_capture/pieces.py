"""Cuts converted rows into pieces of at most one message, as bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon import categories
from zmon._transport.ring import Bytes, RingLayout, RingPiece
from zmon._wire.checks import MAX_ROWS, NUMBERS
from zmon.batch import Array
from zmon.categories import Dictionaries

MESSAGE_BYTES = 4 * 2**20  # a larger batch travels as several messages
COPIED = 4096  # bytes; a smaller array is copied, because a view costs more
BLOBS = {"codes": "categories", "segments": "segment_values", "texts": "text_values"}

_WIRE_DTYPES: dict[np.dtype[Any], str] = {np.dtype(code): code for code in NUMBERS}

Pieces = list[tuple[RingLayout, RingPiece, int]]  # with the bytes of each piece's buffers


class Rows(NamedTuple):
    """Columns of one length, and the dictionaries of those that hold codes."""

    columns: Sequence[tuple[str, Array]]
    dictionaries: dict[str, Dictionaries]

    def select(self, index: Any) -> Rows:
        """Return the rows of a mask or a slice."""
        return Rows([(column, array[index]) for column, array in self.columns], self.dictionaries)


def cut(layout: tuple[bytes, str], rows: Rows, count: int, now: int, most: int = MAX_ROWS) -> Pieces:
    """Return `count` rows as pieces of at most `most` rows, in as many as their size requires.

    `layout` is the hash of their schema and their kind; `now` the time of rows without timestamps.
    """
    if not count:
        return []
    nbytes, names = sum(array.nbytes for _, array in rows.columns), 0
    if count == 1 or (nbytes <= MESSAGE_BYTES and count <= most):
        arrays, buffers, names = _bytes(rows)
        nbytes = sum(map(len, buffers))
        if (nbytes <= MESSAGE_BYTES and names <= categories.MAX_NAMES) or count == 1:
            return [(RingLayout(layout[0], arrays, layout[1]), RingPiece(count, now, buffers), nbytes)]
    parts = max(nbytes / MESSAGE_BYTES, names / categories.MAX_NAMES)
    step = max(1, min(int(count / parts), most))
    pieces: Pieces = []
    for start in range(0, count, step):
        part = rows.select(slice(start, start + step))
        part = part._replace(columns=[(name, array.copy()) for name, array in part.columns])  # frees the whole early
        pieces += cut(layout, part, min(step, count - start), now, most)
    return pieces


def _bytes(rows: Rows) -> tuple[tuple[tuple[str, str, int | None], ...], list[Bytes], int]:
    """Return the arrays as they are described and their bytes, and the most names of a dictionary blob."""
    most = 0
    arrays: list[tuple[str, str, int | None]] = []
    buffers: list[Bytes] = []
    for column, array in rows.columns:
        if column in rows.dictionaries:
            array, names = categories.compact(array, rows.dictionaries[column])
            array = categories.narrow(array, names)
            most = max(most, sum(map(len, names)))
            arrays.append((BLOBS[column], "|u1", None))
            buffers.append(categories.encode(len(array), names))
        code = _WIRE_DTYPES.get(array.dtype)
        if code is None:
            array = _native(array)
            code = _WIRE_DTYPES.get(array.dtype, array.dtype.str)
        arrays.append((column, code, array.shape[1] if array.ndim == 2 else None))
        if array.nbytes <= COPIED or not array.flags.c_contiguous:
            buffers.append(array.tobytes())
        else:
            buffers.append(array.reshape(-1).view(np.uint8).data)
    return tuple(arrays), buffers, most


def _native(array: Array) -> Array:
    """Return the same values in a dtype that the wire has: little-endian, at most 64 bits."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="))
