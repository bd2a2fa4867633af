"""Damage on disk: checksums of blobs, and moving a damaged database out of the way.

SQLite checks the structure of its pages, not what is stored in them: a flipped bit inside a blob goes unnoticed. So
every blob is written with a checksum of its own, in the column next to it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack


def seal(data: bytes, *place: int) -> tuple[int, bytes]:
    """Return the columns ``crc`` and ``data`` of a blob; `place` has the columns that say what it belongs to.

    >>> seal(b"rows", 7)
    (4262958056, b'rows')
    """
    return zlib.crc32(data, packed_checksum(*place)), data


def unseal(crc: int, data: bytes, *place: int) -> bytes:
    """Return the data of the columns ``crc`` and ``data``; ValueError when it is damaged, or belongs elsewhere.

    In the checksums of release 0.1 a blob's place is missing.
    """
    if not isinstance(data, bytes) or crc not in (zlib.crc32(data, packed_checksum(*place)), zlib.crc32(data)):
        raise ValueError("its checksum does not match")
    return data


_EXACT = frozenset({str, bytes, int})  # read as they are written


def checksum(values: Iterable[Any]) -> int:
    """Return the checksum of a row's values, the same before they are written and after they are read.

    >>> checksum(["fraud", b"rows", True, 1.0]) == checksum(["fraud", b"rows", 1, 1])
    True
    """
    # The test of the type saves most of the calls: a start checks hundreds of thousands of rows.
    return zlib.crc32(msgpack.packb([value if type(value) in _EXACT else _as_stored(value) for value in values]))


def packed_checksum(*values: Any) -> int:
    """Return a checksum of values whose types SQLite keeps; in a third of the time, for rows by the thousand."""
    return zlib.crc32(msgpack.packb(values))


def _as_stored(value: Any) -> Any:
    """Return a number as an integer if it is one: SQLite has no booleans, and a REAL column returns 1 as 1.0."""
    if isinstance(value, (bool, float)) and abs(value) < 2**53 and value == int(value):
        return int(value)
    return value


def set_aside(path: Path, name: str) -> Path:
    """Rename a database, and the log that belongs to it, to `name` in the same folder; return its new path."""
    renamed = path.with_name(name)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        renamed.with_name(name + suffix).unlink(missing_ok=True)  # of an earlier one
        if part.exists():
            part.rename(renamed.with_name(name + suffix))
    return renamed
