"""Read samples from written files: zmon's, and those of MLWatcher, which have trailing commas and no brackets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from zmon._files import read_bounded
from zmon.errors import ConfigurationError

LARGEST = 512 * 2**20  # bytes of a file
MOST_SAMPLES = 2**22  # of a file
LONGEST_SAMPLE = 64 * 2**10  # characters of JSON; Anodot takes some 12,000 at most
MOST_NAMES = 64  # properties or tags; Anodot takes fewer
SHOWN = 1000  # characters of what is not JSON
_BETWEEN = re.compile("[ \t\r\n,\\[\\]\ufeff]*")
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
        When the file cannot be read, or is larger than any that a collector writes.
    """
    try:
        data = read_bounded(path, LARGEST)
        found = parse_samples(data.decode("utf-8", "replace"))
        samples = sorted(map(_known_keys, islice(found, MOST_SAMPLES)), key=time_of)
        if next(found, None) is not None:
            raise ValueError(f"it has more than {MOST_SAMPLES:,} samples")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
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
        between = _BETWEEN.match(text, at)
        at = between.end() if between else at
        if at == len(text):
            return
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        for most in (min(end, at + LONGEST_SAMPLE), at + LONGEST_SAMPLE):  # its line, or several
            try:
                value, length = _DECODER.raw_decode(text[at:most])
            except (ValueError, RecursionError):
                continue
            at += length
            break
        else:
            value, at = text[at : min(end, at + SHOWN)], end
        yield value


def _known_keys(value: Any) -> Any:
    """Return a sample without keys that the API does not know, and without what it refuses and may be large."""
    if not isinstance(value, dict):
        return value
    return {key: _bounded(value[key]) for key in KEYS if key in value}


def _bounded(value: Any) -> Any:
    """Return a sample's value, with at most two levels, and not more names than the validator counts."""
    if isinstance(value, dict):
        return {name: _scalars(inner) for name, inner in islice(value.items(), MOST_NAMES)}
    return type(value).__name__ if isinstance(value, list) else value


def _scalars(value: Any) -> Any:
    if isinstance(value, list):
        return [None if isinstance(inner, list | dict) else inner for inner in value[:MOST_NAMES]]
    return None if isinstance(value, dict) else value


def time_of(sample: Any) -> int:
    """Return a sample's timestamp; 0 if it has no whole number there."""
    timestamp = sample.get("timestamp") if isinstance(sample, dict) else None
    return timestamp if type(timestamp) is int else 0
