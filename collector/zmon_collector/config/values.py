"""What a value of zmon.toml may be: each function reads one kind, or says in a ValueError what is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zmon._transport.keys import is_key
from zmon._transport.settings import control_of
from zmon.contract import PRESETS

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


def whole(value: object) -> int:
    """A whole number from 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number from 0")
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


def globs(value: object) -> tuple[str, ...]:
    """A list of texts, or an empty one."""
    return () if value == [] else texts(value)


EXPECTED = ("agents", "features", "classes", "categorical", "categories", "segments")


def expectations(value: object) -> Mapping[str, int]:
    """Numbers for the budget: how many agents, features, classes, categories and segment values a model has."""
    found = table(value)
    for name, number in found.items():
        if name not in EXPECTED:
            raise ValueError(f"unknown key {name!r}; known are {', '.join(EXPECTED)}")
        if type(number) is not int or number < 0:
            raise ValueError(f"{name} = {number!r} is not a whole number from 0")
    return found


def preset(value: object) -> str:
    if value not in PRESETS:
        raise ValueError(f"{value!r} is not one of {', '.join(PRESETS)}")
    return str(value)


def journal(value: object) -> str:
    if value not in ("on", "off"):
        raise ValueError(f'{value!r} is neither "on" nor "off"')
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


def file(value: object) -> Path:
    return Path(text(value))


def clients(value: object) -> Mapping[str, Mapping[str, Any]]:
    """Who may publish: by name a public key, and globs of the models and agents that it may speak for."""
    found: dict[str, Mapping[str, Any]] = {}
    names: dict[str, str] = {}
    for name, each in tables(value).items():
        unknown = each.keys() - {"key", "models", "agents"}
        if unknown:
            raise ValueError(f"{name} has an unknown key {min(unknown)!r}; known are agents, key, models")
        public = each.get("key")
        if not isinstance(public, str) or not is_key(public):
            raise ValueError(f"{name}: key is not a public key of 40 characters; `zmon keygen` prints one")
        if public in names:
            raise ValueError(f"{name} has the key of {names[public]}; give each client its own")
        names[public] = name
        if "models" not in each:
            raise ValueError(f'{name} names no models that it may publish as; write models = ["*"] for all')
        try:
            found[name] = {
                "key": public,
                "models": list(texts(each["models"])),
                "agents": list(texts(each.get("agents", ["*"]))),
            }
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found
