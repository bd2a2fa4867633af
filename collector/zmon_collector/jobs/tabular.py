"""Turn rows of files into batches, for `zmon profile` and `zmon backfill`: the roles of columns, and the reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zmon.batch import Batch
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import Reader
from zmon_collector.jobs import row_files
from zmon_collector.jobs.row_files import FilePiece

INDEX = r"__index_level_\d+__"  # pandas writes a frame's index into parquet under this name; it is not an input


class FileRows(NamedTuple):
    """Consecutive rows of a file: `first` is the number of the first one, from 1."""

    path: Path
    first: int
    rows: int
    columns: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.path}, rows {self.first} to {self.first + self.rows - 1}"


@dataclass(frozen=True, slots=True)
class Columns:
    """Roles of the files' columns, as the command line gives them: names, and globs for classes and inputs."""

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

    @property
    def single(self) -> dict[str, str]:
        """Return the columns that the options for a single column name, by option."""
        options = ("predictions", "labels", "ids", "time", "agent")
        return {option: name for option in options if (name := getattr(self, option)) is not None}


@dataclass(frozen=True, slots=True)
class Layout:
    """`Columns` resolved against the files: how rows are read. Plain data, so that tasks can carry it.

    `kinds` holds the kinds of inputs that are already decided.
    """

    columns: Columns
    probabilities: tuple[str, ...]
    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        """Return the names of all columns that are read."""
        roles = self.columns
        return list(dict.fromkeys([*self.probabilities, *self.inputs, *roles.segments, *roles.single.values()]))

    def reader(self) -> Reader:
        """Return a reader that turns these columns into batches of one schema."""
        columns = self.columns
        return Reader(
            classes=self.classes or None,
            features=list(self.inputs) or None,
            kinds=dict(self.kinds),
            threshold=columns.threshold,
            task=columns.task,
        )

    def chunks(self, piece: FilePiece, wanted: Sequence[str] | None = None) -> Iterator[FileRows]:
        """Yield the rows of a piece, some thousand at a time, with the `wanted` columns or all that are read."""
        first = piece.first
        measured = (*self.probabilities, *self.inputs)
        for chunk in row_files.read_chunks(piece, self.wanted if wanted is None else wanted, measured):
            rows = len(next(iter(chunk.values())))
            if rows:
                yield FileRows(piece.path, first, rows, chunk)
            first += rows

    def read(self, reader: Reader, chunk: Mapping[str, Any]) -> list[Batch]:
        """Return the rows of a chunk as batches, or raise Rejected with the reason."""
        columns = self.columns
        probabilities = None
        if self.probabilities:
            parts = [_floats(name, chunk[name]) for name in self.probabilities]
            probabilities = parts[0] if len(parts) == 1 else np.column_stack(parts)
        values = {role: row_files.to_numpy(chunk[name]) for role, name in columns.single.items() if role != "agent"}
        timestamps = values.pop("time", None)
        segments = {name: row_files.to_numpy(chunk[name]) for name in columns.segments} or None
        return reader.capture(probabilities, self._frame(chunk), timestamps=timestamps, segments=segments, **values)

    def _frame(self, chunk: Mapping[str, Any]) -> Any:
        inputs = {name: chunk[name] for name in self.inputs}
        if not inputs:
            return None
        if all(isinstance(column, np.ndarray) and column.dtype.kind in "fiu" for column in inputs.values()):
            return np.column_stack(list(inputs.values()))
        if all(self.kinds.get(name) == "numeric" and _is_floats(column) for name, column in inputs.items()):
            return np.column_stack([*map(row_files.to_numpy, inputs.values())])  # many times faster than a table
        return row_files.pyarrow().table(
            {name: column.tolist() if isinstance(column, np.ndarray) else column for name, column in inputs.items()}
        )


class Dataset:
    """Rows of one or more files.

    Parameters
    ----------
    paths : sequence of Path
        Files with the same columns. A folder stands for all readable files in it.
    columns : Columns

    Attributes
    ----------
    paths : list of Path
    layout : Layout
        The resolved columns. Without globs for inputs, every column without another role is an input. Without class
        names, classes are named by what ``*`` matches in the names of the probability columns.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns) -> None:
        self.paths = [file for path in paths for file in row_files.list_files(path)]
        if not self.paths:
            raise ConfigurationError(f"no file to read; give files that end in {', '.join(row_files.SUFFIXES)}")
        names = row_files.column_names(self.paths[0])
        probabilities = _matching(columns.probabilities, names, "--probabilities")
        single = columns.single
        for option, name in [*single.items(), *(("segments", name) for name in columns.segments)]:
            if name not in names:
                raise ConfigurationError(f"--{option} {name!r}: no such column; there are {', '.join(names[:20])}")
        if not probabilities and columns.predictions is None:
            raise ConfigurationError("give --probabilities 'p_*', or --predictions for a model without probabilities")
        taken = {*probabilities, *single.values(), *columns.segments}
        left = tuple(name for name in names if name not in taken and not re.fullmatch(INDEX, name))
        inputs = _matching(columns.inputs, left, "--inputs") if columns.inputs else left
        self.layout = Layout(columns, probabilities, inputs, columns.classes or _classes(columns, probabilities))

    def pieces(self) -> Iterator[FilePiece]:
        """Yield all pieces of all files, in order; ConfigurationError if a file lacks a column of the first file."""
        wanted = self.layout.wanted
        for path in self.paths:
            names = set(row_files.column_names(path))
            missing = [name for name in wanted if name not in names]
            if missing:
                raise ConfigurationError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has")
            yield from row_files.split_file(path)

    def batches(self) -> Iterator[Batch]:
        """Yield all rows in order, from the first row at every call."""
        reader = self.layout.reader()
        for piece in self.pieces():
            for chunk in self.layout.chunks(piece):
                try:
                    yield from self.layout.read(reader, chunk.columns)
                except Rejected as error:
                    raise ConfigurationError(f"{chunk}: {error} ({error.reason})") from None


def _classes(columns: Columns, probabilities: tuple[str, ...]) -> tuple[str, ...]:
    if columns.task != "classification":
        return ()
    globs = columns.probabilities
    if len(globs) == 1 and globs[0].count("*") == 1 and len(probabilities) > 1:
        prefix, _, suffix = globs[0].partition("*")
        return tuple(name[len(prefix) : len(name) - len(suffix)] for name in probabilities)
    if len(probabilities) > 1:
        return probabilities
    raise ConfigurationError("the classes have no names: give --classes a,b in the order of their indices")


def _floats(name: str, column: Any) -> Any:
    try:
        return np.asarray(column, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise Rejected("probabilities_dtype", f"column {name!r:.60} holds no probabilities: {error!s:.100}") from None


def _is_floats(column: Any) -> bool:
    return not isinstance(column, np.ndarray) and str(column.type) in ("double", "float")


def _matching(globs: Sequence[str], names: Sequence[str], option: str) -> tuple[str, ...]:
    matches: dict[str, None] = {}
    for glob in globs:
        columns = [name for name in names if fnmatchcase(name, glob)]
        if not columns:
            raise ConfigurationError(f"{option} {glob!r} matches no column; there are {', '.join(names[:20])}")
        matches.update(dict.fromkeys(columns))
    return tuple(matches)
