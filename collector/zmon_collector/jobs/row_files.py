"""Read files of rows (csv, parquet, npz) that may be larger than memory: a file in pieces, a piece in chunks."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zmon.errors import ConfigurationError, MissingExtraError

ROWS = 16_384  # per chunk
PIECE_ROWS = 8 * ROWS  # per piece of an npz file
CSV_BLOCK = 8 * 2**20  # bytes; the first block decides the types of the columns
CSV_PIECE = 32 * 2**20  # minimum bytes per piece of a csv file
SUFFIXES = (".csv", ".parquet", ".npz")


class FilePiece(NamedTuple):
    """Part of a file: a row group of parquet, lines of csv, rows of npz.

    `at` is the row group, the first byte, or the first row; `size` is the number of bytes or rows; `first` is the
    number of the first row in the file, from 1.
    """

    path: Path
    at: int
    size: int
    first: int


def list_files(path: Path) -> list[Path]:
    """Return the file itself, or all readable files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{path}: unknown file type; readable files end in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise ConfigurationError(f"{path}: no such file")
    return [path]


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return tuple(name for member in archive.namelist() for name in _NpzArray(path, archive, member).names)
    with _reading(path) as arrow:
        if path.suffix == ".parquet":
            return tuple(arrow.parquet.read_schema(path).names)
        with arrow.csv.open_csv(path) as reader:
            return tuple(reader.schema.names)


def split_file(path: Path) -> Iterator[FilePiece]:
    """Yield the pieces of a file in order. Together they hold every row once."""
    if path.suffix == ".parquet":
        with _reading(path) as arrow, arrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = 1
        for group, rows in enumerate(sizes):
            yield FilePiece(path, group, rows, first)
            first += rows
    elif path.suffix == ".csv":
        yield from _split_csv(path)
    else:
        with ExitStack() as stack:
            rows = max((array.shape[0] for array in _open_arrays(path, stack, ())), default=0)
        for at in range(0, rows, PIECE_ROWS):
            yield FilePiece(path, at, min(PIECE_ROWS, rows - at), at + 1)


def _split_csv(path: Path) -> Iterator[FilePiece]:
    """Split at the ends of records: a newline ends a record if an even number of quotes precedes it."""
    quoted = False
    start = -1  # where the piece begins; -1 until the header has been read
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


def read_chunks(piece: FilePiece, wanted: Sequence[str], measured: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield a piece's columns by name, at most `ROWS` rows at a time.

    `measured` names csv columns that are read as floats even if their first values are whole numbers.
    """
    wanted = list(dict.fromkeys(wanted))
    if piece.path.suffix == ".npz":
        yield from _read_npz(piece, wanted)
        return
    with _reading(piece.path) as arrow:
        if piece.path.suffix == ".parquet":
            with arrow.parquet.ParquetFile(piece.path, pre_buffer=False) as file:
                for batch in file.iter_batches(ROWS, [piece.at], wanted):
                    yield dict(zip(batch.schema.names, batch.columns, strict=True))
        else:
            for batch in _read_csv(arrow, piece, wanted, measured):
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    yield dict(zip(part.schema.names, part.columns, strict=True))


def _read_csv(arrow: Any, piece: FilePiece, wanted: Sequence[str], measured: Sequence[str]) -> Iterator[Any]:
    with arrow.csv.open_csv(piece.path, arrow.csv.ReadOptions(block_size=CSV_BLOCK)) as reader:
        schema = reader.schema
    # A column that is integer or empty in the first block may hold floats or strings later.
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


def to_numpy(column: Any) -> Any:
    """Return a column as a NumPy array."""
    return column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False)


def pyarrow() -> Any:
    """Import pyarrow, which reads csv and parquet, or raise MissingExtraError."""
    try:
        import pyarrow as arrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "files") from None
    return arrow


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Return pyarrow; what goes wrong while it reads the file becomes a ConfigurationError."""
    arrow = pyarrow()
    try:
        yield arrow
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


class _NpzArray:
    """Array of an npz file, read as a stream of rows: a column, or a matrix whose columns are numbered."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: str) -> None:
        self._stream = archive.open(member)
        name = member.removesuffix(".npy")
        try:
            version = np.lib.format.read_magic(self._stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            self.shape, by_column, self.dtype = read(self._stream)
        except (ValueError, KeyError, EOFError) as error:
            raise ConfigurationError(f"{path}: {member} is not an array: {error}") from None
        if self.dtype.hasobject or len(self.shape) not in (1, 2):
            raise ConfigurationError(
                f"{path}: array {name!r} holds Python objects or has {len(self.shape)} dimensions; save one- or "
                "two-dimensional arrays of numbers or strings"
            )
        prefix = "feat" if name == "inputs" else name  # the publisher's names for unnamed inputs
        self.names = [name] if len(self.shape) == 1 else [f"{prefix}_{i}" for i in range(self.shape[1])]

        self._whole: Callable[[], Any] | None = None
        self._at = 0
        if by_column and len(self.shape) == 2:  # rows are not contiguous in the stream: load the whole array
            self._whole = cache(lambda: np.load(path, allow_pickle=False)[name])

    def rows(self, n: int) -> Mapping[str, Any]:
        """Return the next rows, at most `n`, by column."""
        width = 1 if len(self.shape) == 1 else self.shape[1]
        if self._whole is None:
            data = self._stream.read(n * width * self.dtype.itemsize)
            matrix = np.frombuffer(data, dtype=self.dtype).reshape(-1, width)
        else:
            matrix = self._whole()[self._at : self._at + n]
            self._at += n
        return {name: matrix[:, i] for i, name in enumerate(self.names)}


def _open_arrays(path: Path, stack: ExitStack, wanted: Sequence[str]) -> list[_NpzArray]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    arrays = [_NpzArray(path, stack.enter_context(zipfile.ZipFile(path)), name) for name in names]
    return [array for array in arrays if not wanted or set(array.names) & set(wanted)]


def _read_npz(piece: FilePiece, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with ExitStack() as stack:
        arrays = _open_arrays(piece.path, stack, wanted)
        if len({array.shape[0] for array in arrays}) > 1:
            lengths = ", ".join(f"{array.names[0]}: {array.shape[0]}" for array in arrays)
            raise ConfigurationError(f"{piece.path}: arrays of different lengths ({lengths})")
        end = min(piece.at + piece.size, arrays[0].shape[0])
        for at in range(0, end, ROWS):  # from the first row: a stream cannot be entered in the middle
            chunk: dict[str, Any] = {}
            for array in arrays:
                chunk.update(array.rows(min(ROWS, end - at)))
            if at >= piece.at:
                yield chunk
