"""Rows as the journal keeps them: the rows that one turn settled in one window, as bytes and back. Pure.

A chunk is ``b"ZC"``, a version byte, a spare byte, the header's length (4 bytes, little-endian), the header (msgpack)
and the arrays' raw bytes. Each array starts at a multiple of 8, so it can be read without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from zmon.batch import Array
from zmon.categories import Dictionaries

MAGIC = b"ZC"
VERSION = 1
_HEAD = 8  # magic, version, a spare byte, length
Numbers = int | NDArray[np.uint64]


class ChunkRecord(NamedTuple):
    """Rows of one agent in one window; `numbers` is the first of consecutive row numbers, or one number per row."""

    agent: str
    stream: bytes
    schema: bytes
    numbers: Numbers
    rows: int
    columns: dict[str, Array]
    dictionaries: dict[str, Dictionaries] = {}  # noqa: RUF012 - never mutated


def encode(records: Sequence[ChunkRecord]) -> bytes:
    """Return the records as bytes."""
    described: list[Any] = []
    buffers: list[Any] = []
    for agent, stream, schema, numbers, rows, columns, dictionaries in records:
        first: int | None = None
        if isinstance(numbers, int):
            first = numbers
        else:
            columns = {**columns, "\0numbers": numbers}
        shapes = []
        for name, column in columns.items():
            native = np.ascontiguousarray(column)
            shapes.append((name, native.dtype.str, native.shape))
            if native.nbytes:
                buffers.append(native)
                if native.nbytes % 8:
                    buffers.append(bytes(-native.nbytes % 8))
        described.append((agent, stream, schema, first, rows, shapes, dictionaries))
    header: bytes = msgpack.packb(described, use_bin_type=True)
    header += bytes(-len(header) % 8)
    return b"".join([MAGIC, bytes([VERSION, 0]), len(header).to_bytes(4, "little"), header, *buffers])


def decode(data: bytes) -> Iterator[ChunkRecord]:
    """Yield the records of a chunk; ValueError when it is malformed, or of a newer version."""
    if data[:2] != MAGIC or len(data) < _HEAD:
        raise ValueError("not a chunk")
    if data[2] != VERSION:
        raise ValueError(f"chunk version {data[2]}; this release reads {VERSION}")
    length = int.from_bytes(data[4:8], "little")
    unpacker = msgpack.Unpacker(use_list=True, raw=False)
    unpacker.feed(data[_HEAD : _HEAD + length])
    at = _HEAD + length
    for agent, stream, schema, first, rows, shapes, names in unpacker.unpack():
        columns: dict[str, Array] = {}
        for name, dtype, shape in shapes:
            kind = np.dtype(dtype)
            count = int(np.prod(shape))
            columns[name] = np.frombuffer(data, kind, count, at).reshape(shape)
            at += count * kind.itemsize + -(count * kind.itemsize) % 8
        numbers: Numbers = columns.pop("\0numbers") if first is None else first
        dictionaries = {name: tuple(tuple(column) for column in columns) for name, columns in names.items()}
        yield ChunkRecord(agent, stream, schema, numbers, rows, columns, dictionaries)
