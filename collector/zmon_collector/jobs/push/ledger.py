"""Record on disk which samples `zmon push` has settled: a file by its content, a sample by its place in it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from zmon.errors import ConfigurationError
from zmon_collector.private_files import create_private, open_folder

APPLICATION, VERSION = 0x7A6D7073, 1  # "zmps"
TABLES = """
CREATE TABLE dealt (target TEXT, digest TEXT, places BLOB, PRIMARY KEY (target, digest)) WITHOUT ROWID;
CREATE TABLE refused (target TEXT, digest TEXT, place INTEGER, code TEXT, description TEXT,
    PRIMARY KEY (target, digest, place)) WITHOUT ROWID;
"""


class RefusalReason(NamedTuple):
    """Code of a refusal, the number of samples with it, and one of them."""

    code: str
    samples: int
    description: str
    digest: str
    place: int


class PushLedger:
    """The file push.sqlite, for one target: an address and a token, of which only a hash is kept.

    Parameters
    ----------
    path : Path
    url, token : str
    """

    def __init__(self, path: Path, url: str, token: str) -> None:
        self._target = blake2b(f"{url}\0{token}".encode(), digest_size=16).hexdigest()
        open_folder(path.parent, "--data-dir")
        create_private(path)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0.5)
            self._prepare(path)
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise ConfigurationError(
                    f"{path} is in use: another push uses this data folder; wait until it ends"
                ) from None
            raise ConfigurationError(f"{path} cannot be used: {error}; choose another --data-dir") from None

    def _prepare(self, path: Path) -> None:
        connection = self._connection
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not version and not application:
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif application != APPLICATION or version > VERSION:
            raise ConfigurationError(f"{path} belongs to another program or to a newer zmon; choose another --data-dir")
        connection.execute("COMMIT")

    def places(self, digest: str) -> int:
        """Return the settled places of a file, one bit for each."""
        row = self._connection.execute(
            "SELECT places FROM dealt WHERE target = ? AND digest = ?", (self._target, digest)
        ).fetchone()
        return int.from_bytes(row[0], "little") if row else 0

    def settle(self, places: Iterable[tuple[str, int]], refused: Sequence[tuple[str, int, str, str]]) -> None:
        """Record (digest, place) of settled samples, and (digest, place, code, description) of refused ones."""
        by_file: dict[str, int] = {}
        for digest, place in places:
            by_file[digest] = by_file.get(digest, 0) | 1 << place
        self._connection.execute("BEGIN")
        for digest, bits in by_file.items():
            bits |= self.places(digest)
            data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
            self._connection.execute(
                "INSERT OR REPLACE INTO dealt (target, digest, places) VALUES (?, ?, ?)", (self._target, digest, data)
            )
        self._connection.executemany(
            "INSERT OR REPLACE INTO refused (target, digest, place, code, description) VALUES (?, ?, ?, ?, ?)",
            [(self._target, *refusal) for refusal in refused],
        )
        self._connection.execute("COMMIT")

    def reasons(self, digests: Iterable[str]) -> list[RefusalReason]:
        """Return why samples of these files were refused, most frequent reason first."""
        counts: Counter[str] = Counter()
        first: dict[str, tuple[str, str, int]] = {}
        for digest in digests:
            for place, code, description in self._connection.execute(
                "SELECT place, code, description FROM refused WHERE target = ? AND digest = ? ORDER BY place",
                (self._target, digest),
            ):
                counts[code] += 1
                first.setdefault(code, (description, digest, place))
        return [RefusalReason(code, count, *first[code]) for code, count in counts.most_common()]

    def close(self) -> None:
        self._connection.close()
