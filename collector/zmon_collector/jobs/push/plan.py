"""Order the samples of several files: ascending in time for every series. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from zmon_collector.jobs.push.files import WrittenFile, time_of


class FileSpan(NamedTuple):
    """File and the time that its samples span."""

    name: str
    first: int
    last: int


class PlannedSample(NamedTuple):
    """Sample, with the digest of its file and its place in the file's order."""

    digest: str
    place: int
    sample: Any


def overlapping_files(spans: Iterable[FileSpan]) -> Iterator[list[str]]:
    """Yield names of files that must be read together because their times overlap, in order of time.

    >>> list(overlapping_files([FileSpan("b", 60, 120), FileSpan("a", 0, 60), FileSpan("c", 100, 180)]))
    [['a'], ['b', 'c']]
    """
    group: list[str] = []
    last = 0
    for span in sorted(spans, key=lambda span: (span.first, span.last, span.name)):
        if group and span.first >= last:
            yield group
            group = []
        last = max(last, span.last) if group else span.last
        group.append(span.name)
    if group:
        yield group


def samples_in_order(files: Sequence[WrittenFile]) -> list[PlannedSample]:
    """Return the samples of overlapping files in order of time, and in the files' order where times are equal."""
    planned = [PlannedSample(file.digest, place, sample) for file in files for place, sample in enumerate(file.samples)]
    return sorted(planned, key=lambda entry: time_of(entry.sample))
