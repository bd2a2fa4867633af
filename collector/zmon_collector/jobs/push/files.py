"""Read samples from written files: zmon's, and those of MLWatcher, which have trailing commas and no brackets."""

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
    """File whose samples are in ascending time; `digest` is of the content, `first` and `last` are times."""

    path: Path
    digest: str
    samples: list[Any]
    first: int
    last: int


def read_file(path: Path) -> WrittenFile:
    """Read a file's samples. Anything but a JSON object stays in its place, for the validator to refuse.

    Raises
    ------
    ConfigurationError
        When the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    samples = sorted(map(_known_keys, parse_samples(data.decode("utf-8", "replace"))), key=time_of)
    times = [time_of(sample) for sample in samples] or [0]
    return WrittenFile(path, sha256(data).hexdigest(), samples, times[0], times[-1])


def parse_samples(text: str) -> Iterator[Any]:
    """Yield the JSON values in the text, whatever commas and brackets stand between them.

    Anything that is not JSON is yielded as the string of its line.

    >>> list(parse_samples('[{"a": 1},\\n{"b": 2},\\n'))
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


def _known_keys(value: Any) -> Any:
    """Return a sample without keys that the API does not know."""
    return {key: value[key] for key in KEYS if key in value} if isinstance(value, dict) else value


def time_of(sample: Any) -> int:
    """Return a sample's timestamp; 0 if it has no whole number there."""
    timestamp = sample.get("timestamp") if isinstance(sample, dict) else None
    return timestamp if type(timestamp) is int else 0
