"""Rows of files as batches: which columns are what. What `zmon profile` and `zmon backfill` go through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from zmon.batch import Batch
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import Reader
from zmon_collector.jobs import row_files
from zmon_collector.jobs.row_files import FilePiece

INDEX = r"__index_level_\d+__"  # what pandas adds to parquet for the index of a frame: no input


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the files are what. Globs are in the order of the columns they match."""

    classes: tuple[str, ...] = ()
    probabilities: tuple[str, ...] = ()
    predictions: str | None = None
    labels: str | None = None
    ids: str | None = None
    time: str | None = None
    agent: str | None = None
    inputs: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    task: str = "classification"
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are read: what `Columns` came to in the files there are. Plain data, so that it travels.

    `kinds` are those of inputs, where they are settled already.
    """

    columns: Columns
    probabilities: tuple[str, ...]
    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        """Names of all columns that are read."""
        one = self.columns
        single = [each for each in (one.predictions, one.labels, one.ids, one.time, one.agent) if each]
        return list(dict.fromkeys([*self.probabilities, *self.inputs, *one.segments, *single]))

    def reader(self) -> Reader:
        """What turns these columns into batches of one schema."""
        columns = self.columns
        return Reader(
            classes=self.classes or None,
            features=list(self.inputs) or None,
            kinds=dict(self.kinds),
            threshold=columns.threshold,
            task=columns.task,
        )

    def chunks(
        self, piece: FilePiece, wanted: Sequence[str] | None = None
    ) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """A piece's columns, some thousand rows at a time: the number of the first row in the file, rows, columns."""
        first = piece.first
        measured = (*self.probabilities, *self.inputs)
        for chunk in row_files.chunks(piece, self.wanted if wanted is None else wanted, measured):
            rows = len(next(iter(chunk.values())))
            if rows:
                yield first, rows, chunk
            first += rows

    def read(self, reader: Reader, chunk: Mapping[str, Any]) -> list[Batch]:
        """The rows of a chunk; Rejected says what is wrong with them."""
        columns = self.columns
        probabilities = None
        if self.probabilities:
            parts = [np.asarray(chunk[name], dtype=np.float64) for name in self.probabilities]
            probabilities = parts[0] if len(parts) == 1 else np.column_stack(parts)
        single = {
            option: None if name is None else row_files.values(chunk[name])
            for option, name in (
                ("labels", columns.labels),
                ("predictions", columns.predictions),
                ("ids", columns.ids),
                ("timestamps", columns.time),
            )
        }
        segments = {name: row_files.values(chunk[name]) for name in columns.segments} or None
        return reader.capture(probabilities, self._frame(chunk), segments=segments, **single)

    def _frame(self, chunk: Mapping[str, Any]) -> Any:
        found = {name: chunk[name] for name in self.inputs}
        if not found:
            return None
        if all(isinstance(each, np.ndarray) and each.dtype.kind in "fiu" for each in found.values()):
            return np.column_stack(list(found.values()))
        if all(self.kinds.get(name) == "numeric" and _is_floats(each) for name, each in found.items()):
            return np.column_stack([row_files.values(each) for each in found.values()])  # many times as fast as a table
        return row_files.pyarrow().table(
            {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in found.items()}
        )


class Table:
    """Rows of some files.

    Parameters
    ----------
    paths : sequence of Path
        Files of the same columns; of a folder, all files in it that can be read.
    columns : Columns

    Attributes
    ----------
    paths : list of Path
    layout : Layout
        The columns found; inputs are all that is left when no globs name them. Classes are as given, or what ``*``
        stands for in the names of the columns of probabilities.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns) -> None:
        self.paths = [each for path in paths for each in row_files.listed(path)]
        if not self.paths:
            raise ConfigurationError(f"no file to read; give files that end in {', '.join(row_files.SUFFIXES)}")
        there = row_files.names(self.paths[0])
        probabilities = _matching(columns.probabilities, there, "--probabilities")
        single = {
            option: name
            for option in ("predictions", "labels", "ids", "time", "agent")
            if (name := getattr(columns, option)) is not None
        }
        for option, name in [*single.items(), *(("segments", name) for name in columns.segments)]:
            if name not in there:
                raise ConfigurationError(f"--{option} {name!r}: no such column; there are {', '.join(there[:20])}")
        if not probabilities and columns.predictions is None:
            raise ConfigurationError("give --probabilities 'p_*', or --predictions for a model without them")
        taken = {*probabilities, *single.values(), *columns.segments}
        left = tuple(name for name in there if name not in taken and not re.fullmatch(INDEX, name))
        inputs = _matching(columns.inputs, left, "--inputs") if columns.inputs else left
        self.layout = Layout(columns, probabilities, inputs, columns.classes or _classes(columns, probabilities))

    def pieces(self) -> Iterator[FilePiece]:
        """All pieces of all files, in order; ConfigurationError when a file lacks a column that the first one has."""
        wanted = self.layout.wanted
        for path in self.paths:
            known = set(row_files.names(path))
            missing = [name for name in wanted if name not in known]
            if missing:
                raise ConfigurationError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has")
            yield from row_files.pieces(path)

    def batches(self) -> Iterator[Batch]:
        """All rows in order. Starts anew each time."""
        reader = self.layout.reader()
        for piece in self.pieces():
            for first, rows, chunk in self.layout.chunks(piece):
                try:
                    yield from self.layout.read(reader, chunk)
                except Rejected as error:
                    raise ConfigurationError(
                        f"{piece.path}, rows {first} to {first + rows - 1}: {error} ({error.reason})"
                    ) from None


def _classes(columns: Columns, probabilities: tuple[str, ...]) -> tuple[str, ...]:
    if columns.task != "classification":
        return ()
    globs = columns.probabilities
    if len(globs) == 1 and globs[0].count("*") == 1 and len(probabilities) > 1:
        before, _, behind = globs[0].partition("*")
        return tuple(name[len(before) : len(name) - len(behind)] for name in probabilities)
    if len(probabilities) > 1:
        return probabilities
    raise ConfigurationError("the classes have no names: give --classes a,b in the order of their indices")


def _is_floats(column: Any) -> bool:
    return not isinstance(column, np.ndarray) and str(column.type) in ("double", "float")


def _matching(globs: Sequence[str], there: Sequence[str], option: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for glob in globs:
        own = [name for name in there if fnmatchcase(name, glob)]
        if not own:
            raise ConfigurationError(f"{option} {glob!r} fits no column; there are {', '.join(there[:20])}")
        found.update(dict.fromkeys(own))
    return tuple(found)
