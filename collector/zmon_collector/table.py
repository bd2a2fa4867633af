"""Files of rows, read in chunks: csv, parquet and npz, larger than memory. What `zmon profile` goes through."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from zmon.batch import Batch
from zmon.errors import ConfigurationError, MissingExtraError
from zmon.reference import Reader

ROWS = 16_384  # of a chunk
CSV_BLOCK = 8 * 2**20  # bytes; kinds of csv columns are settled by the first block
SUFFIXES = (".csv", ".parquet", ".npz")


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
    task: str = "classification"
    threshold: float = 0.5


class Table:
    """Rows of some files.

    Parameters
    ----------
    paths : sequence of Path
        Files of the same columns; of a folder, all files in it that can be read.
    columns : Columns

    Attributes
    ----------
    probabilities, inputs : tuple of str
        The columns found; inputs are all that is left when no globs name them.
    classes : tuple of str
        As given, or what ``*`` stands for in the names of the columns of probabilities.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns) -> None:
        self.paths = [each for path in paths for each in _files(path)]
        if not self.paths:
            raise ConfigurationError(f"no file to read; give files that end in {', '.join(SUFFIXES)}")
        self.columns = columns
        there = _names(self.paths[0])
        self.probabilities = _matching(columns.probabilities, there, "--probabilities")
        single = {
            option: name
            for option in ("predictions", "labels", "ids", "time", "agent")
            if (name := getattr(columns, option)) is not None
        }
        for option, name in single.items():
            if name not in there:
                raise ConfigurationError(f"--{option} {name!r}: no such column; there are {', '.join(there[:20])}")
        if not self.probabilities and columns.predictions is None:
            raise ConfigurationError("give --probabilities 'p_*', or --predictions for a model without them")
        taken = {*self.probabilities, *single.values()}
        left = tuple(name for name in there if name not in taken)
        self.inputs = _matching(columns.inputs, left, "--inputs") if columns.inputs else left
        self.classes = columns.classes or self._classes()

    def _classes(self) -> tuple[str, ...]:
        if self.columns.task != "classification":
            return ()
        globs = self.columns.probabilities
        if len(globs) == 1 and globs[0].count("*") == 1 and len(self.probabilities) > 1:
            before, _, behind = globs[0].partition("*")
            return tuple(name[len(before) : len(name) - len(behind)] for name in self.probabilities)
        if len(self.probabilities) > 1:
            return self.probabilities
        raise ConfigurationError("the classes have no names: give --classes a,b in the order of their indices")

    def batches(self) -> Iterator[tuple[Batch, Sequence[str] | None]]:
        """All rows in order, and beside each batch its agents where --agent names a column. Starts anew each time."""
        columns = self.columns
        reader = Reader(
            classes=self.classes or None, features=self._named(), threshold=columns.threshold, task=columns.task
        )
        wanted = [*self.probabilities, *self.inputs]
        wanted += [
            each for each in (columns.predictions, columns.labels, columns.ids, columns.time, columns.agent) if each
        ]
        for path in self.paths:
            missing = [name for name in wanted if name not in _names(path)]
            if missing:
                raise ConfigurationError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has")
            first = 1
            for chunk in _chunks(path, wanted, columns):
                rows = len(chunk[wanted[0]])
                try:
                    found = self._read(reader, chunk)
                except ConfigurationError as error:
                    raise ConfigurationError(f"{path}, rows {first} to {first + rows - 1}: {error}") from None
                first += rows
                agents = None if columns.agent is None else [str(each) for each in _values(chunk[columns.agent])]
                at = 0
                for batch in found:
                    yield batch, None if agents is None else agents[at : at + batch.rows]
                    at += batch.rows

    def _named(self) -> list[str] | None:
        return list(self.inputs) or None

    def _read(self, reader: Reader, chunk: Mapping[str, Any]) -> list[Batch]:
        columns = self.columns
        probabilities = None
        if self.probabilities:
            parts = [np.asarray(chunk[name], dtype=np.float64) for name in self.probabilities]
            probabilities = parts[0] if len(parts) == 1 else np.column_stack(parts)
        single = {
            option: None if name is None else _values(chunk[name])
            for option, name in (
                ("labels", columns.labels),
                ("predictions", columns.predictions),
                ("ids", columns.ids),
                ("timestamps", columns.time),
            )
        }
        return reader.batches(probabilities, _frame({name: chunk[name] for name in self.inputs}), **single)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{path}: files that can be read end in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise ConfigurationError(f"{path}: no such file")
    return [path]


