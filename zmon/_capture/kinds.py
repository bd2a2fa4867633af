"""The kind of a column of inputs, and its values in the form of that kind. Pure.

A kind follows from the types of the values, never from what they look like: a string of digits stays a string. A value
that does not fit the kind of its column is a missing one, and is counted.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import pathlib
import uuid
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from zmon._capture.values import ABSENT, elements, is_missing, text_of
from zmon.batch import KINDS, Array
from zmon.categories import MISSING, category
from zmon.errors import Rejected

TEXT_LENGTH = 256  # characters; a column with a longer value is text when its kind is inferred
MOST_TYPES = 2000  # types of values whose kind is remembered
BOOLEANS = ("False", "True")
_VECTORS = (list, tuple, dict, set, frozenset, np.ndarray)
_TIMES = (dt.datetime, dt.date, dt.timedelta, dt.time, np.datetime64, np.timedelta64)
_NAMED = (uuid.UUID, enum.Enum, pathlib.PurePath, ipaddress._BaseAddress, ipaddress._BaseNetwork)  # a category each
_NAMED_IN_FRAMES = {"Interval", "Period"}  # of pandas, which is not imported for this
_PER_SECOND = {"ms": 1e3, "us": 1e6, "ns": 1e9, "ps": 1e12, "fs": 1e15, "as": 1e18}
_SECONDS = {"W": 604800.0, "D": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


class Coded(NamedTuple):
    """A categorical or boolean column: codes, −1 where missing, and the names behind them."""

    codes: Array
    names: tuple[str, ...]


_kinds: dict[type, str] = {}


def kind_of_type(cls: type) -> str:
    """Return the kind of values of this type; empty for a type that stands for a missing value."""
    kind = _kinds.get(cls)
    if kind is None:
        if len(_kinds) >= MOST_TYPES:
            _kinds.clear()
        kind = _kinds[cls] = _classify(cls)
    return kind


def _classify(cls: type) -> str:
    if cls.__name__ in ABSENT:
        return ""
    if issubclass(cls, bool | np.bool_):
        return "boolean"
    if issubclass(cls, str | bytes):
        return "categorical"
    if issubclass(cls, _TIMES):
        return "time"
    if issubclass(cls, Number) and not issubclass(cls, complex | np.complexfloating):
        return "numeric"
    if issubclass(cls, _NAMED) or cls.__name__ in _NAMED_IN_FRAMES:
        return "categorical"
    return "vector" if issubclass(cls, _VECTORS) or hasattr(cls, "__array__") else cls.__name__


def kind_of(values: Array | list[Any], feature: str) -> str:
    """Return the kind of these values, empty if all are missing; Rejected if they mix kinds or have none."""
    if isinstance(values, np.ndarray):
        return "boolean" if values.dtype.kind == "b" else "numeric"
    kinds = set(map(kind_of_type, set(map(type, values)))) - {""}
    if kinds & {"numeric", "time"} and (len(kinds) > 1 or all(map(is_missing, values))):
        # NaN is a float and NaT a time, and both stand for a missing value in columns of any kind.
        kinds = {kind_of_type(type(value)) for value in values if not is_missing(value)}
    if kinds == {"numeric", "boolean"}:
        return "numeric"
    if not kinds:
        return ""
    if len(kinds) > 1:
        raise Rejected("inputs_kind", f"feature {feature!r} mixes {' and '.join(sorted(kinds))}; {_declare(feature)}")
    kind = kinds.pop()
    if kind == "categorical" and any(value.__class__ is str and len(value) > TEXT_LENGTH for value in values):
        return "text"
    if kind == "time":
        return "numeric"
    if kind not in KINDS:
        raise Rejected("inputs_dtype", f"feature {feature!r} holds values of type {kind}; {_declare(feature)}")
    return kind


def changed(feature: str, kind: str, value: Any) -> str:
    """Return the detail for a column with a value that does not fit its kind."""
    found = kind_of_type(type(value)) or "missing"
    if found == kind == "vector":
        return f"feature {feature!r} holds vectors of one width, and {value!r:.40} has another, or is not numbers"
    if found in (kind, "time") and kind == "numeric":
        return f"feature {feature!r} is numeric, and {value!r:.40} is not a number that a float can hold"
    return f"feature {feature!r} is {kind}, and {value!r:.40} is {found}; {_declare(feature)}"


def _declare(feature: str) -> str:
    return f"declare kinds={{{feature!r}: …}}, or exclude it"


# --- values in the form of their kind: the converted column, and the index of a value that does not fit ---------------


def numbers(values: Array | list[Any]) -> tuple[Array, list[int]]:
    """Return numbers, NaN where missing, with the indices of values that are none.

    Times become seconds since the epoch, durations seconds.
    """
    if isinstance(values, np.ndarray):
        kind = values.dtype.kind
        return seconds(values) if kind in "Mm" else values.astype(np.float64) if kind == "b" else values, []
    kinds = {kind_of_type(cls) for cls in set(map(type, values))}
    if kinds <= {"numeric", "boolean", ""}:
        try:
            if "" in kinds:
                return np.array([np.nan if type(v).__name__ in ABSENT else v for v in values], dtype=np.float64), []
            return np.array(values, dtype=np.float64), []
        except (TypeError, ValueError, OverflowError, ArithmeticError):
            pass
    found, bad = np.full(len(values), np.nan), []
    for i, value in enumerate(values):
        if not is_missing(value):
            try:
                found[i] = _number(value)
            except (TypeError, ValueError, OverflowError, ArithmeticError):
                bad.append(i)
    return found, bad


def _number(value: Any) -> float:
    kind = kind_of_type(type(value))
    if kind in ("numeric", "boolean"):
        return float(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return float(seconds(np.array([value]))[0])
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.time):
        return value.hour * 3600.0 + value.minute * 60.0 + value.second + value.microsecond / 1e6
    if isinstance(value, dt.date):
        moment = value if isinstance(value, dt.datetime) else dt.datetime(value.year, value.month, value.day)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    raise TypeError(f"a {type(value).__name__} is not a number")


def seconds(array: Array) -> Array:
    """Return datetime64 as seconds since the epoch, timedelta64 as seconds; NaT becomes NaN. Any unit, any range."""
    unit, step = np.datetime_data(array.dtype)
    if unit in ("Y", "M") and array.dtype.kind == "M":
        array, unit, step = array.astype("datetime64[D]"), "D", 1
    absent, whole = np.isnat(array), array.view(np.int64) if array.dtype.isnative else array.astype(np.int64)
    if unit in _PER_SECOND:
        found: Array = whole * step / _PER_SECOND[unit] if step == 1 else whole * (step / _PER_SECOND[unit])
    else:
        found = whole * (step * _SECONDS.get(unit, np.nan))  # years and months as durations have no length
    found[absent] = np.nan
    return found


def booleans(values: Array | list[Any]) -> tuple[Coded, list[int]]:
    """Return codes 0 and 1, with the indices of values that are neither; numbers are accepted if they are 0 or 1."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "b":
            return Coded(values.astype(np.int8), BOOLEANS), []
        values = values.tolist()
    codes, bad = np.full(len(values), MISSING, dtype=np.int8), []
    for i, value in enumerate(values):
        if value is True or value is False:
            codes[i] = value
        elif not is_missing(value):
            if kind_of_type(type(value)) in ("numeric", "boolean") and value in (0, 1):
                codes[i] = int(value)
            else:
                bad.append(i)
    return Coded(codes, BOOLEANS), bad


