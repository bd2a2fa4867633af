"""Names of features: what a table calls its columns, made fit for a schema. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zmon._capture.values import is_missing, text_of
from zmon._wire.checks import MAX_NAME
from zmon.names import readable


def feature_names(given: Sequence[Any]) -> tuple[str, ...]:
    """Return a different name for each column: its text, or a stand-in that does not depend on its place.

    >>> feature_names(["a", 0, "", None, "a"])
    ('a', '0', 'unnamed', 'unnamed_2', 'a_2')
    """
    names: dict[str, None] = {}
    taken = {text_of(name) for name in given if not is_missing(name)}
    strings = {name for name in given if isinstance(name, str)}  # 1 and "1" are two columns, in any order
    for each in given:
        name = "" if is_missing(each) else shortened(text_of(each))
        if not name:
            name = _free("unnamed", taken | names.keys())
        elif name in names or (name in strings and not isinstance(each, str)):
            name = _free(name, taken | names.keys())
        names[name] = None
    return tuple(names)


def shortened(name: str) -> str:
    """Return a name as a schema has it, see `readable`."""
    return readable(name, MAX_NAME)


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        suffix = f"_{number}"
        free = f"{name[: MAX_NAME - len(suffix)]}{suffix}"
    return free
