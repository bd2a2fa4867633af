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


def cut(layout: tuple[bytes, str], rows: Rows, count: int, now: int) -> Pieces:
    """Return `count` rows as pieces, in as many as their size requires.

    `layout` is the hash of their schema and their kind; `now` the time of rows without timestamps.
    """
    if not count:
        return []
    nbytes = sum(array.nbytes for _, array in rows.columns)
    if count == 1 or (nbytes <= MESSAGE_BYTES and count <= MAX_ROWS):
        arrays, buffers = _bytes(rows)
        nbytes = sum(map(len, buffers))
        if nbytes <= MESSAGE_BYTES or count == 1:
            return [(RingLayout(layout[0], arrays, layout[1]), RingPiece(count, now, buffers), nbytes)]
    step = max(1, min(MESSAGE_BYTES * count // nbytes, MAX_ROWS))
    pieces: Pieces = []
    for start in range(0, count, step):
        part = rows.select(slice(start, start + step))
        part = part._replace(columns=[(name, array.copy()) for name, array in part.columns])  # frees the whole early
        pieces += cut(layout, part, min(step, count - start), now)
    return pieces


def _bytes(rows: Rows) -> tuple[tuple[tuple[str, str, int | None], ...], list[Bytes]]:
    arrays: list[tuple[str, str, int | None]] = []
    buffers: list[Bytes] = []
    for column, array in rows.columns:
        if column in rows.dictionaries:
            array, names = categories.compact(array, rows.dictionaries[column])
            array = categories.narrow(array, names)
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
    return tuple(arrays), buffers


def _native(array: Array) -> Array:
    """Return the same values in a dtype that the wire has: little-endian, at most 64 bits."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="))
