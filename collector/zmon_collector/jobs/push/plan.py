"""In which order samples of several files go: ascending in time for every series. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from zmon_collector.jobs.push.files import WrittenFile, time_of


class Span(NamedTuple):
    """A file and the time its samples span."""

    name: str
    first: int
    last: int


class PlannedReport(NamedTuple):
    """A sample and where it stands: the file's digest, and its place in the file's order."""

    digest: str
    place: int
    sample: Any


def groups(spans: Iterable[Span]) -> Iterator[list[str]]:
    """Names of files that must be read together because their times overlap, in order of time.

    >>> list(groups([Span("b", 60, 120), Span("a", 0, 60), Span("c", 100, 180)]))
    [['a'], ['b', 'c']]
    """
    group: list[str] = []
    last = 0
    for span in sorted(spans, key=lambda each: (each.first, each.last, each.name)):
        if group and span.first >= last:
            yield group
            group = []
        last = max(last, span.last) if group else span.last
        group.append(span.name)
    if group:
        yield group


def entries(files: Sequence[WrittenFile]) -> list[PlannedReport]:
    """The samples of files that belong together, in order of time; files in the order given where times are equal."""
    found = [PlannedReport(file.digest, place, sample) for file in files for place, sample in enumerate(file.samples)]
    return sorted(found, key=lambda entry: time_of(entry.sample))