def categorical(values: Array | list[Any], *, declared: bool = False) -> tuple[Coded, list[int]]:
    """Return codes by the values' names, with the indices of values that cannot be categories.

    Strings are named as they are, whole floats as integers, others by ``str``. Numbers are categories where that was
    declared.
    """
    if isinstance(values, np.ndarray):
        values = elements(values)
    bad: list[int] = []
    kinds = {kind_of_type(cls) for cls in set(map(type, values))}
    if declared and {"boolean", "numeric"} <= kinds:  # equal for Python, and different names
        values = [text_of(value) if kind_of_type(type(value)) == "boolean" else value for value in values]
    if not kinds <= ({"categorical", "numeric", "boolean", "time", ""} if declared else {"categorical", ""}):
        values = list(values)
        for i, value in enumerate(values):
            kind = kind_of_type(type(value))
            if kind == "vector" or (kind != "categorical" and not declared):
                if kind and not is_missing(value):
                    bad.append(i)
                values[i] = None
    index: dict[Any, int] = {}
    try:
        codes = np.fromiter((index.setdefault(value, len(index)) for value in values), np.int32, len(values))
    except TypeError:  # something is not hashable
        return categorical([None if _unhashable(value) else value for value in values], declared=declared)[0], [
            *bad,
            *(i for i, value in enumerate(values) if _unhashable(value)),
        ]
    names: dict[str, int] = {}
    place = [MISSING if is_missing(value) else names.setdefault(name_of(value), len(names)) for value in index]
    if len(names) != len(place):
        codes = np.array(place, dtype=np.int32)[codes]
    return Coded(codes, tuple(names)), bad


def _unhashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return True
    return False


def name_of(value: Any) -> str:
    """Return a category's name as it is sent."""
    return category(text_of(value))


def vectors(values: list[Any], width: int) -> tuple[Array | None, int, list[int]]:
    """Return vectors of one width as rows of floats, NaN where missing, that width, and the indices of others.

    Without a width, that of the first vector is taken.
    """
    rows: dict[int, Array] = {}
    bad = []
    for i, value in enumerate(values):
        if value is None or type(value).__name__ in ABSENT:
            continue
        try:
            vector = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            vector = np.empty(0)
        if vector.ndim == 0 and width <= 1 and not np.isnan(vector):
            vector = vector.reshape(1)
        width = width or (len(vector) if vector.ndim == 1 else 0)
        if vector.ndim == 1 and len(vector) == width > 0:
            rows[i] = vector
        elif not (vector.ndim == 0 and np.isnan(vector)):
            bad.append(i)
    if not width:
        return None, 0, bad
    found = np.full((len(values), width), np.nan, dtype=np.float32)
    for i, vector in rows.items():
        found[i] = vector
    return found, width, bad


def is_strange(value: Any, kind: str) -> bool:
    """Return whether a value belongs to no kind that is captured, or is of its column's kind and out of range."""
    found = kind_of_type(type(value))
    return found not in (*KINDS, "time") or (kind == "numeric" and found in ("numeric", "time"))
