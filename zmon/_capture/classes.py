"""The classes of a model, and which of them a label or a column means. Pure."""

from __future__ import annotations

import re
from collections.abc import KeysView, Mapping, Sequence, Set
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np

from zmon._capture.values import elements, is_missing, text_of
from zmon._transport.settings import name
from zmon._wire.checks import MAX_COLUMNS
from zmon.batch import Array
from zmon.errors import ConfigurationError, Rejected

UNLABELLED = -1
UNKNOWN = -2  # neither a name nor an index
FRACTION = -3  # a number that is not whole
OUTSIDE = -4  # a whole number that is no index
_NUMERIC = (int, float, np.number, np.bool_, Decimal, Fraction)
_WHOLE = re.compile(r"(-?\d+)(\.0+)?")


class Classes:
    """Names of classes in the order of the probabilities' columns.

    Parameters
    ----------
    given : sequence or int
        Names, numbers or booleans, or a count.
    least : int
        Number of classes at least.
    """

    def __init__(self, given: Sequence[object] | int, least: int = 2) -> None:
        self.counted = isinstance(given, int | np.integer) and not isinstance(given, bool)
        if self.counted:
            self.given: list[object] = [f"class_{i}" for i in range(int(given))]  # type: ignore[arg-type]
        elif isinstance(given, Set | Mapping) and not isinstance(given, KeysView):
            raise ConfigurationError(
                f"classes are a {type(given).__name__}, which has no order of columns; pass a list, got {given!r:.60}"
            )
        elif isinstance(given, str) or not hasattr(given, "__iter__"):
            raise ConfigurationError(f"classes must be a sequence of names or a count, got {given!r:.60}")
        else:
            self.given = [cls.item() if isinstance(cls, np.generic) else cls for cls in given]
        if len(self.given) < least:
            raise ConfigurationError(
                f"{len(self.given)} classes given; at least {least} are needed, and a binary model has two"
            )
        if len(self.given) > MAX_COLUMNS:
            raise ConfigurationError(f"{len(self.given)} classes given; at most {MAX_COLUMNS} are allowed")
        if len({isinstance(cls, str) for cls in self.given}) != 1:
            raise ConfigurationError(f"classes mix strings and numbers: {self.given[:5]}; use one type")
        self.names = tuple(name("a class name", _class_name(cls)) for cls in self.given)
        if len(set(self.names)) != len(self.names):
            twice = sorted(cls for cls in set(self.names) if self.names.count(cls) > 1)
            raise ConfigurationError(f"classes repeat a name: {twice[:5]}")
        self.strings = isinstance(self.given[0], str | bytes)
        self.columns: tuple[str, ...] = self.names  # names by which columns of frames are aligned
        self._places = {cls: i for i, cls in enumerate(self.names)}
        self._reading = ""  # how numbers were read where both readings differ: "names" or "indices"

    def __len__(self) -> int:
        return len(self.names)

    def indices(self, values: Array | list[Any], what: str) -> Array:
        """Return the class index of every value, or one of the negative codes of this module.

        A value is a name, compared by its text; numbers are indices only where none of them is a name. Rejected
        ``<what>_ambiguous`` if the two readings of numbers cannot be told apart.
        """
        if isinstance(values, np.ndarray):
            if values.dtype.kind in "iub" and not self._numeric_names():
                return self._positions(values)
            distinct, inverse = np.unique(values, return_inverse=True)
            codes = self._codes(elements(distinct), what)
            return np.asarray(codes, dtype=np.int64)[inverse.reshape(-1)]
        try:
            memo = dict.fromkeys(values)
        except TypeError:  # something is not hashable
            values = [value if value.__hash__ is not None else repr(value) for value in values]
            memo = dict.fromkeys(values)
        known = dict(zip(memo, self._codes(list(memo), what), strict=True))
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))

    def settle(self, columns: Sequence[str]) -> None:
        """Take the names of an accepted frame's columns as the names of classes that were only counted."""
        if self.counted and self.columns == self.names:
            self.columns = tuple(columns)

    def _numeric_names(self) -> bool:
        return not self.counted and any(_looks_numeric(cls) for cls in self.names)

    def _positions(self, values: Array) -> Array:
        found = values.astype(np.int64)
        if len(found) and (found.min() < 0 or found.max() >= len(self) or values.dtype == np.uint64):
            found = np.where((values < 0) | (values >= len(self)), OUTSIDE, found)
        return found

    def _codes(self, distinct: list[Any], what: str) -> list[int]:
        names = [UNLABELLED if is_missing(value) else self._named(value) for value in distinct]
        numbers = [i for i, value in enumerate(distinct) if names[i] != UNLABELLED and _is_number(value)]
        if not numbers:
            return names
        positions = {i: self._position(distinct[i]) for i in numbers}
        unnamed = [i for i in numbers if names[i] == UNKNOWN]
        fit = all(position >= 0 for position in positions.values())
        if len(unnamed) == len(numbers) and self.strings:
            if self._reading == "names" and fit:
                raise self._ambiguous(what, distinct[unnamed[0]])
            if fit and self._numeric_names():
                self._reading = "indices"
            return [positions.get(i, code) for i, code in enumerate(names)]
        if unnamed and fit and len(unnamed) < len(numbers):
            raise self._ambiguous(what, distinct[unnamed[0]])
        differ = [i for i in numbers if names[i] >= 0 and names[i] != positions[i]]
        if differ and self.strings:
            truth = "True" in self._places and not isinstance(distinct[differ[0]], bool | np.bool_)
            if fit and (truth or self._reading == "indices"):
                raise self._ambiguous(what, distinct[differ[0]])
            self._reading = "names"
        return [FRACTION if i in unnamed and positions[i] == FRACTION else code for i, code in enumerate(names)]

    def _named(self, value: Any) -> int:
        for text in _texts(value):
            if text in self._places:
                return self._places[text]
        return UNKNOWN

    def _position(self, value: Any) -> int:
        if value != value or value in (np.inf, -np.inf):
            return OUTSIDE
        if value != int(value):
            return FRACTION
        return int(value) if 0 <= value < len(self) else OUTSIDE

    def _ambiguous(self, what: str, value: Any) -> Rejected:
        return Rejected(
            f"{what}_ambiguous",
            f"{what} {value!r:.40} and others may be names or indices of the classes {list(self.names[:5])}; "
            "pass names as strings",
        )


