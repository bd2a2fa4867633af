"""The kind of a column of inputs, and its values in the form of that kind. Pure; runs in the model's thread.

A kind follows from the types of the values, never from what they look like: a string of digits stays a string.
"""

from __future__ import annotations

import datetime as dt
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from zmon.batch import KINDS, Array
from zmon.categories import MISSING, category
from zmon.errors import Rejected

TEXT_LENGTH = 256  # characters; a column with a longer value is text when its kind is inferred
BOOLEANS = ("False", "True")
_ABSENT = {"NoneType", "NAType", "NaTType"}
_VECTORS = (list, tuple, dict, set, frozenset, np.ndarray)
_TIMES = (dt.datetime, dt.date, dt.timedelta, dt.time, np.datetime64, np.timedelta64)


class Coded(NamedTuple):
    """A categorical or boolean column: codes, −1 where missing, and the names behind them."""

    codes: Array
    names: tuple[str, ...]


_kinds: dict[type, str] = {}


def _of_type(cls: type) -> str:
    """Return the kind of values of this type; empty for a type that stands for a missing value."""
    kind = _kinds.get(cls)
    if kind is None:
        kind = _kinds[cls] = _classify(cls)
    return kind


def _classify(cls: type) -> str:
    if cls.__name__ in _ABSENT:
        return ""
    if issubclass(cls, bool | np.bool_):
        return "boolean"
    if issubclass(cls, str | bytes):
        return "categorical"
    if issubclass(cls, _TIMES):
        return "time"
    if issubclass(cls, Number) and not issubclass(cls, complex | np.complexfloating):
        return "numeric"
    return "vector" if issubclass(cls, _VECTORS) or hasattr(cls, "__array__") else cls.__name__


def kind_of(values: list[Any], feature: str) -> str:
    """Return the kind of these values, empty if all are missing; Rejected if they mix kinds or have none."""
    kinds = set(map(_of_type, set(map(type, values)))) - {""}
    if kinds & {"numeric", "time"} and (len(kinds) > 1 or all(map(missing, values))):
        # NaN is a float and NaT a time, and both stand for a missing value in columns of any kind.
        kinds = {_of_type(type(value)) for value in values if not missing(value)}
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
        raise Rejected("inputs_dtype", f"feature {feature!r} holds a {kind}; {_declare(feature)}")
    return kind


def fits(inferred: str, kind: str) -> bool:
    """Return whether values of an inferred kind can be in a column of this kind."""
    return inferred in ("", kind) or (inferred, kind) == ("text", "categorical")


def changed(feature: str, before: str, now: str) -> Rejected:
    """Return the error for a column whose kind differs from before."""
    return Rejected("inputs_kind", f"feature {feature!r} was {before} and now is {now}; {_declare(feature)}")


def _declare(feature: str) -> str:
    return f"declare kinds={{{feature!r}: …}}, or exclude it"


def missing(value: Any) -> bool:
    """Return whether a value is missing: None, NaN, NaT, pandas.NA."""
    kind = _of_type(type(value))
    if kind not in ("numeric", "time"):
        return not kind
    try:
        return bool(value != value)
    except ArithmeticError:  # a signalling NaN
        return True


# --- values in the form of their kind -------------------------------------------------------------------------------


def numbers(values: list[Any], feature: str) -> Array:
    """Return float64, NaN where missing; times as seconds since the epoch, durations as seconds."""
    kinds = {_of_type(type(value)) for value in values}
    try:
        if "time" in kinds:
            return np.array([_seconds(value) for value in values], dtype=np.float64)
        if kinds <= {"numeric", "boolean", ""}:
            if "" in kinds:
                values = [np.nan if type(value).__name__ in _ABSENT else value for value in values]
            return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected("inputs_dtype", f"feature {feature!r}: {error}") from None
    raise changed(feature, "numeric", "something else")


def _seconds(value: Any) -> float:
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[ns]").astype(np.int64) / 1e9) if value == value else np.nan
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s")) if value == value else np.nan
    if missing(value):
        return np.nan
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.time):
        return value.hour * 3600.0 + value.minute * 60.0 + value.second + value.microsecond / 1e6
    if isinstance(value, dt.date):
        moment = value if isinstance(value, dt.datetime) else dt.datetime(value.year, value.month, value.day)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    return float(value)


def in_kind(values: list[Any], kind: str, feature: str) -> Array | Coded | None:
    """Return the values in the form of the kind; None for a kind whose values are not captured."""
    if kind == "numeric":
        return numbers(values, feature)
    if kind == "boolean":
        return booleans(values, feature)
    return categorical(values, feature) if kind == "categorical" else None


def times(array: Array) -> Array:
    """Return datetime64 as seconds since the epoch, timedelta64 as seconds; NaT becomes NaN."""
    absent = np.isnat(array)
    unit = "datetime64[ns]" if array.dtype.kind == "M" else "timedelta64[ns]"
    seconds: Array = array.astype(unit).astype(np.int64) / 1e9
    seconds[absent] = np.nan
    return seconds


def booleans(values: list[Any] | Array, feature: str) -> Coded:
    """Return codes 0 and 1; numbers are accepted if they are 0 or 1."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "b":
        return Coded(values.astype(np.int8), BOOLEANS)
    codes = np.full(len(values), MISSING, dtype=np.int8)
    for i, value in enumerate(values):
        if not missing(value):
            if isinstance(value, str | bytes) or value not in (0, 1):
                raise changed(feature, "boolean", f"{value!r:.40}")
            codes[i] = int(value)
    return Coded(codes, BOOLEANS)


def categorical(values: list[Any], feature: str) -> Coded:
    """Return codes by the values' names: strings as they are, whole floats as integers, ``str`` of anything else."""
    index: dict[Any, int] = {}
    try:
        codes = np.fromiter((index.setdefault(value, len(index)) for value in values), np.int32, len(values))
    except TypeError:
        raise changed(feature, "categorical", "something that is not hashable") from None
    names: dict[str, int] = {}
    place = [MISSING if missing(value) else names.setdefault(_name(value), len(names)) for value in index]
    if len(names) != len(place):
        codes = np.array(place, dtype=np.int32)[codes]
    return Coded(codes, tuple(names))


def _name(value: Any) -> str:
    if isinstance(value, str):
        return category(str(value))
    if isinstance(value, bytes):
        return category(value.decode(errors="replace"))
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    return category(str(value))
