"""Times of rows as nanoseconds since the epoch. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from zmon._capture.columns import as_array
from zmon._capture.faults import Faults
from zmon._capture.kinds import seconds as seconds_of
from zmon._capture.values import is_missing
from zmon.batch import Array
from zmon.errors import Rejected

SECONDS_LIMIT = 1e11  # the year 5138; larger numbers are milliseconds or smaller units
LATEST = 9.2e9  # seconds; int64 nanoseconds reach no further
INVALID = -1
WRONG_UNIT = -2
NANO = 1_000_000_000
_FAULTS = {
    INVALID: ("timestamp_invalid", "a timestamp is NaT, NaN or infinite, or lies before 1970 or after 2262"),
    WRONG_UNIT: ("timestamp_unit", "a timestamp is above 1e11, so not in seconds; divide by 1000 or 1e9"),
}


class Times(NamedTuple):
    """Nanoseconds since the epoch, negative where a time cannot be used; without a dimension if it is for all rows.

    `naive` says that they came as date and time without a zone.
    """

    nanos: Array
    naive: bool


def read(value: Any) -> Times:
    """Read one time, or one per row: numbers are seconds, dates without a zone are UTC. Rejected for anything else."""
    if isinstance(value, datetime):
        return Times(np.array(_datetime(value)), value.tzinfo is None)
    array = as_array(value, "timestamps")
    kind = array.dtype.kind
    if array.ndim > 1:
        raise Rejected("timestamp_invalid", f"timestamps of shape {array.shape}; expected one, or (n,)")
    if kind == "O":
        return _of_objects(array)
    if kind == "M":
        return Times(_datetimes(array), True)
    if kind in "iuf":
        return Times(_seconds(array), False)
    raise Rejected("timestamp_invalid", f"timestamps of dtype {array.dtype}; expected epoch seconds or datetimes")


def of_rows(value: Any, rows: int, now: int | Array, faults: Faults) -> Times:
    """Read one time, or one per row; record the rows whose time cannot be used, and put `now` in its place."""
    times = read(value)
    nanos = times.nanos
    if nanos.ndim and len(nanos) != rows:
        raise Rejected("length_mismatch", f"{len(nanos)} timestamps for {rows} rows")
    if (nanos < 0).any():
        wrong = nanos < 0
        for code, (reason, detail) in _FAULTS.items():
            faults.add(reason, detail, np.broadcast_to(nanos == code, (rows,)))
        nanos = np.where(wrong, now, nanos)
    return Times(nanos, times.naive)


def nanoseconds(value: Any) -> int | Array:
    """Return the epoch nanoseconds of one time, or of one per row; Rejected if one of them cannot be used."""
    nanos = read(value).nanos
    for code, (reason, detail) in _FAULTS.items():
        if (nanos == code).any():
            raise Rejected(reason, detail)
    return nanos if nanos.ndim else int(nanos)


def _of_objects(array: Array) -> Times:
    values = array.ravel().tolist()
    given = [value for value in values if not is_missing(value)]
    if all(isinstance(value, datetime) for value in given):
        nanos = np.array([INVALID if is_missing(value) else _datetime(value) for value in values], dtype=np.int64)
        return Times(nanos.reshape(array.shape), any(value.tzinfo is None for value in given))
    if all(isinstance(value, np.datetime64) for value in given):
        parts = [INVALID if is_missing(value) else int(_datetimes(np.array(value))) for value in values]
        return Times(np.array(parts, dtype=np.int64).reshape(array.shape), True)
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in given):
        numbers = [np.nan if is_missing(value) else float(value) for value in values]
        return Times(_seconds(np.array(numbers).reshape(array.shape)), False)
    raise Rejected("timestamp_invalid", "timestamps hold something other than numbers or datetimes, or mix them")


def _seconds(array: Array) -> Array:
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    finite = np.isfinite(array)
    unit = finite & (array > SECONDS_LIMIT)
    valid = finite & (array >= 0) & (array <= LATEST)
    array = np.where(valid, array, 0)
    # Convert whole seconds and fractions separately: a float64 of epoch seconds times 1e9 would lose the last digits.
    whole = np.floor(array)
    nanos = whole.astype(np.int64) * NANO + np.rint((array - whole) * 1e9).astype(np.int64)
    return np.where(valid, nanos, np.where(unit, WRONG_UNIT, INVALID))


def _datetimes(array: Array) -> Array:
    if np.datetime_data(array.dtype)[0] == "generic":  # NaT, which needs no unit
        return np.full(array.shape, INVALID)
    seconds = seconds_of(array.reshape(-1)).reshape(array.shape)
    valid = (seconds >= 0) & (seconds <= LATEST)  # NaT is NaN
    nanos = np.where(valid, array, np.array(0, dtype=array.dtype)).astype("datetime64[ns]").astype(np.int64)
    return np.where(valid, nanos, INVALID)


def _datetime(value: datetime) -> int:
    if value != value:
        return INVALID
    try:
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        whole = int(aware.replace(microsecond=0).timestamp())
    except (OverflowError, ValueError, OSError):  # near the years 1 and 9999
        return INVALID
    if not 0 <= whole <= LATEST:
        return INVALID
    return whole * NANO + aware.microsecond * 1000 + getattr(value, "nanosecond", 0)
