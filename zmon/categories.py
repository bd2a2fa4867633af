"""Columns of codes with their dictionaries of category names: joined, compacted, encoded and decoded. Pure.

A code is an index into its column's dictionary; −1 is a missing value. On the wire, the blob of a dictionary says how
many rows it is for, so that messages of several publish calls are joined by concatenating their blobs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from typing import Any

import msgpack
import numpy as np

from zmon.errors import WireError
from zmon.names import readable

Array = np.ndarray[Any, Any]
Dictionaries = tuple[tuple[str, ...], ...]

MISSING = -1
OTHER = "__other__"  # the category of values whose names are not given
EMPTY = "(empty)"
NAME_LENGTH = 256  # characters of a category's name
MAX_BLOBS = 1024  # of a message; a publisher joins at most half as many rows
MAX_PARTS = 2**16  # blobs times columns of a message
MAX_NAMES = 2**20  # of a message
NAME_OVERHEAD = 48  # bytes that a string takes next to its characters
_HEAD = struct.Struct("<II")  # rows, bytes of the dictionaries that follow


def category(name: str) -> str:
    """Return a category's name as it is sent and counted: never empty, and readable.

    >>> category(""), len(category("x" * 1000))
    ('(empty)', 256)
    """
    return readable(name, NAME_LENGTH) if name else EMPTY


def name_hash(name: str) -> bytes:
    """Return 8 bytes that stand for a name, the same in every process."""
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()


def hashed(codes: Array, names: Sequence[str]) -> tuple[Array, Array, Array]:
    """Return a column's codes under the single name OTHER, and the hashes and lengths of its values.

    Lengths are those of the names as they are sent; where a value is missing the length is MISSING.

    >>> hashed(np.array([1, -1, 0, 1]), ["a", "bcd"])[2].tolist()
    [3, -1, 1, 3]
    """
    # The last entry of each table is that of a missing value.
    hashes = np.frombuffer(b"".join([*map(name_hash, names), bytes(8)]), dtype="<u8")
    lengths = np.array([*(0 if name == EMPTY else len(name) for name in names), MISSING], dtype=np.int16)
    return np.where(codes < 0, MISSING, 0).astype(np.int8), hashes[codes], lengths[codes]


def join(parts: Sequence[tuple[Array, Dictionaries]]) -> tuple[Array, Dictionaries]:
    """Join the rows of all parts under common dictionaries.

    >>> codes, names = join([(np.array([[0], [1]]), (("a", "b"),)), (np.array([[0], [-1]]), (("b",),))])
    >>> codes.ravel().tolist(), names
    ([0, 1, 1, -1], (('a', 'b'),))
    """
    first = parts[0][1]
    if all(names is first or names == first for _, names in parts):
        return np.concatenate([codes for codes, _ in parts]), first
    offsets = np.empty((len(parts), len(first)), dtype=np.int32)
    # The code under the common dictionary of every entry of every part's dictionary; the first stands for missing.
    table = [MISSING]
    common: list[dict[str, int]] = [{} for _ in first]
    for offset, (_, dictionaries) in zip(offsets, parts, strict=True):
        for column, names in enumerate(dictionaries):
            codes_by_name = common[column]
            offset[column] = len(table)
            table += [codes_by_name.setdefault(name, len(codes_by_name)) for name in names]
    codes = np.concatenate([codes.astype(np.int32) for codes, _ in parts])
    codes = np.where(codes < 0, 0, codes + np.repeat(offsets, [len(codes) for codes, _ in parts], axis=0))
    return compact(np.array(table, dtype=np.int32)[codes], tuple(map(tuple, common)))


def compact(codes: Array, dictionaries: Dictionaries) -> tuple[Array, Dictionaries]:
    """Return the same rows; where there are more names than rows, without the names that no row has."""
    if all(len(names) <= len(codes) for names in dictionaries):
        return codes, dictionaries
    codes, kept = codes.astype(np.int32), list(dictionaries)
    for column, names in enumerate(dictionaries):
        if len(names) > len(codes):
            used = np.unique(codes[:, column])
            used = used[used >= 0]
            place = np.full(len(names) + 1, MISSING, dtype=np.int32)  # the last is for missing
            place[used] = np.arange(len(used))
            codes[:, column] = place[codes[:, column]]
            kept[column] = tuple(names[i] for i in used.tolist())
    return codes, tuple(kept)


def narrow(codes: Array, dictionaries: Dictionaries) -> Array:
    """Return the codes in the smallest integer type that holds them."""
    longest = max(map(len, dictionaries), default=0)
    return codes.astype(np.int8 if longest < 2**7 else np.int16 if longest < 2**15 else np.int32)


def nbytes(dictionaries: Dictionaries, rows: int) -> int:
    """Return about how many bytes the names take in memory; of names that rows cannot have only as many as there are
    rows, because the others belong to the rows from which these were taken.

    >>> nbytes((("a", "bc"), ()), 2)
    99
    """
    held = [names if len(names) <= rows else names[:rows] for names in dictionaries]
    return sum(NAME_OVERHEAD * len(names) + sum(map(len, names)) for names in held)


# --- bytes ----------------------------------------------------------------------------------------------------------


def encode(rows: int, dictionaries: Dictionaries) -> bytes:
    """Encode the blob for the codes of `rows` rows."""
    body: bytes = msgpack.packb(dictionaries, use_bin_type=True)
    return _HEAD.pack(rows, len(body)) + body


def decode(codes: Array, blob: bytes) -> tuple[Array, Dictionaries]:
    """Decode one blob or several, and return the codes under common dictionaries.

    WireError ``categories`` if blobs and codes do not match, or there are more blobs or names than a publisher sends.
    """
    columns = codes.shape[1]
    parts: list[tuple[Array, Dictionaries]] = []
    starts, names = [], 0
    body: bytes | None = None
    dictionaries: Dictionaries = ()
    for row, rows, following in _blobs(blob, len(codes), columns):
        if following != body:
            body = following
            dictionaries = _dictionaries(body, columns, MAX_NAMES - names)
            names += sum(map(len, dictionaries))
        parts.append((codes[row : row + rows], dictionaries))
        starts.append(row)
    if codes.size:
        sizes = np.array([[len(column) for column in dictionaries] for _, dictionaries in parts])
        if codes.min() < MISSING or (np.maximum.reduceat(codes, starts, axis=0) >= sizes).any():
            raise WireError("categories", "a code is beyond its dictionary")
    return join(parts)


def _blobs(blob: bytes, count: int, columns: int) -> list[tuple[int, int, bytes]]:
    """Return the first row, the number of rows and the dictionaries of each blob, for `count` rows together.

    Each blob is work for every column. So their number is bounded before any of them is read.
    """
    found: list[tuple[int, int, bytes]] = []
    most = min(MAX_BLOBS, MAX_PARTS // max(1, columns)) or 1
    at = row = 0
    while at < len(blob):
        if len(found) == most:
            raise WireError("categories", f"more than {most} blobs for {columns} columns")
        if len(blob) - at < _HEAD.size:
            raise WireError("categories", "a blob is truncated")
        rows, length = _HEAD.unpack_from(blob, at)
        at += _HEAD.size
        if not 1 <= rows <= count - row or length > len(blob) - at:
            raise WireError("categories", f"a blob for {rows} rows with {length} bytes of names")
        found.append((row, rows, blob[at : at + length]))
        at, row = at + length, row + rows
    if row != count:
        raise WireError("categories", f"names for {row} of {count} rows")
    return found


def _dictionaries(body: bytes, columns: int, most: int) -> Dictionaries:
    """Read the dictionaries of a blob with at most `most` names; nothing but lists of strings is built."""
    lists = count()

    def each(found: Any) -> Any:
        if isinstance(found, dict) or next(lists) > columns:
            raise ValueError("not a list of lists")
        return found

    try:
        dictionaries = msgpack.unpackb(
            body, raw=False, use_list=False, list_hook=each, object_hook=each, max_array_len=max(most, columns)
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError("categories", f"{type(error).__name__}: {error}") from error
    if (
        not isinstance(dictionaries, tuple)
        or len(dictionaries) != columns
        or not {tuple}.issuperset(map(type, dictionaries))
    ):
        raise WireError("categories", f"not {columns} dictionaries")
    if sum(map(len, dictionaries)) > most:
        raise WireError("categories", f"more than {MAX_NAMES} names")
    for names in dictionaries:
        if names and not (
            {str}.issuperset(map(type, names)) and min(names, key=len) and len(max(names, key=len)) <= NAME_LENGTH
        ):
            raise WireError("categories", f"names are not strings of 1 to {NAME_LENGTH} characters")
        if len(set(names)) != len(names):
            raise WireError("categories", "a dictionary repeats a name")
    return dictionaries