def _matching(globs: Sequence[str], there: Sequence[str], option: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for glob in globs:
        own = [name for name in there if fnmatchcase(name, glob)]
        if not own:
            raise ConfigurationError(f"{option} {glob!r} fits no column; there are {', '.join(there[:20])}")
        found.update(dict.fromkeys(own))
    return tuple(found)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "files") from None
    return pyarrow


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return tuple(name for member in archive.namelist() for name in _Member(path, archive, member).names)
    arrow = _arrow()
    try:
        if path.suffix == ".parquet":
            return tuple(arrow.parquet.read_schema(path).names)
        with arrow.csv.open_csv(path) as reader:
            return tuple(reader.schema.names)
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _chunks(path: Path, wanted: Sequence[str], columns: Columns) -> Iterator[Mapping[str, Any]]:
    """Columns by name, some thousand rows at a time."""
    if path.suffix == ".npz":
        yield from _npz(path, wanted)
        return
    arrow = _arrow()
    try:
        if path.suffix == ".parquet":
            with arrow.parquet.ParquetFile(path, pre_buffer=False) as file:
                for group in range(file.num_row_groups):  # all at once, pyarrow would come to hold the whole file
                    for batch in file.iter_batches(ROWS, [group], list(dict.fromkeys(wanted))):
                        yield dict(zip(batch.schema.names, batch.columns, strict=True))
            return
        with arrow.csv.open_csv(path, arrow.csv.ReadOptions(block_size=CSV_BLOCK)) as reader:
            schema = reader.schema
        numbers = set(wanted) - {columns.labels, columns.predictions, columns.ids, columns.time, columns.agent}
        # What is whole numbers, or empty, in the first block may be neither further on.
        types = {field.name: arrow.float64() for field in schema
                 if field.name in numbers and arrow.types.is_integer(field.type)}  # fmt: skip
        types |= {field.name: arrow.string() for field in schema if arrow.types.is_null(field.type)}
        convert = arrow.csv.ConvertOptions(column_types=types, include_columns=list(dict.fromkeys(wanted)),
                                           strings_can_be_null=True)  # fmt: skip
        with arrow.csv.open_csv(path, arrow.csv.ReadOptions(block_size=CSV_BLOCK), convert_options=convert) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    yield dict(zip(part.schema.names, part.columns, strict=True))
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _frame(columns: Mapping[str, Any]) -> Any:
    if not columns:
        return None
    if all(isinstance(each, np.ndarray) and each.dtype.kind in "fiu" for each in columns.values()):
        return np.column_stack(list(columns.values()))
    return _arrow().table(
        {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in columns.items()}
    )


def _values(column: Any) -> Any:
    return column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False)


class _Member:
    """An array of an npz file: a column, or a matrix whose columns are numbered; its rows are read as a stream."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: str) -> None:
        self._stream = archive.open(member)
        name = member.removesuffix(".npy")
        try:
            version = np.lib.format.read_magic(self._stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            self.shape, by_column, self.dtype = read(self._stream)
        except (ValueError, KeyError, EOFError) as error:
            raise ConfigurationError(f"{path}: {member} is no array: {error}") from None
        if self.dtype.hasobject or len(self.shape) not in (1, 2):
            raise ConfigurationError(
                f"{path}: array {name!r} holds Python objects or has {len(self.shape)} dimensions; save one- or "
                "two-dimensional arrays of numbers or text"
            )
        prefix = "feat" if name == "inputs" else name  # as the publisher names columns that have no names
        self.names = [name] if len(self.shape) == 1 else [f"{prefix}_{i}" for i in range(self.shape[1])]

        self._whole: Any = None
        self._at = 0
        if by_column and len(self.shape) == 2:  # rows are no stretch of the stream: it has to be held in memory
            self._whole = lambda: np.load(path, allow_pickle=False)[name]

    def rows(self, n: int) -> Mapping[str, Any]:
        """The next rows, at most `n`, by column."""
        width = 1 if len(self.shape) == 1 else self.shape[1]
        if self._whole is None:
            data = self._stream.read(n * width * self.dtype.itemsize)
            matrix = np.frombuffer(data, dtype=self.dtype).reshape(-1, width)
        else:
            if callable(self._whole):
                self._whole = self._whole()
            matrix = self._whole[self._at : self._at + n]
            self._at += n
        return {name: matrix[:, i] for i, name in enumerate(self.names)}


def _npz(path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with ExitStack() as stack:
        members = []
        with zipfile.ZipFile(path) as archive:
            listed = archive.namelist()
        for name in listed:
            member = _Member(path, stack.enter_context(zipfile.ZipFile(path)), name)
            if set(member.names) & set(wanted):
                members.append(member)
        if len({member.shape[0] for member in members}) > 1:
            shown = ", ".join(f"{member.names[0]}: {member.shape[0]}" for member in members)
            raise ConfigurationError(f"{path}: arrays of different lengths ({shown})")
        for _ in range(0, members[0].shape[0], ROWS):
            chunk: dict[str, Any] = {}
            for member in members:
                chunk.update(member.rows(ROWS))
            yield chunk
