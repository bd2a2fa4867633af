"""What a value of zmon.toml may be: each function reads one kind, or says in a ValueError what is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zmon.contract import PRESETS
from zmon.settings import control_of

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: object) -> float:
    """Seconds of ``"500ms"``, ``"60s"``, ``"5m"``, ``"2h"`` or ``"30d"``.

    >>> duration("5m")
    300.0
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is no duration; write it as "60s", "5m", "2h" or "30d"')
    return float(match[1]) * _UNITS[match[2]]


def period(value: object) -> int:
    """A window's length: a duration of whole seconds, at least one."""
    seconds = duration(value)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"{value!r}: a window is a whole number of seconds, at least 1s")
    return int(seconds)


def positive(value: object) -> int:
    """A whole number from 1."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not a whole number from 1")
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


def texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return tuple(value)


def preset(value: object) -> str:
    if value not in PRESETS:
        raise ValueError(f"{value!r} is not one of {', '.join(PRESETS)}")
    return str(value)


def endpoint(value: object) -> str:
    address = text(value)
    if not address.endswith(":0"):  # port 0: any free one
        control_of(address)
    return address


def address(value: object) -> str:
    """``"HOST:PORT"``; port 0 takes any free one.

    >>> address("[::1]:8787")
    '[::1]:8787'
    """
    host, _, port = text(value).rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not HOST:PORT")
    return f"{host}:{port}"


def table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.60} is not a table")
    return value


def tables(value: object) -> Mapping[str, Mapping[str, Any]]:
    return {name: table(each) for name, each in table(value).items()}
