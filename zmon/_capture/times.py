"""Times of rows as nanoseconds since the epoch. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
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
_NO_TIMES = (bool, complex, np.timedelta64)
_EXPECTED = "expected epoch seconds or datetimes; parse strings first, as with datetime.fromisoformat()"
NANO = 1_000_000_000
FAULTS = {
    INVALID: (
        "timestamp_invalid",
        "a timestamp is missing, infinite or not a time, or lies before 1970 or after 2262",
    ),
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
    array = _objects(value) if isinstance(value, list) else as_array(value, "timestamps")
    kind = array.dtype.kind
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 1:
        raise Rejected("timestamp_invalid", f"timestamps of shape {array.shape}; expected one, or (n,)")
    if kind == "O":
        return _of_objects(array)
    if kind == "M":
        return Times(_datetimes(array), True)
    if kind in "iuf":
        return Times(_seconds(array), False)
    raise Rejected("timestamp_invalid", f"timestamps of dtype {array.dtype}; {_EXPECTED}")


def of_rows(value: Any, rows: int, now: int | Array, faults: Faults) -> Times:
    """Read one time, or one per row; record the rows whose time cannot be used, and put `now` in its place."""
    times = read(value)
    nanos = times.nanos
    if nanos.ndim and len(nanos) != rows:
        raise Rejected("length_mismatch", f"{len(nanos)} timestamps for {rows} rows")
    if (nanos < 0).any():
        wrong = nanos < 0
        for code, (reason, detail) in FAULTS.items():
            faults.add(reason, detail, np.broadcast_to(nanos == code, (rows,)))
        nanos = np.where(wrong, now, nanos)
    return Times(nanos, times.naive)


def nanoseconds(value: Any) -> int | Array:
    """Return the epoch nanoseconds of one time, or of one per row; Rejected if one of them cannot be used."""
    nanos = read(value).nanos
    for code, (reason, detail) in FAULTS.items():
        if (nanos == code).any():
            raise Rejected(reason, detail)
    return nanos if nanos.ndim else int(nanos)


def _objects(values: list[Any]) -> Array:
    """Return a list of numbers as an array of them, any other as objects, which NumPy would make one type."""
    if {int, float}.issuperset(map(type, values)):
        return as_array(values, "timestamps")
    array = np.empty(len(values), dtype=object)
    array[:] = values if len(values) != 1 else [values[0]]
    return array


def _of_objects(array: Array) -> Times:
    """Read times of several types one by one. A value that is not a time is invalid, unless all values are."""
    values = array.ravel().tolist()
    nanos = np.full(len(values), INVALID, dtype=np.int64)
    seconds = np.full(len(values), np.nan)
    odd, naive = None, False
    for i, value in enumerate(values):
        if is_missing(value):
            continue
        if isinstance(value, datetime):
            nanos[i] = _datetime(value)
            naive = naive or value.tzinfo is None
        elif isinstance(value, np.datetime64):
            nanos[i] = int(_datetimes(np.array(value)))
            naive = True
        elif isinstance(value, int | float | np.number | Decimal) and not isinstance(value, _NO_TIMES):
            seconds[i] = _float(value)
        else:
            odd = value
    numbers = ~np.isnan(seconds)
    if odd is not None and not numbers.any() and (nanos == INVALID).all():
        raise Rejected("timestamp_invalid", f"timestamps hold a {type(odd).__name__} ({odd!r:.40}); {_EXPECTED}")
    nanos[numbers] = _seconds(seconds[numbers])
    return Times(nanos.reshape(array.shape), naive)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):  # beyond floats; a complex number of NumPy
        return np.inf


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
