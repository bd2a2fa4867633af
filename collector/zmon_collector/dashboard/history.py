"""The history: points of recent windows in a SQLite file of their own, for the page; bounded by age and by bytes.

Points that share all names but class, feature, category and the like form a bundle, stored as one array per window,
because they are read together: a window of ten thousand series is about a hundred rows. One connection, used by one
thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zmon.contract import DIMENSIONS, Point, Report
from zmon.errors import ConfigurationError
from zmon_collector.private_files import create_private
from zmon_collector.storage.integrity import set_aside

log = logging.getLogger("zmon.collector")
T = TypeVar("T")

APPLICATION = 0x7A6D6F6E  # "zmon"
REMEMBERED = 500_000  # names of series cached with their numbers
REMEMBERED_BYTES = 64 * 2**20  # of those names' characters: publishers choose them
TRIM_EVERY = 60.0  # seconds
NAMES_EVERY = 3600.0  # seconds between two searches for names that no window has any more: they read all layouts
PAUSES = (0.1, 0.4, 1.0)  # seconds before a file that seems to be damaged is read again
DISK_ERRORS = tuple(f"SQLITE_{name}" for name in ("FULL", "IOERR", "BUSY", "LOCKED", "CANTOPEN", "READONLY", "NOMEM"))
NAMES = (*(name for name in DIMENSIONS if name != "stat"), "basis")
BASIS = "prediction_time"  # of restated windows (compute/restatement.py), whose reports have sequence 0
_names_of = attrgetter(*NAMES[:-1])

# What schema 1 did not have.
_DETAILS = """
CREATE TABLE detail (report INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, agent TEXT NOT NULL,
    metric TEXT NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX detail_time ON detail (model, version, agent, metric, start, report);
CREATE INDEX detail_report ON detail (report);
"""
# Sequences may begin again: with a new state.sqlite, or with an older copy of it. A report whose sequence is another
# window's gets a number of its own here, and `origin` keeps the sequence by which it is recognised.
_ORIGINS = "ALTER TABLE report ADD COLUMN origin INTEGER;"
_AGES = "CREATE INDEX report_written ON report (written, sequence);"  # or each look for old ones would read all
_MIGRATIONS = (_DETAILS, _ORIGINS, _AGES)  # each turns a file of one schema into one of the next
SCHEMA = 1 + len(_MIGRATIONS)

_TABLES = (
    """
CREATE TABLE bundle (id INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, agent TEXT NOT NULL,
    what TEXT NOT NULL, stat TEXT NOT NULL, UNIQUE (model, version, agent, what, stat));
CREATE TABLE series (id INTEGER PRIMARY KEY, bundle INTEGER NOT NULL, names TEXT NOT NULL, UNIQUE (bundle, names));
CREATE TABLE layout (id INTEGER PRIMARY KEY, bundle INTEGER NOT NULL, ids BLOB NOT NULL, UNIQUE (bundle, ids));
CREATE TABLE frame (bundle INTEGER NOT NULL, start INTEGER NOT NULL, report INTEGER NOT NULL, layout INTEGER NOT NULL,
    numbers BLOB NOT NULL);
CREATE UNIQUE INDEX frame_time ON frame (bundle, start, report);
CREATE INDEX frame_report ON frame (report);
CREATE TABLE report (sequence INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, start INTEGER NOT NULL,
    end INTEGER NOT NULL, written REAL NOT NULL);
CREATE INDEX report_model ON report (model, version, start);
"""
    + _DETAILS
    + _ORIGINS
    + _AGES
)


class History:
    """The history's file. Every method is called by the thread that opened it.

    Parameters
    ----------
    path : Path
    keep : float
        Seconds after which a window is dropped, by the time it was written.
    limit : int
        Bytes of the file; beyond it the oldest windows are dropped.
    """

    def __init__(self, path: Path, keep: float, limit: int) -> None:
        self.path = path
        self.set_aside = 0
        self._keep, self._limit = keep, limit
        self._db: sqlite3.Connection | None = None
        self._wanted = False  # between `open` and `close`
        self._bundle = lru_cache(REMEMBERED)(self._find_bundle)
        self._number = lru_cache(REMEMBERED)(self._find_number)
        self._remembered = 0  # characters of those names
        self._layout = lru_cache(REMEMBERED // 100)(partial(self._id, "layout", ("bundle", "ids")))
        self._trimmed = 0.0
        self._names_trimmed = float("-inf")

    # --- the file ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open or create the file; if the disk does not let it, try again at each use.

        Raises
        ------
        ConfigurationError
            A newer release wrote it; it is left untouched.
        """
        self.refuse_newer()
        self._wanted = True
        try:
            self._survive_damage(lambda: None)
        except (sqlite3.Error, OSError) as error:
            log.error("%s cannot be opened, the page's history misses windows until it can: %s", self.path, error)

    def refuse_newer(self) -> None:
        """Raise ConfigurationError if a newer release wrote the file."""
        _refuse_newer(self.path)

    def _connect(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private(self.path)
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            fresh = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not fresh and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                raise sqlite3.DatabaseError("the file belongs to another program")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a lost tail is acceptable: the written files are the record
            db.execute("PRAGMA journal_size_limit = 4194304")
            if fresh:
                db.executescript(
                    f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;"
                )
            elif (version := db.execute("PRAGMA user_version").fetchone()[0]) < SCHEMA:
                steps = " ".join(_MIGRATIONS[version - 1 :])
                db.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA}; COMMIT;")
            for table in ("bundle", "report"):  # whether it can be read at all; it may be large, so one row
                db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
        except BaseException:
            db.close()
            raise
        self._db = db
        self._forget_numbers()

    def _survive_damage(self, call: Callable[[], T]) -> T:
        """Make a call; if the file turns out to be damaged, make it again on a new, empty one.

        A disk that fails for a moment can look like damage, so the file is read again first.
        """
        for pause in (*PAUSES, None):
            try:
                if self._db is None and self._wanted:
                    self._connect()
                return call()
            except sqlite3.DatabaseError as error:
                self._forget_numbers()  # numbers from a transaction that was rolled back are invalid
                if self._is_intact(error):
                    raise
                self._disconnect()
                if pause is None:
                    self._start_over(error)
                else:
                    time.sleep(pause)
        return call()

    def _is_intact(self, error: sqlite3.DatabaseError) -> bool:
        """Return whether an error says nothing about the file: the disk is full, or fails, or a query is wrong."""
        if isinstance(error, sqlite3.ProgrammingError):
            return True
        if self._db is not None:
            return isinstance(error, sqlite3.OperationalError)
        return str(getattr(error, "sqlite_errorname", "")).startswith(DISK_ERRORS)  # a table may be missing, too

    def _start_over(self, error: sqlite3.DatabaseError) -> None:
        """Set a damaged file aside under another name and start an empty one."""
        renamed = set_aside(self.path, f"{self.path.name}.corrupt")
        log.error(
            "%s is damaged (%s): it is set aside as %s and the history starts empty", self.path, error, renamed.name
        )
        self.set_aside += 1
        self._connect()

    def close(self) -> None:
        """Close the file. Safe to call twice, and without `open`."""
        self._wanted = False
        self._disconnect()

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _forget_numbers(self) -> None:
        for cached in (self._bundle, self._number, self._layout):
            cached.cache_clear()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.ProgrammingError("the history is not open")
        return self._db

    @property
    def nbytes(self) -> int:
        """Bytes in use, without free pages."""
        pages, free, size = (
            self._open.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    # --- write -------------------------------------------------------------------------------------------------------

    def append(self, report: Report, now: float) -> None:
        """Write the points of a report. The same report again changes nothing."""
        self._survive_damage(lambda: self._append(report, now))
        if now - self._trimmed > TRIM_EVERY:
            self._trimmed = now
            self.trim(now)

    def _append(self, report: Report, now: float) -> None:
        db = self._open
        with _transaction(db):
            origin = report.sequence
            report = replace(report, sequence=self._number_of(report) if origin else self._restatement(report))
            db.execute("DELETE FROM frame WHERE report = ?", (report.sequence,))
            db.execute(
                'INSERT OR REPLACE INTO report (sequence, model, version, start, "end", written, origin)'
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(report.sequence, report.model, report.version, report.window.start, report.window.end, now),
                    origin if report.sequence != origin and origin else None,
                ),
            )
            frames = [
                (bundle, report.window.start, report.sequence, self._layout(bundle, ids), numbers.tobytes())
                for bundle, ids, numbers in self._bundled(report)
            ]
            db.executemany("INSERT INTO frame (bundle, start, report, layout, numbers) VALUES (?, ?, ?, ?, ?)", frames)
            db.execute("DELETE FROM detail WHERE report = ?", (report.sequence,))
            about = (report.sequence, report.model, report.version)
            db.executemany(
                "INSERT INTO detail (report, model, version, agent, metric, start, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*about, agent or "", metric, report.window.start, data)
                 for (agent, metric), data in report.details.items()],
            )  # fmt: skip

    def _number_of(self, report: Report) -> int:
        """Return the number of a report: its sequence, unless that is another window's."""
        db = self._open
        known = db.execute(
            "SELECT sequence FROM report WHERE model = ? AND version = ? AND start = ? AND +sequence > 0"
            " AND coalesce(origin, sequence) = ?",
            (report.model, report.version, report.window.start, report.sequence),
        ).fetchone()
        if known is not None:  # it is delivered again
            return int(known[0])
        taken = db.execute("SELECT 1 FROM report WHERE sequence = ?", (report.sequence,)).fetchone()
        return report.sequence if taken is None else 1 + _newest(db)

    def _restatement(self, report: Report) -> int:
        """Return the report number of a restated window: negative, and the same when it is restated again."""
        db = self._open
        window = (report.model, report.version, report.window.start)
        row = db.execute(
            "SELECT sequence FROM report WHERE model = ? AND version = ? AND start = ? AND sequence < 0", window
        ).fetchone()
        if row is None:
            row = db.execute("SELECT min(0, coalesce(min(sequence), 0)) - 1 FROM report").fetchone()
        return int(row[0])

    def _bundled(self, report: Report) -> Iterator[tuple[int, bytes, Any]]:
        basis = BASIS if report.sequence < 0 else ""
        by_bundle: dict[tuple[str, str, str, str, str], list[Point]] = {}
        for point in report.points:
            key = (report.model, report.version, point.agent_id or "", point.value.what, point.value.stat)
            by_bundle.setdefault(key, []).append(point)
        for key, points in by_bundle.items():
            bundle = self._bundle(*key)
            numbers: dict[int, float] = {}
            for point in points:
                numbers[self._number(bundle, *_names_of(point.value), basis)] = point.value.value
            ids = np.fromiter(numbers, dtype="<u4", count=len(numbers))
            yield bundle, ids.tobytes(), np.fromiter(numbers.values(), dtype="<f8", count=len(numbers))

    def _find_bundle(self, *key: str) -> int:
        return self._id("bundle", ("model", "version", "agent", "what", "stat"), *key)

    def _find_number(self, bundle: int, *names: str) -> int:
        self._remembered += sum(map(len, names))
        if self._remembered > REMEMBERED_BYTES:
            self._remembered = 0
            self._number.cache_clear()
        text = json.dumps({key: name for key, name in zip(NAMES, names, strict=True) if name})
        return self._id("series", ("bundle", "names"), bundle, text)

    def _id(self, table: str, columns: Sequence[str], *values: str | int | bytes) -> int:
        """Return the id of a row; insert the row if it is missing."""
        marks = ", ".join("?" * len(columns))
        self._open.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})", values)
        where = " AND ".join(f"{column} = ?" for column in columns)
        return int(self._open.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()[0])

    # --- drop by age and bytes ---------------------------------------------------------------------------------------

    def trim(self, now: float) -> None:
        """Drop windows older than `keep`, and the oldest while the file uses more than `limit` bytes."""
        db = self._open
        dropped = self._drop("written < ?", now - self._keep)
        if dropped and now - self._names_trimmed >= NAMES_EVERY:
            self._names_trimmed = now
            self._drop_names()
        while self.nbytes > self._limit:
            count = db.execute("SELECT count(*) FROM report").fetchone()[0]
            if count <= 1:
                break
            oldest = "sequence IN (SELECT sequence FROM report ORDER BY written, sequence LIMIT ?)"
            dropped += self._drop(oldest, max(1, count // 10))
            self._drop_names()
        if dropped:
            db.execute("PRAGMA incremental_vacuum").fetchall()

    def _drop(self, which: str, value: float) -> int:
        db = self._open
        with _transaction(db):
            for table in ("frame", "detail"):
                db.execute(f"DELETE FROM {table} WHERE report IN (SELECT sequence FROM report WHERE {which})", (value,))
            return db.execute(f"DELETE FROM report WHERE {which}", (value,)).rowcount

    def _drop_names(self) -> None:
        """Drop the names of what no window has any more."""
        db = self._open
        with _transaction(db):
            db.execute("DELETE FROM layout WHERE id NOT IN (SELECT layout FROM frame)")
            db.execute("DELETE FROM bundle WHERE id NOT IN (SELECT bundle FROM layout)")
            self._drop_series()
        self._forget_numbers()

    def _drop_series(self) -> None:
        """Drop series that no layout refers to any more: categories and features come and go."""
        db = self._open
        used = [np.frombuffer(ids, dtype="<u4") for (ids,) in db.execute("SELECT ids FROM layout")]
        kept = set(np.unique(np.concatenate(used)).tolist()) if used else set()
        gone = [(number,) for (number,) in db.execute("SELECT id FROM series") if number not in kept]
        db.executemany("DELETE FROM series WHERE id = ?", gone)

    # --- read --------------------------------------------------------------------------------------------------------

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of history_queries.py; if the file turns out to be damaged, run it on a new, empty one."""
        return self._survive_damage(lambda: query(self._open))


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def newest_sequence(path: Path) -> int:
    """Return the newest report's number in a history that may be missing, or be anything else; 0 without one."""
    return _looked_up(path, _newest) or 0


def windows_after(path: Path, sequence: int) -> list[tuple[str, str, int, int]]:
    """Return model, version, start and end of the windows that a history has of later reports."""
    query = "SELECT model, version, start, end FROM report WHERE sequence > ?"
    return _looked_up(path, lambda db: db.execute(query, (sequence,)).fetchall()) or []


def _looked_up(path: Path, look: Callable[[sqlite3.Connection], T]) -> T | None:
    _refuse_newer(path)
    try:
        if not path.is_file():
            return None
        with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as db:
            return look(db)
    except (sqlite3.Error, OSError):
        return None  # `History.open` says what is wrong with it


def _newest(db: sqlite3.Connection) -> int:
    return max(0, db.execute("SELECT max(sequence) FROM report").fetchone()[0] or 0)


def _refuse_newer(path: Path) -> None:
    """Read the header's bytes, because opening a database already writes files next to it."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:  # missing, or nothing that can be read: `History.open` says what is wrong with it
        return
    version = int.from_bytes(header[60:64], "big")
    ours = int.from_bytes(header[68:72], "big") == APPLICATION
    if header.startswith(b"SQLite format 3\0") and ours and version > SCHEMA:
        raise ConfigurationError(
            f"{path} was written by a newer release (schema {version}, this one knows {SCHEMA}); it is left untouched: "
            "use that release, or move the file away"
        )
