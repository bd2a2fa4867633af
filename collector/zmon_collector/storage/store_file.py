"""The file state.sqlite: opened and migrated, read again when the disk fails for a moment, set aside when damaged."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from zmon.errors import ConfigurationError
from zmon_collector.private_files import create_private
from zmon_collector.storage import schema
from zmon_collector.storage.integrity import set_aside
from zmon_collector.storage.salvage import Salvage, salvage
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

# A disk that fails for a second gives errors, or pages that look damaged. So a file is called damaged only after it was
# found to be so each time, over some seconds.
PAUSES = (0.2, 0.8, 2.0)  # seconds between the tries
MOST_BLOB = 512 * 2**20  # bytes of a row, twice what metrics may keep; SQLite breaks at a gigabyte
NOTE = ".txt"  # added to the name of a damaged file: what was read from it
MOST_DAMAGED = 3  # damaged files kept
WHOLE = (
    256 * 2**20
)  # bytes of a file that is checked page by page when it is opened: in half a second, whatever it holds
STEPS = 100_000  # of SQLite's machine between two signs of life, some milliseconds


class StoreFile:
    """Opens connections to state.sqlite.

    Parameters
    ----------
    path : Path
    telemetry : Telemetry
    alive : callable
        Called from time to time while a long statement runs or a try is awaited.
    """

    def __init__(self, path: Path, telemetry: Telemetry, alive: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.damaged_files: dict[str, str] = {}  # set aside, now or in an earlier run, with what was read from each
        self.incomplete: set[str] = set()  # tables of which only a part could be read from a damaged file
        self._telemetry = telemetry
        self._alive = alive
        self._identity: tuple[int, int] | None = None  # of the file that is open

    def is_in_place(self) -> bool:
        """Return whether the path still leads to the file that is open, and not to none or another one."""
        try:
            return _identity(self.path) == self._identity
        except FileNotFoundError:
            return False
        except OSError:  # the disk fails for a moment, perhaps
            return True

    def open(self) -> sqlite3.Connection:
        """Open the file; set a damaged one aside and start with a new one, with what could be read of it.

        Raises
        ------
        ConfigurationError
            When another collector has it open, a newer release wrote it, or the folder cannot be written.
        """
        self._describe_files()
        try:
            return self._connect_patiently()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise self._refused(error) from None
            try:
                return self._start_over(str(error))
            except sqlite3.Error as again:
                raise self._refused(again) from None

    def reopen(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Open the file again, in which damage was found; set it aside if it is found again, and raise the error."""
        close(connection)
        try:
            reopened = self._connect_patiently(whole=True)
        except sqlite3.Error as error:
            if is_damage(error):
                close(self._start_over(str(error)))
            raise
        # The pages are sound. What else SQLite calls damage is an index that differs from its table.
        try:
            reopened.execute("REINDEX")
        except sqlite3.Error as error:
            self.give_up(reopened, error)
            raise
        return reopened

    def give_up(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Set the file aside for good reason: it was opened again, and cannot be used all the same."""
        close(connection)
        close(self._start_over(str(error)))

    def _connect_patiently(self, *, whole: bool = False) -> sqlite3.Connection:
        """Connect, and try again while the disk gives errors or pages that are damaged."""
        for pause in PAUSES:
            try:
                return self._connect(whole=whole)
            except sqlite3.Error as error:
                if not (is_damage(error) or is_disk_error(error)):
                    raise
                log.warning("%s cannot be read (%s); trying again", self.path, error)
                self._telemetry.count("disk_errors")
                self._alive()
                time.sleep(pause)
        return self._connect(whole=whole)

    def _connect(self, *, whole: bool = False) -> sqlite3.Connection:
        """Connect, and check every page with `whole`, or if the file is not large.

        Damaged pages of a large file are found when they are read: then `reopen` checks all of it.
        """
        create_private(self.path)  # it holds raw rows
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.5)
        # A damaged string must be read, and found to be damaged, rather than end the query.
        connection.text_factory = _text
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BLOB)
        connection.set_progress_handler(self._alive, STEPS)
        try:
            version = self._version(connection)
            if version > schema.VERSION:
                raise ConfigurationError(
                    f"{self.path} was written by a newer zmon (version {version} of its tables, this release reads up "
                    f"to {schema.VERSION}); install that release, or choose another --data-dir"
                )
            schema.prepare(connection)
            if not version:
                schema.create(connection)
            elif version < schema.VERSION:
                schema.migrate(connection, version)
            if whole or self.path.stat().st_size <= WHOLE:
                (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if problem != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {problem}")
            self._identity = _identity(self.path)
        except BaseException:
            close(connection)
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            return schema.version_of(connection)
        except ValueError as error:
            raise ConfigurationError(f"{self.path}: {error}; choose another --data-dir") from None

    def _refused(self, error: sqlite3.Error) -> ConfigurationError:
        if name_of(error).startswith("SQLITE_BUSY"):
            return ConfigurationError(
                f"{self.path} is in use: another collector runs on this folder; stop it, or choose another --data-dir"
            )
        return ConfigurationError(f"{self.path} cannot be used: {error}; fix it, or choose another --data-dir")

    def _start_over(self, why: str) -> sqlite3.Connection:
        """Keep the damaged file under another name, and return a new one with what could be read of it."""
        renamed = set_aside(self.path, f"{self.path.name}.damaged-{int(time.time() * 1000)}")
        self._telemetry.count("files_set_aside")
        for old in self._set_aside_files()[:-MOST_DAMAGED]:
            for suffix in ("", "-wal", "-shm", NOTE):
                old.with_name(old.name + suffix).unlink(missing_ok=True)
        connection = self._connect()
        try:
            salvaged = salvage(renamed, connection)
        except (sqlite3.Error, OSError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            salvaged, note = Salvage(), f"what was in it is unknown, and lost ({error})"
        else:
            note = str(salvaged)
        self.incomplete = salvaged.incomplete
        renamed.with_name(renamed.name + NOTE).write_text(note + "\n")
        self._describe_files()
        log.error("%s is damaged (%s): it is set aside as %s and a new one is created; %s",
                  self.path, why, renamed.name, note)  # fmt: skip
        return connection

    def _set_aside_files(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))

    def _describe_files(self) -> None:
        self.damaged_files = {}
        for path in self._set_aside_files():
            note = path.with_name(path.name + NOTE)
            known = note.exists()
            self.damaged_files[path.name] = note.read_text().strip() if known else "what was open in it is unknown"


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def close(connection: sqlite3.Connection) -> None:
    """Close a connection whose disk may fail: what is not written then is in the log, for the next start."""
    try:
        connection.close()
    except sqlite3.Error as error:
        log.warning("state.sqlite was not closed cleanly: %s", error)


def name_of(error: BaseException) -> str:
    """Return SQLite's name of an error, such as SQLITE_FULL; empty if it has none."""
    return getattr(error, "sqlite_errorname", "") or ""


def is_damage(error: BaseException) -> bool:
    """Return whether the file was found to be damaged."""
    text = str(error)
    return name_of(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in text or "not a database" in text


def is_disk_error(error: BaseException) -> bool:
    """Return whether the disk failed, which may pass."""
    return name_of(error).startswith("SQLITE_IOERR")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
