"""Check a decoded message against its schema, resolve its times, and split its rows by window. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from zmon._wire import checks
from zmon._wire.frames import Message
from zmon.batch import Array, Batch, Schema
from zmon.categories import Dictionaries, category
from zmon.errors import WireError
from zmon_collector.windows.window import NANO, Periods


class WindowSlice(NamedTuple):
    """Rows of one window, their numbers in the stream (the first of a run, or one per row), and their newest time."""

    start: int
    batch: Batch
    numbers: int | Array
    newest: float


def check_batch(message: Message, schema: Schema, times: int | Array | None = None) -> Batch:
    """Return the message's columns as a batch, with the rows' times if given: in ns, one for all or one each.

    WireError with the reason if the columns do not fit the schema.
    """
    if message.rows > (most := checks.most_rows(schema)):
        raise WireError("cells", f"{message.rows} rows of {len(schema.features)} features; at most {most} in a message")
    columns = {**checks.check_columns(message.columns, schema)}
    p = columns.get("probabilities")
    if p is not None and p.ndim == 1:
        columns["probabilities"] = np.column_stack([1.0 - p, p])
    if isinstance(times, int):
        columns["timestamps"] = column = np.empty(message.rows, dtype=np.int64)
        column.fill(times)
    elif times is not None:
        columns["timestamps"] = times
    return Batch(schema, columns, message.rows, _readable(message.dictionaries))


def _readable(dictionaries: Mapping[str, Dictionaries]) -> Mapping[str, Dictionaries]:
    """Return the names of categories as a publisher of this release sends them; WireError if two become equal."""
    if all(all(map(str.isprintable, names)) for columns in dictionaries.values() for names in columns):
        return dictionaries
    found = {key: tuple(tuple(map(category, names)) for names in columns) for key, columns in dictionaries.items()}
    if any(len(set(names)) != len(names) for columns in found.values() for names in columns):
        raise WireError("categories", "two names differ in characters that are not shown, and have the same hash")
    return found


def check_labels(message: Message, schema: Schema) -> tuple[Array, Array]:
    """Return a message's ids and labels; WireError with the reason if they do not fit the schema."""
    checks.check_labels(message.columns, schema)
    return message.columns["ids"], message.columns["labels"]


def resolve_times(message: Message, wall: float, max_skew: float) -> tuple[int | Array, int]:
    """Return the rows' times in ns (one for all, or one each), and how many were too far ahead and became `wall`."""
    now, limit = int(wall * NANO), int((wall + max_skew) * NANO)
    times = message.columns.get("timestamps")
    if times is None:
        return (message.ts, 0) if message.ts <= limit else (now, message.rows)
    ahead = times > limit
    skewed = int(np.count_nonzero(ahead))
    return (np.where(ahead, now, times) if skewed else times), skewed


def check_span(starts: int | Array, most: int) -> None:
    """Raise WireError ``timestamp_span`` if the rows lie in more than `most` windows: no genuine batch does."""
    if not isinstance(starts, int):
        distinct = len(np.unique(starts))
        if distinct > most:
            raise WireError("timestamp_span", f"rows of {distinct} windows in one batch, at most {most}")


def split_rows(batch: Batch, first: int, skip: int, starts: int | Array) -> Iterator[WindowSlice]:
    """Yield the rows from `skip` on by window, oldest window first.

    `first` is the stream number of the batch's first row; every row keeps its number. `starts` are the starts of the
    rows' windows, a number if all have the same time.
    """
    if skip:
        batch = batch.take(slice(skip, None))
        first += skip
    if isinstance(starts, int):
        yield WindowSlice(starts, batch, first, int(batch.timestamps[0]) / NANO)
        return
    starts = starts[skip:]
    low, high = int(starts.min()), int(starts.max())
    if low == high:
        yield WindowSlice(low, batch, first, int(batch.timestamps.max()) / NANO)
        return
    for start in np.unique(starts).tolist():
        rows = np.flatnonzero(starts == start)
        part = batch.take(rows)
        yield WindowSlice(start, part, rows.astype(np.uint64) + np.uint64(first), int(part.timestamps.max()) / NANO)


def split_again(part: WindowSlice, periods: Periods) -> Iterator[WindowSlice]:
    """Yield the rows of a window as those of the windows of another version, which may have other lengths."""
    starts = np.asarray(periods.starts(part.batch.timestamps))
    for start in np.unique(starts).tolist():
        rows = np.flatnonzero(starts == start)
        batch = part.batch if len(rows) == len(starts) else part.batch.take(rows)
        numbers = part.numbers
        if batch is not part.batch:
            numbers = numbers[rows] if isinstance(numbers, np.ndarray) else rows.astype(np.uint64) + np.uint64(numbers)
        yield WindowSlice(start, batch, numbers, int(batch.timestamps.max()) / NANO)
