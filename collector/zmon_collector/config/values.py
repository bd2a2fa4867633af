"""Readers of the values of zmon.toml that `zmon.options` does not have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from zmon._transport.keys import is_key
from zmon._transport.settings import control_of
from zmon.options import Reader, duration, read_options, text, texts, whole

LONGEST_WINDOW = 366 * 86400  # seconds; the boundaries that two lengths share must fit into 64 bits
# What `zmon validate` assumes of a model without an `expect` table.
EXPECTED = {"agents": 10, "features": 20, "classes": 2, "categorical": 0, "categories": 10, "segments": 0}


def key(parse: Reader, default: Any, doc: str) -> Any:
    """Return a dataclass field for a configuration key, with the reader of its values, its default and its meaning."""
    metadata = {"parse": parse, "doc": doc}
    if default == {}:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def period(value: object) -> int:
    """Return the length of a window: a duration of whole seconds, at least one."""
    seconds = duration(value)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"{value!r:.60}: a window is a whole number of seconds, at least 1s")
    if seconds > LONGEST_WINDOW:
        raise ValueError(f"{value!r:.60}: a window is at most {LONGEST_WINDOW // 86400} days long")
    return int(seconds)


def share(value: object) -> float:
    """Return a number from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{value!r:.60} is not a share, a number from 0 to below 1")
    return float(value)


def pattern(value: object) -> str:
    """Return a string, which may be empty."""
    return "" if value == "" else text(value)


def globs(value: object) -> tuple[str, ...]:
    """Return the strings of a list, which may be empty."""
    return () if value == [] else texts(value)


def expectations(value: object) -> Mapping[str, int]:
    """Return numbers for the quota: how many agents, features, classes, categories, segment values a model has."""
    return read_options(value, dict.fromkeys(EXPECTED, whole), "expect")


def endpoint(value: object) -> str:
    """Return a ZeroMQ endpoint; port 0 takes any free one."""
    address = text(value)
    if not address.endswith(":0"):
        control_of(address)  # checks the form
    return address


def address(value: object) -> str:
    """Return ``"HOST:PORT"``; port 0 takes any free one.

    >>> address("[::1]:8787")
    '[::1]:8787'
    """
    host, _, port = text(value).rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65535:
        raise ValueError(f"{value!r:.60} is not HOST:PORT")
    return f"{host}:{port}"


def table(value: object) -> Mapping[str, Any]:
    """Return a table."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.60} is not a table")
    return value


def tables(value: object) -> Mapping[str, Mapping[str, Any]]:
    """Return a table of tables."""
    return {name: table(inner) for name, inner in table(value).items()}


def file(value: object) -> Path:
    """Return a path."""
    return Path(text(value))


def clients(value: object) -> Mapping[str, Mapping[str, Any]]:
    """Return who may publish: by name a public key, globs of models and agents that it may publish as, and globs of
    models of which it may label the rows of other agents."""
    read: dict[str, Mapping[str, Any]] = {}
    names: dict[str, str] = {}
    for name, given in tables(value).items():
        client = read_options(given, {"key": _public_key, "models": texts, "agents": texts, "labels": globs}, name)
        if "key" not in client:
            raise ValueError(f"{name} has no key; `zmon keygen` prints one")
        if client["key"] in names:
            raise ValueError(f"{name} has the key of {names[client['key']]}; give each client its own")
        names[client["key"]] = name
        if "models" not in client:
            raise ValueError(f'{name} names no models that it may publish as; write models = ["*"] for all')
        read[name] = {
            "key": client["key"],
            "models": list(client["models"]),
            "agents": list(client.get("agents", ["*"])),
        }
        if "labels" in client:
            read[name] = {**read[name], "labels": list(client["labels"])}
    return read


def _public_key(value: object) -> str:
    if not isinstance(value, str) or not is_key(value):
        raise ValueError("it is not a public key of 40 characters; `zmon keygen` prints one")
    return value
