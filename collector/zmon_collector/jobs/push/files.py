"""Samples out of written files: ours, and the earlier MLWatcher's with their trailing commas and no brackets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from zmon.errors import ConfigurationError

_BETWEEN = " \t\r\n,[]\ufeff"
KEYS = ("properties", "tags", "timestamp", "value")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file's samples in ascending time, each with its place in that order; `digest` is of the content."""

    path: Path
    digest: str
    samples: list[Any]
    first: int
    last: int


def read(path: Path) -> WrittenFile:
    """A file's samples; what is no JSON object stays in its place, for the validator to refuse.

    Raises ConfigurationError when the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    samples = sorted(map(_known, parsed(data.decode("utf-8", "replace"))), key=time_of)
    times = [time_of(sample) for sample in samples] or [0]
    return WrittenFile(path, sha256(data).hexdigest(), samples, times[0], times[-1])


def parsed(text: str) -> Iterator[Any]:
    """The values that follow each other in the text, whatever commas and brackets stand between them.

    What cannot be read is given as the text of its line.

    >>> list(parsed('[{"a": 1},\\n{"b": 2},\\n'))
    [{'a': 1}, {'b': 2}]
    """
    at = 0
    while True:
        while at < len(text) and text[at] in _BETWEEN:
            at += 1
        if at == len(text):
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
        yield value


def _known(value: Any) -> Any:
    """A sample without what the API does not know."""
    return {key: value[key] for key in KEYS if key in value} if isinstance(value, dict) else value


def time_of(sample: Any) -> int:
    """A sample's timestamp; 0 when it has none that can be ordered by."""
    timestamp = sample.get("timestamp") if isinstance(sample, dict) else None
    return timestamp if type(timestamp) is int else 0
