"""Damage on disk: checksums of blobs, and moving a damaged database out of the way.

SQLite checks the structure of its pages, not what is stored in them: a flipped bit inside a blob goes unnoticed. So
every blob is written with a checksum of its own, in the column next to it.
"""

from __future__ import annotations

import zlib
from pathlib import Path


def seal(data: bytes) -> tuple[int, bytes]:
    """Return the columns ``crc`` and ``data`` of a blob.

    >>> seal(b"rows")
    (176944289, b'rows')
    """
    return zlib.crc32(data), data


def unseal(crc: int, data: bytes) -> bytes:
    """Return the data of the columns ``crc`` and ``data``; ValueError when it is damaged."""
    if zlib.crc32(data) != crc:
        raise ValueError("its checksum does not match")
    return data


def set_aside(path: Path, name: str) -> Path:
    """Rename a database, and the log that belongs to it, to `name` in the same folder; return its new path."""
    renamed = path.with_name(name)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        renamed.with_name(name + suffix).unlink(missing_ok=True)  # of an earlier one
        if part.exists():
            part.rename(renamed.with_name(name + suffix))
    return renamed
