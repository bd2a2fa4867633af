"""Read files of rows (csv, parquet, npz) that may be larger than memory: a file in pieces, a piece in chunks.

What one row, one chunk and the description of a file may take is bounded, so that a file that is broken or hostile
costs a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zmon.errors import ConfigurationError, MissingExtraError
from zmon_collector.jobs.npz_file import CHUNK_BYTES, MOST_COLUMNS, NpzFile

ROWS = 16_384  # per chunk
PIECE_ROWS = 8 * ROWS  # per piece of an npz file
CSV_BLOCK = 8 * 2**20  # bytes, which a row must fit into; the first block decides the types of the columns
CSV_PIECE = 32 * 2**20  # minimum bytes per piece of a csv file
PARQUET_FOOTER = 64 * 2**20  # bytes of a file's description
PARQUET_BUFFER = 2**20  # bytes of a column that are read at a time, whatever a row group holds
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
        with _reading(path), NpzFile(path) as arrays:
            return arrays.names
    arrow = pyarrow()
    with _reading(path):
        if path.suffix == ".parquet":
            with _open_parquet(arrow, path) as file:
                return tuple(file.schema_arrow.names)
        _check_header(path)
        with arrow.csv.open_csv(path, arrow.csv.ReadOptions(block_size=CSV_BLOCK)) as reader:
            return tuple(reader.schema.names)


def split_file(path: Path) -> Iterator[FilePiece]:
    """Yield the pieces of a file in order. Together they hold every row once."""
    if path.suffix == ".parquet":
        arrow = pyarrow()
        with _reading(path), _open_parquet(arrow, path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = 1
        for group, rows in enumerate(sizes):
            yield FilePiece(path, group, rows, first)
            first += rows
    elif path.suffix == ".csv":
        yield from _split_csv(path)
    else:
        with _reading(path), NpzFile(path) as arrays:
            rows = arrays.rows
        for at in range(0, rows, PIECE_ROWS):
            yield FilePiece(path, at, min(PIECE_ROWS, rows - at), at + 1)


def _split_csv(path: Path) -> Iterator[FilePiece]:
    """Split at the ends of records: a newline ends a record if an even number of quotes precedes it."""
    quoted = False
    start = -1  # where the piece begins; -1 until the header has been read
    first, records, at, last = 1, 0, 0, 0  # `last` is where the newest record begins
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
            last = max(last, at - len(block) + int(ends[-1]) + 1) if len(ends) else last
            if at - last > 2 * CSV_BLOCK:
                raise ConfigurationError(
                    f"{path}: the row that begins at byte {last:,} has more than {CSV_BLOCK // 2**20} MiB; "
                    "is a quote missing?"
                )
    if 0 <= start < at:
        yield FilePiece(path, start, at - start, first)


def read_chunks(piece: FilePiece, wanted: Sequence[str], measured: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield a piece's columns by name, at most `ROWS` rows at a time.

    `measured` names csv columns that are read as floats even if their first values are whole numbers.
    """
    wanted = list(dict.fromkeys(wanted))
    if piece.path.suffix == ".npz":
        with _reading(piece.path), NpzFile(piece.path) as arrays:
            yield from arrays.read(piece.at, piece.size, wanted, ROWS)
        return
    arrow = pyarrow()
    with _reading(piece.path):
        if piece.path.suffix == ".parquet":
            yield from _read_parquet(arrow, piece, wanted)
        else:
            for batch in _read_csv(arrow, piece, wanted, measured):
                for start in range(0, batch.num_rows, ROWS):
                    part = batch.slice(start, ROWS)
                    yield dict(zip(part.schema.names, part.columns, strict=True))


def _read_parquet(arrow: Any, piece: FilePiece, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield chunks of a row group.

    A file may name a long string once and mean it in every row, so strings are read as codes, and spelled out if they
    have room.
    """
    with _open_parquet(arrow, piece.path) as file:
        schema, metadata = file.schema_arrow, file.metadata
    coded = {field.name for field in schema if field.name in wanted and field.type in (arrow.string(), arrow.binary())}
    options = {"pre_buffer": False, "buffer_size": PARQUET_BUFFER, "metadata": metadata}
    with arrow.parquet.ParquetFile(piece.path, read_dictionary=sorted(coded), **options) as file:
        for batch in file.iter_batches(ROWS, [piece.at], wanted):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in coded:
                columns[name] = _spelled_out(arrow, piece.path, name, columns[name])
            yield columns


def _spelled_out(arrow: Any, path: Path, name: str, column: Any) -> Any:
    if not arrow.types.is_dictionary(column.type):
        return column
    lengths = arrow.compute.binary_length(column.dictionary)
    if (arrow.compute.sum(lengths.take(column.indices)).as_py() or 0) > CHUNK_BYTES:
        raise ConfigurationError(
            f"{path}: {len(column):,} strings of column {name!r:.60} have more than {CHUNK_BYTES // 2**20} MiB; leave "
            "the column out, or shorten them"
        )
    return column.dictionary_decode()


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
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "files") from None
    return arrow


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Make a ConfigurationError of whatever goes wrong: libraries raise anything for a file that is damaged."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        why = f"{error}".partition("\n")[0] or type(error).__name__
        if "straddling" in why or "out of sync" in why:  # pyarrow's words for a row that is larger than a block
            why = f"a row has more than {CSV_BLOCK // 2**20} MiB; is a quote missing?"
        raise ConfigurationError(f"{path} cannot be read: {why:.300}") from None


def _open_parquet(arrow: Any, path: Path) -> Any:
    """Open a parquet file whose description is not larger than that of any file of rows."""
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), 2)
        footer = int.from_bytes(file.read(4), "little")
    if footer > PARQUET_FOOTER:
        raise ConfigurationError(
            f"{path}: its footer has {footer:,} bytes, at most {PARQUET_FOOTER // 2**20} MiB are read; write it in "
            "several files"
        )
    opened = arrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER)
    columns = opened.metadata.num_columns
    if columns > MOST_COLUMNS:
        opened.close()
        raise ConfigurationError(f"{path} has {columns:,} columns, at most {MOST_COLUMNS:,} are read")
    return opened


def _check_header(path: Path) -> None:
    """Raise ConfigurationError for a first line that is no header: each of its columns costs some kilobytes."""
    with path.open("rb") as file:
        header = file.readline(CSV_BLOCK)
    if len(header) == CSV_BLOCK or header.count(b",") >= MOST_COLUMNS:
        raise ConfigurationError(
            f"{path}: its first line has {len(header):,} bytes and {header.count(b',') + 1:,} columns or more; at most "
            f"{MOST_COLUMNS:,} columns are read"
        )
