"""Read a TOML file whatever it holds: bounded in size, in time and in what its values may be."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from zmon._files import read_bounded

LARGEST = 2 * 2**20  # bytes
DEEPEST = 16  # tables and lists in each other
LONGEST_KEY = 300  # characters
# tomllib needs time in the square of a key's parts. A key is on one line, and its dots are outside of strings, as far
# as one line tells.
MOST_DOTS, MOST_DOTS_IN_STRINGS = 256, 4096  # in a line
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is not TOML, or beyond the limits above. The message does not name the file.
    """
    try:
        text = read_bounded(path, LARGEST).decode("utf-8")
        _check_lines(text)
        data = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"not valid TOML: more than {DEEPEST} lists or tables are nested") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid TOML: it is not UTF-8 ({error.reason} at byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    except ValueError as error:
        if "digits" in str(error):  # Python's own limit for decimal numbers
            raise ValueError("not valid TOML: a whole number has more than 64 bits; write a smaller number") from None
        raise
    _check_values(data)
    return data


def _check_lines(text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        dots = line.count(".")
        if dots > MOST_DOTS_IN_STRINGS or (dots > MOST_DOTS and _STRING.sub("", line).count(".") > MOST_DOTS):
            raise ValueError(f"line {number} has {dots} dots; write a long list on several lines")


def _check_values(data: dict[str, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} lists or tables are nested")
            if isinstance(value, dict):
                for key in value:
                    if len(key) > LONGEST_KEY:
                        raise ValueError(f"the key {key!r:.40}… has {len(key):,} characters; at most {LONGEST_KEY}")
            waiting += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("not valid TOML: a whole number has more than 64 bits; write a smaller number")
