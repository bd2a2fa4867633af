"""The one connection to state.sqlite, and the one thread that uses it: everything durable passes here, in order.

A commit waits for the disk, for milliseconds to tenths of a second. So jobs are committed in groups: all that
have gathered while the last transaction was synced share the next one. A job's `done` is called, from this thread, only
after its transaction is on disk; acknowledgements to publishers hang on that.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zmon.errors import ConfigurationError
from zmon_collector.storage import schema
from zmon_collector.storage.integrity import set_aside
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

Work = Callable[[sqlite3.Connection], Any]

GROUP_BYTES = 8 * 2**20  # a transaction takes no more jobs once it holds this many bytes
GROUP_JOBS = 256
# Deleting a closed window's rows can take seconds, and a commit that waited behind it would delay acknowledgements, so
# publishers would send again. So rows are deleted in slices of this many seconds, between commits.
SLICE = 0.008
FREE_BYTES = 64 * 2**20  # free pages kept in the file for reuse
FULL_WAIT = 0.5  # seconds between tries while the disk is full
MOST_DAMAGED = 3  # damaged files kept


@dataclass(slots=True)
class _Job:
    work: Work | None = None
    done: Callable[[Any], None] | None = None
    failed: Callable[[Exception], None] | None = None  # for a caller that waits; else an exception breaks the database
    nbytes: int = 0


class Database:
    """Runs jobs in order, each in a transaction.

    Parameters
    ----------
    path : Path
    telemetry : Telemetry
    changed : callable
        Called from the database's thread when `full` or `broken` changes.
    """

    def __init__(self, path: Path, telemetry: Telemetry, changed: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.full = False  # the disk is full: nothing is committed, so nothing is acknowledged
        self.broken = ""  # why it cannot continue; the process must end
        self.pending_bytes = 0
        self.damaged_files: list[str] = []  # set aside, at the start or later
        self.used_bytes = 0
        self.beat = time.monotonic()  # when the thread last did something, or looked for something to do
        self._telemetry = telemetry
        self._changed = changed
        self._jobs: deque[_Job] = deque()
        self._deletions: deque[tuple[int, int]] = deque()  # (window, turn up to which its chunks go)
        self._ready = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection
        self._thread = threading.Thread(target=self._run, name="zmon-store", daemon=True)

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file; set a damaged one aside and start with an empty one.

        Raises
        ------
        ConfigurationError
            When another collector has it open, a newer release wrote it, or the folder cannot be written.
        """
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise self._refused(error) from None
            self._set_aside(str(error))
            try:
                self._connection = self._connect()
            except sqlite3.Error as again:
                raise self._refused(again) from None
        self._measure()

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.5)
        # A damaged string must be read, and found to be damaged, rather than end the query.
        connection.text_factory = _text
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
                self.path.chmod(0o600)  # it holds raw rows
            elif version < schema.VERSION:
                schema.migrate(connection, version)
            problems = connection.execute("PRAGMA quick_check(1)").fetchone()
            if problems != ("ok",):
                raise sqlite3.DatabaseError(f"malformed: {problems[0]}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            return schema.version_of(connection)
        except ValueError as error:
            raise ConfigurationError(f"{self.path}: {error}; choose another --data-dir") from None

    def _refused(self, error: sqlite3.Error) -> ConfigurationError:
        if _name(error).startswith("SQLITE_BUSY"):
            return ConfigurationError(
                f"{self.path} is in use: another collector runs on this folder; stop it, or choose another --data-dir"
            )
        return ConfigurationError(f"{self.path} cannot be used: {error}; fix it, or choose another --data-dir")

    def _set_aside(self, why: str) -> None:
        """Keep the damaged file under another name; the collector starts with an empty one."""
        renamed = set_aside(self.path, f"{self.path.name}.damaged-{int(time.time() * 1000)}")
        self.damaged_files.append(renamed.name)
        self._telemetry.count("files_set_aside")
        log.error("%s is damaged (%s): it is set aside as %s and a new one is created; the open windows in it are lost",
                  self.path, why, renamed.name)  # fmt: skip
        kept = sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))
        for old in kept[:-MOST_DAMAGED]:
            for suffix in ("", "-wal", "-shm"):
                old.with_name(old.name + suffix).unlink(missing_ok=True)

    # --- called from any thread --------------------------------------------------------------------------------------

    def submit(self, work: Work | None, done: Callable[[Any], None] | None = None, nbytes: int = 0) -> None:
        """Run `work` in one of the next transactions; once that is on disk, call `done` with the result of `work`.

        Without `work`, `done` is called once all earlier jobs are on disk.
        """
        self._enqueue(_Job(work, done, nbytes=nbytes))

    def call(self, work: Work) -> Any:
        """Return the result of `work` after its commit. Not for the collector's own thread, which must not wait."""
        answer: Future[Any] = Future()
        self._enqueue(_Job(work, answer.set_result, answer.set_exception))
        return answer.result()

    def wait(self, timeout: float) -> bool:
        """Return whether everything submitted so far was on disk within `timeout` seconds."""
        reached = threading.Event()
        self._enqueue(_Job(done=lambda _: reached.set()))
        return reached.wait(timeout)

    def delete_chunks(self, window: int, through: int) -> None:
        """Delete a window's chunks of turns up to `through`, in slices, between commits."""
        with self._ready:
            self._deletions.append((window, through))
            self._ready.notify()

    def close(self, timeout: float) -> bool:
        """Finish what was submitted; return False when that takes longer than `timeout` seconds."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.ident is None:  # never started
            self._connection.close()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enqueue(self, job: _Job) -> None:
        with self._ready:
            self._jobs.append(job)
            self.pending_bytes += job.nbytes
            self._ready.notify()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.broken:
                self.beat = time.monotonic()
                group = self._next_group()
                if group:
                    self._commit(group)
                elif self._closing:
                    break
                if self._deletions:
                    self._delete_slice()
        except Exception as error:  # noqa: BLE001 - whatever it is, acknowledge nothing more and end the process
            self._break(f"{type(error).__name__}: {error}")
        finally:
            for job in self._jobs:
                if job.failed is not None:
                    job.failed(RuntimeError("the database is closed"))
            self._connection.close()

    def _next_group(self) -> list[_Job]:
        with self._ready:
            if not self._jobs and not self._closing and not self._deletions:
                self._ready.wait(1.0)
            group: list[_Job] = []
            nbytes = 0
            while self._jobs and len(group) < GROUP_JOBS and nbytes < GROUP_BYTES:
                group.append(self._jobs.popleft())
                nbytes += group[-1].nbytes
            return group

    def _commit(self, group: list[_Job]) -> None:
        tried = False
        while True:
            try:
                results = self._transact(group)
                break
            except sqlite3.Error as error:
                self._roll_back()
                if _damaged(error):  # the process ends, and the next start finds an empty file
                    self._connection.close()
                    self._set_aside(str(error))
                    self._connection = self._connect()
                if _name(error) != "SQLITE_FULL":
                    raise
                if not tried and self._truncate_log():
                    tried = True
                    continue
                self._set_full(True)
                if self._closing:
                    raise
                time.sleep(FULL_WAIT)
                tried = False
        self._set_full(False)
        for job, result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                if job.failed is None:
                    raise result
                job.failed(result)
            elif job.done is not None:
                job.done(result)
        with self._ready:
            self.pending_bytes -= sum(job.nbytes for job in group)

    def _transact(self, group: list[_Job]) -> list[Any]:
        if all(job.work is None for job in group):
            return [None] * len(group)
        results: list[Any] = []
        self._connection.execute("BEGIN IMMEDIATE")
        for job in group:
            if job.work is None:
                results.append(None)
                continue
            self._connection.execute("SAVEPOINT job")
            try:
                results.append(job.work(self._connection))
            except sqlite3.Error:
                raise
            except Exception as error:  # noqa: BLE001 - a failed job must not undo the others of its group
                self._connection.execute("ROLLBACK TO job")
                results.append(error)
            self._connection.execute("RELEASE job")
        self._connection.execute("COMMIT")
        self._measure()
        return results

    def _truncate_log(self) -> bool:
        """Make room on a small disk: move the write-ahead log into the file and truncate it; False if that fails."""
        try:
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        return not busy

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _measure(self) -> None:
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        self.used_bytes = (pages - free) * schema.PAGE

    def _set_full(self, full: bool) -> None:
        if full != self.full:
            self.full = full
            if full:
                self._telemetry.count("disk_full")
                log.error("the disk of %s is full; nothing is acknowledged until there is space", self.path)
            else:
                log.warning("the disk of %s has space again", self.path)
            self._changed()

    def _break(self, why: str) -> None:
        self.broken = why
        log.error("%s cannot be written: %s; the collector stops", self.path, why)
        self._changed()

    def _delete_slice(self) -> None:
        """Delete chunks that are no longer needed for one slice of time, and return free pages to the disk."""
        until = time.monotonic() + SLICE
        window, through = self._deletions[0]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            left = 1
            # Four rows a statement: a chunk has megabytes, and the clock is looked at between statements only.
            while left and time.monotonic() < until:
                left = self._connection.execute(
                    "DELETE FROM chunks WHERE id IN "
                    "(SELECT id FROM chunks WHERE window = ? AND turn <= ? ORDER BY turn LIMIT 4)",
                    (window, through),
                ).rowcount
            self._connection.execute("COMMIT")
            if not left:
                self._deletions.popleft()
                # Free pages are used again, so some may stay. Beyond that the file shrinks, 2 MiB at a time: the
                # pragma moves pages, which takes time in proportion.
                (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
                if free * schema.PAGE > FREE_BYTES:
                    self._connection.execute(f"PRAGMA incremental_vacuum({2 * 2**20 // schema.PAGE})").fetchall()
                    if not self._deletions:
                        self._deletions.append((window, through))  # come back until enough is returned
        except sqlite3.Error as error:
            self._roll_back()
            if _name(error) != "SQLITE_FULL":
                raise
            time.sleep(FULL_WAIT)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def _damaged(error: sqlite3.Error) -> bool:
    text = str(error)
    return _name(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in text or "not a database" in text