def _class_name(cls: object) -> str:
    if isinstance(cls, bytes):
        return text_of(cls)
    return str.__str__(cls) if isinstance(cls, str) else str(cls)


def _texts(value: Any) -> list[str]:
    """Return the names that a value may mean, the likeliest first."""
    if isinstance(value, Decimal | Fraction):
        value = int(value) if _is_whole(value) else float(value)
    if isinstance(value, bool | np.bool_):
        return [str(value), str(int(value)), f"{int(value)}.0"]
    if _is_number(value) and _is_whole(value):
        whole = int(value)
        texts = [str(whole), f"{whole}.0", str(value)]
        return [*texts, str(bool(whole))] if whole in (0, 1) else texts
    if isinstance(value, Enum) and not isinstance(value, str):
        return [str(value), text_of(value.value), value.name]
    text = text_of(value)
    match = _WHOLE.fullmatch(text)  # integers that were written as floats, or the other way round
    return [text] if match is None else [text, match[1], f"{match[1]}.0"]


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMERIC) and not isinstance(value, np.timedelta64)  # which NumPy counts among integers


def _is_whole(value: Any) -> bool:
    return bool(value == value and abs(value) < 2**63 and value == int(value))


def _looks_numeric(cls: str) -> bool:
    try:
        float(cls)
    except ValueError:
        return cls in ("True", "False")
    return True
