"""Files of rows: csv, parquet and npz, in pieces that are read on their own, chunk by chunk, larger than memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zmon.errors import ConfigurationError, MissingExtraError

ROWS = 16_384  # of a chunk
PIECE_ROWS = 8 * ROWS  # of a piece of an npz file
CSV_BLOCK = 8 * 2**20  # bytes; kinds of csv columns are settled by the first block
CSV_PIECE = 32 * 2**20  # bytes of a piece of a csv file, at least
SUFFIXES = (".csv", ".parquet", ".npz")


class FilePiece(NamedTuple):
    """A stretch of a file: a row group of parquet, lines of csv, rows of npz.

    `at` is the row group, the first byte, or the first row; `size` its bytes or rows; `first` the number of its first
    row in the file, from 1.
    """

    path: Path
    at: int
    size: int
    first: int


def listed(path: Path) -> list[Path]:
    """The file, or the files of a folder that can be read."""
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{path}: files that can be read end in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise ConfigurationError(f"{path}: no such file")
    return [path]


def names(path: Path) -> tuple[str, ...]:
    """The columns of a file."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return tuple(name for member in archive.namelist() for name in _Member(path, archive, member).names)
    arrow = pyarrow()
    try:
        if path.suffix == ".parquet":
            return tuple(arrow.parquet.read_schema(path).names)
        with arrow.csv.open_csv(path) as reader:
            return tuple(reader.schema.names)
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def pieces(path: Path) -> Iterator[FilePiece]:
    """The pieces of a file, in order; no row is read twice."""
    if path.suffix == ".parquet":
        arrow = pyarrow()
        try:
            with arrow.parquet.ParquetFile(path, pre_buffer=False) as file:
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (arrow.ArrowException, OSError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from None
        first = 1
        for group, rows in enumerate(sizes):
            yield FilePiece(path, group, rows, first)
            first += rows
    elif path.suffix == ".csv":
        yield from _lines(path)
    else:
        rows = _length(path)
        for at in range(0, rows, PIECE_ROWS):
            yield FilePiece(path, at, min(PIECE_ROWS, rows - at), at + 1)


def _lines(path: Path) -> Iterator[FilePiece]:
    """Stretches of whole records: a newline ends one where the quotes before it are even in number."""
    quoted = False
    start = -1  # where the piece begins; the header comes first
    first, records, at = 1, 0, 0
    with path.open("rb") as file:
        while block := file.read(CSV_BLOCK):
            data = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(data == ord("\n"))
            quotes = np.flatnonzero(data == ord('"'))
            if len(quotes) or quoted:
                ends = ends[(np.searchsorted(quotes, ends) + quoted) % 2 == 0]
                quoted = (len(quotes) + quoted) % 2 == 1
            if start < 0 and len(ends):
                start, ends = at + int(ends[0]) + 1, ends[1:]
            records += len(ends)
            if len(ends) and start >= 0 and at + int(ends[-1]) + 1 - start >= CSV_PIECE:
                end = at + int(ends[-1]) + 1
                yield FilePiece(path, start, end - start, first)
                start, first = end, first + records
                records = 0
            at += len(block)
    if 0 <= start < at:
        yield FilePiece(path, start, at - start, first)


def chunks(piece: FilePiece, wanted: Sequence[str], measured: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """A piece's columns by name, some thousand rows at a time.

    `measured` are those of csv that hold numbers wherever they begin with whole ones.
    """
    wanted = list(dict.fromkeys(wanted))
    if piece.path.suffix == ".npz":
        yield from _npz(piece, wanted)
        return
    arrow = pyarrow()
    try:
        if piece.path.suffix == ".parquet":
            with arrow.parquet.ParquetFile(piece.path, pre_buffer=False) as file:
                for batch in file.iter_batches(ROWS, [piece.at], wanted):
                    yield dict(zip(batch.schema.names, batch.columns, strict=True))
        else:
            for batch in _csv(arrow, piece, wanted, measured):
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    yield dict(zip(part.schema.names, part.columns, strict=True))
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{piece.path} cannot be read: {error}") from None


def _csv(arrow: Any, piece: FilePiece, wanted: Sequence[str], measured: Sequence[str]) -> Iterator[Any]:
    with arrow.csv.open_csv(piece.path, arrow.csv.ReadOptions(block_size=CSV_BLOCK)) as reader:
        schema = reader.schema
    # What is whole numbers, or empty, in the first block may be neither further on.
    types = {field.name: field.type for field in schema}
    types |= {field.name: arrow.float64() for field in schema
              if field.name in measured and arrow.types.is_integer(field.type)}  # fmt: skip
    types |= {field.name: arrow.string() for field in schema if arrow.types.is_null(field.type)}
    read = arrow.csv.ReadOptions(block_size=CSV_BLOCK, column_names=schema.names)
    convert = arrow.csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=True)
    with piece.path.open("rb") as file:
        file.seek(piece.at)
        data = arrow.BufferReader(file.read(piece.size))
    with arrow.csv.open_csv(data, read, convert_options=convert) as reader:
        yield from reader


def values(column: Any) -> Any:
    """A column as a NumPy array."""
    return column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False)


def pyarrow() -> Any:
    """The library that reads csv and parquet; MissingExtraError says how to get it."""
    try:
        import pyarrow as arrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "files") from None
    return arrow


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


def _members(path: Path, stack: ExitStack, wanted: Sequence[str]) -> list[_Member]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    found = [_Member(path, stack.enter_context(zipfile.ZipFile(path)), name) for name in names]
    return [member for member in found if not wanted or set(member.names) & set(wanted)]


def _length(path: Path) -> int:
    with ExitStack() as stack:
        return max((member.shape[0] for member in _members(path, stack, ())), default=0)


def _npz(piece: FilePiece, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with ExitStack() as stack:
        members = _members(piece.path, stack, wanted)
        if len({member.shape[0] for member in members}) > 1:
            shown = ", ".join(f"{member.names[0]}: {member.shape[0]}" for member in members)
            raise ConfigurationError(f"{piece.path}: arrays of different lengths ({shown})")
        end = min(piece.at + piece.size, members[0].shape[0])
        for at in range(0, end, ROWS):
            chunk: dict[str, Any] = {}
            for member in members:
                chunk.update(member.rows(min(ROWS, end - at)))
            if at >= piece.at:
                yield chunk
