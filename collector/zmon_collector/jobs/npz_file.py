"""Read an npz file: its arrays as streams of rows, side by side. What a header claims must be in the file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zmon.errors import ConfigurationError

MOST_COLUMNS = 65_536  # of a file
CHUNK_BYTES = 256 * 2**20  # fewer rows make a chunk where these would be exceeded
WHOLE = 2**30  # bytes of a matrix that is stored column by column, which is read as a whole
DIRECTORY = 16 * 2**20  # bytes of the archive's list of its arrays
DEFLATE = 1100  # deflate makes a thousandth of its input at best
_END = b"PK\x05\x06"  # of the archive, in the last 64 KiB
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzFile:
    """The arrays of a file; a context manager.

    Attributes
    ----------
    names : tuple of str
        The columns of all arrays.
    rows : int
        The rows of the longest array.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_directory(path)
        self._archive = zipfile.ZipFile(path)
        try:
            self._arrays: list[_NpzArray] = []
            columns = 0
            for member in self._archive.infolist():
                self._arrays.append(_NpzArray(path, self._archive, member, MOST_COLUMNS - columns))
                columns += len(self._arrays[-1].names)
        except BaseException:
            self._archive.close()
            raise
        self.names = tuple(name for array in self._arrays for name in array.names)
        self.rows = max((array.shape[0] for array in self._arrays), default=0)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, first: int, rows: int, wanted: Sequence[str], most: int) -> Iterator[Mapping[str, Any]]:
        """Yield the columns of some rows by name, in chunks of at most `most` rows."""
        arrays = [array for array in self._arrays if not wanted or not set(wanted).isdisjoint(array.names)]
        if len({array.shape[0] for array in arrays}) > 1:
            lengths = ", ".join(f"{array.names[0]}: {array.shape[0]}" for array in arrays[:20])
            raise ConfigurationError(f"{self._path}: arrays of different lengths ({lengths})")
        for array in arrays:
            array.open()
        end = min(first + rows, arrays[0].shape[0])
        step = max(1, min(most, CHUNK_BYTES // max(1, sum(array.row_bytes for array in arrays))))
        at = 0
        while at < end:  # from the first row: a stream cannot be entered in the middle
            n = min(step, (first if at < first else end) - at)
            chunk: dict[str, Any] = {}
            for array in arrays:
                chunk.update(array.take(n))
            if at >= first:
                yield chunk
            at += n


class _NpzArray:
    """Array of an npz file, read as a stream of rows: a column, or a matrix whose columns are numbered."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> None:
        self._path, self._archive, self._member = path, archive, member
        self.name = name = member.filename.removesuffix(".npy")
        with archive.open(member) as stream:
            try:
                self.shape, by_column, self.dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
            except Exception as error:  # noqa: BLE001 - NumPy evaluates the header, and lets any error of that pass
                why = f"{error}".partition("\n")[0] or type(error).__name__
                raise ConfigurationError(f"{path}: {member.filename!r:.60} is not an array: {why:.200}") from None
            self._start = stream.tell()
        if self.dtype.hasobject or self.dtype.kind == "V" or len(self.shape) not in (1, 2):
            raise ConfigurationError(
                f"{path}: array {name!r:.60} holds Python objects or has {len(self.shape)} dimensions; save one- or "
                "two-dimensional arrays of numbers or strings"
            )
        width = 1 if len(self.shape) == 1 else self.shape[1]
        if width > most:
            raise ConfigurationError(
                f"{path}: array {name!r:.60} makes it more than {MOST_COLUMNS:,} columns, the limit"
            )
        self.row_bytes = width * self.dtype.itemsize
        self._check_size()
        prefix = "feat" if name == "inputs" else name  # the publisher's names for unnamed inputs
        self.names = [name] if len(self.shape) == 1 else [f"{prefix}_{i}" for i in range(width)]
        self._by_column = by_column and len(self.shape) == 2
        self._stream: Any = None
        self._whole: Callable[[], Any] | None = None
        self._at = 0

    def _check_size(self) -> None:
        """Raise ConfigurationError unless the archive holds what the header and the archive's list claim."""
        member, claimed = self._member, self.shape[0] * self.row_bytes
        packed = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE}.get(member.compress_type, 0)
        within = min(member.compress_size, self._path.stat().st_size)
        if claimed + self._start != member.file_size or member.file_size > packed * within + self._start:
            raise ConfigurationError(
                f"{self._path}: array {self.name!r:.60} claims {self.shape[0]:,} rows of {self.row_bytes:,} bytes, "
                "which are not in the file; it is damaged, or was not written by NumPy"
            )
        if self.row_bytes > CHUNK_BYTES:
            raise ConfigurationError(
                f"{self._path}: a row of array {self.name!r:.60} has {self.row_bytes:,} bytes; at most "
                f"{CHUNK_BYTES // 2**20} MiB are read"
            )

    def open(self) -> None:
        """Begin to read rows."""
        if not self._by_column:
            self._stream = self._archive.open(self._member)
            self._stream.read(self._start)
            return
        # Rows are not contiguous in the stream.
        if self.shape[0] * self.row_bytes > WHOLE:
            raise ConfigurationError(
                f"{self._path}: array {self.name!r:.60} is stored column by column and has more than "
                f"{WHOLE // 2**30} GiB; save np.ascontiguousarray(array)"
            )
        self._whole = cache(lambda: np.load(self._path, allow_pickle=False)[self.name])

    def take(self, n: int) -> Mapping[str, Any]:
        """Return the next rows, `n` of them, by column."""
        if self._whole is None:
            data = self._stream.read(n * self.row_bytes)
            matrix = np.frombuffer(data, dtype=self.dtype).reshape(n, len(self.names))
        else:
            matrix = self._whole()[self._at : self._at + n]
            self._at += n
        return {name: matrix[:, i] for i, name in enumerate(self.names)}


def _check_directory(path: Path) -> None:
    """Raise ConfigurationError for an archive of too many arrays, which would all be listed when it is opened."""
    with path.open("rb") as file:
        file.seek(-min(2**16 + 22, path.stat().st_size), 2)
        _, found, end = file.read().rpartition(_END)
    if found and len(end) >= 12 and int.from_bytes(end[8:12], "little") > DIRECTORY:
        raise ConfigurationError(f"{path} has too many arrays; at most {MOST_COLUMNS:,} columns are read")
