"""Readers for the options of sinks, metrics and the collector: durations, sizes, tables of keys. Pure.

A reader is a function that takes a value as TOML gives it and returns it checked; for a value that cannot be used it
raises a ValueError that says what was given and how to write it. `read_options` applies readers to a whole table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zmon.errors import ConfigurationError

__all__ = [
    "duration",
    "flag",
    "nearest",
    "number",
    "one_of",
    "positive",
    "positive_duration",
    "read_options",
    "size",
    "text",
    "texts",
    "whole",
]

Reader = Callable[[object], Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST = 36_500 * 86_400.0  # seconds; times stay within what dates and files can hold
_LARGEST_NUMBER = 1e300  # bounds and differences of two such numbers are finite
_LARGEST = 2**53  # whole numbers up to it are exact in every format
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read_options(table: object, readers: Mapping[str, Reader], where: str) -> dict[str, Any]:
    """Read a table of options; keys that are not given are left out, so defaults stay with the caller.

    Parameters
    ----------
    table : mapping of str to object
        As the configuration gives it, for example ``options["sinks"]["mine"]``.
    readers : mapping of str to callable
        Every key that the table may have, and the reader of its value.
    where : str
        What errors call the table, for example ``"[sinks.mine]"``.

    Returns
    -------
    dict of str to object

    Raises
    ------
    ConfigurationError
        For an unknown key, with the nearest known one, and for a value that its reader refuses.

    Examples
    --------
    >>> read_options({"keep": "12h", "agents": True}, {"keep": duration, "agents": flag}, "[sinks.mine]")
    {'keep': 43200.0, 'agents': True}
    >>> read_options({"kep": "12h"}, {"keep": duration, "agents": flag}, "[sinks.mine]")
    Traceback (most recent call last):
    zmon.errors.ConfigurationError: [sinks.mine] has an unknown key 'kep'; did you mean 'keep'?
    """
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} is not a table")
    values = {}
    for name, value in table.items():
        if name not in readers:
            raise ConfigurationError(f"{where} has an unknown key {name!r:.60}; {nearest(name, readers)}")
        try:
            values[name] = readers[name](value)
        except ValueError as error:
            raise ConfigurationError(f"{where} {name}: {error}") from None
    return values


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest valid one, or all of them.

    Examples
    --------
    >>> nearest("windo", ["window", "grace"])
    "did you mean 'window'?"
    >>> nearest("x", ["window", "grace"])
    'use one of grace, window'
    """
    valid = sorted(names)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(valid)}"


def duration(value: object) -> float:
    """Return the seconds of a duration: ``"500ms"``, ``"60s"``, ``"5m"``, ``"2h"`` or ``"30d"``.

    Examples
    --------
    >>> duration("5m")
    300.0
    >>> duration("0.5h")
    1800.0
    >>> duration(60)
    Traceback (most recent call last):
    ValueError: 60 is not a duration; write it as "500ms", "60s", "5m", "2h" or "30d"
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r:.60} is not a duration; write it as "500ms", "60s", "5m", "2h" or "30d"')
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST:
        raise ValueError(f'{value!r:.60} is longer than a hundred years; write at most "36500d"')
    return seconds


def positive_duration(value: object) -> float:
    """Return the seconds of a duration that is not zero, for timeouts and ages.

    Examples
    --------
    >>> positive_duration("0s")
    Traceback (most recent call last):
    ValueError: '0s' is too short; write a duration above zero, as "500ms" or "30s"
    """
    seconds = duration(value)
    if not seconds:
        raise ValueError(f'{value!r:.60} is too short; write a duration above zero, as "500ms" or "30s"')
    return seconds


def positive(value: object) -> int:
    """Return a whole number from 1.

    Examples
    --------
    >>> positive(20)
    20
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r:.60} is not a whole number from 1")
    return _bounded(value)


def whole(value: object) -> int:
    """Return a whole number from 0.

    Examples
    --------
    >>> whole(0)
    0
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.60} is not a whole number from 0")
    return _bounded(value)


def size(value: object) -> int:
    """Return a size: a whole number of bytes from 1.

    Examples
    --------
    >>> size(64 * 2**20)
    67108864
    >>> size("64M")
    Traceback (most recent call last):
    ValueError: '64M' is not a size; write bytes as a whole number from 1, as 67108864 for 64 MiB
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r:.60} is not a size; write bytes as a whole number from 1, as 67108864 for 64 MiB")
    return _bounded(value)


def _bounded(value: int) -> int:
    if value > _LARGEST:
        raise ValueError(f"{value!r:.60} is above {_LARGEST:,}; write a smaller number")
    return value


def number(value: object) -> float:
    """Return a finite number, whole or not.

    Examples
    --------
    >>> number(2)
    2.0
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER
    ):
        raise ValueError(f"{value!r:.60} is not a finite number")
    return float(value)


def flag(value: object) -> bool:
    """Return true or false.

    Examples
    --------
    >>> flag("yes")
    Traceback (most recent call last):
    ValueError: 'yes' is neither true nor false
    """
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.60} is neither true nor false")
    return value


def text(value: object) -> str:
    """Return a string that is not empty.

    Examples
    --------
    >>> text("prod")
    'prod'
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r:.60} is not a string, or an empty one")
    return value


def texts(value: object) -> tuple[str, ...]:
    """Return the strings of a list; neither the list nor a string may be empty.

    Examples
    --------
    >>> texts(["accuracy", "f1*"])
    ('accuracy', 'f1*')
    """
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f'{value!r:.60} is not a list of strings; write it as ["one", "two"]')
    return tuple(value)


def one_of(*choices: str) -> Callable[[object], str]:
    """Return a reader that accepts these strings only.

    Examples
    --------
    >>> one_of("health", "all", "none")("all")
    'all'
    """

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{value!r:.60} is not one of {', '.join(choices)}")
        return str(value)

    return read
