"""Ids and segments of rows in the wire's form. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from zmon._capture.columns import as_list
from zmon._capture.faults import Faults
from zmon._capture.frames import length
from zmon._capture.kinds import Coded, categorical
from zmon._capture.values import encodable, is_missing, text_of
from zmon._wire.checks import MAX_SEGMENTS
from zmon.batch import Array
from zmon.categories import MISSING
from zmon.errors import Rejected
from zmon.names import LENGTH, readable

ID_WIDTHS = (8, 16, 32, 64, 128, 256)  # bytes; few widths, so that single rows gather in few messages
EXACT = 2**53  # whole floats below this are the integers they look like


class Identifiers(NamedTuple):
    """Ids as int64, uint64 or bytes, with a mask of the rows that have none, if any."""

    values: Array
    absent: Array | None


def identifiers(value: Any, rows: int, faults: Faults) -> Identifiers:
    """Return ids, UTF-8 of at most 256 bytes if they are not integers; an id that cannot be used is left out.

    7 and "7" are the same id.
    """
    ids: Any = as_list(value, "ids")
    if len(ids) != rows:
        raise Rejected("length_mismatch", f"{len(ids)} ids for {rows} rows")
    if isinstance(ids, np.ndarray):
        if ids.dtype.kind in "iu":
            return Identifiers(ids.astype(np.uint64 if ids.dtype == np.uint64 else np.int64), None)
        ids = ids.tolist()
    if all(type(name) is int for name in ids) and min(ids) >= -(2**63) and max(ids) < 2**63:
        return Identifiers(np.array(ids, dtype=np.int64), None)
    encoded: list[bytes] = []
    wrong: list[int] = []
    for i, name in enumerate(ids):
        found = None if is_missing(name) else _encoded(name)
        if found is None and not is_missing(name):
            wrong.append(i)
        encoded.append(found or b"")
    if wrong:
        faults.add("ids_invalid", f"id {ids[wrong[0]]!r:.60} is not an integer or a string of 1 to "
                   f"{ID_WIDTHS[-1]} bytes without NUL", _mask(wrong, rows))  # fmt: skip
    longest = max(map(len, encoded))
    width = next(width for width in ID_WIDTHS if width >= longest)
    absent = np.array([not name for name in encoded])
    return Identifiers(np.array(encoded, dtype=f"S{width}"), absent if absent.any() else None)


def _encoded(name: Any) -> bytes | None:
    """Return an id's bytes; None if it cannot be one."""
    if isinstance(name, bool | np.bool_ | complex):
        return None
    if isinstance(name, bytes):
        found = bytes(name)
    elif isinstance(name, float | np.floating):
        if not name.is_integer() or abs(float(name)) > EXACT:  # a column of integers with a gap comes as floats
            return None
        found = b"%d" % int(name)
    elif isinstance(name, Decimal):
        if not name.is_finite() or name != int(name):
            return None
        found = b"%d" % int(name)
    elif isinstance(name, int | np.integer):
        found = b"%d" % int(name)
    elif isinstance(name, str) or type(name).__name__ == "UUID":
        found = text_of(name).encode()
    else:
        return None
    return found if 0 < len(found) <= ID_WIDTHS[-1] and b"\0" not in found else None


def segments(value: Any, rows: int, faults: Faults) -> dict[str, Coded]:
    """Return the segment columns by name; one that cannot be used is left out."""
    if not isinstance(value, dict) or not value:
        given = "empty" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise Rejected(
            "segments_invalid", f"segments are {given}; expected a dict of 1 to {MAX_SEGMENTS} names to columns"
        )
    found: dict[str, Coded] = {}
    for key, column in value.items():
        name = encodable(key) if isinstance(key, str) else ""
        if not 0 < len(name) <= LENGTH:
            faults.add("segments_invalid", f"segment {key!r:.60}: names are strings of 1 to {LENGTH} characters")
            continue
        try:
            if length(column) is None and (rows == 1 or is_missing(column)):
                column = [column] * rows
            values = as_list(column, "segments")
        except Rejected as error:
            faults.add("segments_invalid", f"segment {name!r}: {error}")
            continue
        if len(values) != rows:
            faults.add("length_mismatch", f"segment {name!r} of {len(values)} values for {rows} rows")
            continue
        name = readable(name, LENGTH)
        found[name], wrong = categorical(values, declared=True)
        if wrong:
            faults.add(
                "segments_invalid", f"segment {name!r} holds a {type(values[wrong[0]]).__name__}", _mask(wrong, rows)
            )
    return found


def lacking(rows: int) -> Coded:
    """Return a segment column in which no row has a value."""
    return Coded(np.full(rows, MISSING, dtype=np.int8), ())


def _mask(indices: list[int], rows: int) -> Array:
    mask = np.zeros(rows, dtype=bool)
    mask[indices] = True
    return mask
