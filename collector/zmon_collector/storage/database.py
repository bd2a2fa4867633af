"""The one connection to state.sqlite and the one thread that uses it. Everything durable passes here, in order.

Jobs are committed in groups: whatever has gathered while the last transaction was being synced. A job's `done` is
called, from this thread, only after its transaction is on disk.
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

GROUP_BYTES = 8 * 2**20  # a transaction takes no more jobs once it holds so many bytes
GROUP_JOBS = 256
SLICE = 0.008  # seconds that one slice of cleaning up takes
FREE_BYTES = 64 * 2**20  # free pages kept in the file for reuse
FULL_WAIT = 0.5  # seconds between tries while the disk is full
MOST_ASIDE = 3  # damaged files kept


@dataclass(slots=True)
class _Job:
    work: Work | None
    done: Callable[[Any], None] | None
    failed: Callable[[Exception], None] | None
    nbytes: int


class Database:
    """Runs jobs in order; see the module's text.

    Parameters
    ----------
    path : Path
    telemetry : Telemetry
    changed : callable
        Called from the store's thread when `full` or `broken` changes.
    """

    def __init__(self, path: Path, telemetry: Telemetry, changed: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.full = False  # the disk is; nothing is committed, so nothing is acknowledged
        self.broken = ""  # why it cannot go on; the process must end
        self.pending_bytes = 0
        self.set_aside: list[str] = []  # damaged files found at the start or later
        self.used_bytes = 0
        self._telemetry = telemetry
        self._changed = changed
        self._jobs: deque[_Job] = deque()
        self._doomed: deque[tuple[int, int]] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection
        self._thread = threading.Thread(target=self._run, name="zmon-store", daemon=True)

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file, set a damaged one aside.

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
            self._put_aside(str(error))
            try:
                self._connection = self._connect()
            except sqlite3.Error as again:
                raise self._refused(again) from None
        self._measure()

    def start(self) -> None:
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            version = self._version(connection)
            if version > schema.VERSION:
                raise ConfigurationError(
                    f"{self.path} was written by a newer zmon (version {version} of its tables, this one knows "
                    f"{schema.VERSION}); install that release, or choose another --data-dir"
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
        return ConfigurationError(f"{self.path} cannot be used: {error}; mend it, or choose another --data-dir")

    def _put_aside(self, why: str) -> None:
        """Rename the damaged file and what belongs to it; the collector starts afresh."""
        aside = set_aside(self.path, f"{self.path.name}.damaged-{int(time.time() * 1000)}")
        self.set_aside.append(aside.name)
        self._telemetry.count("files_set_aside")
        log.error("%s is damaged (%s): it is set aside as %s and a new one begins; what was open in it is lost",
                  self.path, why, aside.name)  # fmt: skip
        kept = sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))
        for old in kept[:-MOST_ASIDE]:
            for suffix in ("", "-wal", "-shm"):
                old.with_name(old.name + suffix).unlink(missing_ok=True)

    # --- called from any thread --------------------------------------------------------------------------------------

    def submit(self, work: Work | None, done: Callable[[Any], None] | None = None, nbytes: int = 0) -> None:
        """Run `work` in one of the next transactions, then call `done` with what it returned.

        Without `work`, `done` is called once all earlier jobs are on disk.
        """
        self._put(_Job(work, done, None, nbytes))

    def call(self, work: Work) -> Any:
        """What `work` returns, after it was committed. Not for the collector's own thread, which must not wait."""
        future: Future[Any] = Future()
        self._put(_Job(work, future.set_result, future.set_exception, 0))
        return future.result()

    def wait(self, timeout: float) -> bool:
        """Whether everything submitted so far was on disk within `timeout` seconds."""
        reached = threading.Event()
        self._put(_Job(None, lambda _: reached.set(), None, 0))
        return reached.wait(timeout)

    def sweep(self, window: int, through: int) -> None:
        """Delete a window's chunks of turns up to `through`, in slices, whenever there is time."""
        with self._ready:
            self._doomed.append((window, through))
            self._ready.notify()

    def close(self, timeout: float) -> bool:
        """Finish what was submitted; False when that does not succeed in time."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.ident is None:  # never started
            self._connection.close()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _put(self, job: _Job) -> None:
        with self._ready:
            self._jobs.append(job)
            self.pending_bytes += job.nbytes
            self._ready.notify()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.broken:
                group = self._next_group()
                if group:
                    self._commit(group)
                elif self._closing:
                    break
                if self._doomed:
                    self._clean()
        except Exception as error:  # noqa: BLE001 - whatever it is: acknowledge nothing more, and end the process
            self._break(f"{type(error).__name__}: {error}")
        finally:
            for job in self._jobs:
                if job.failed is not None:
                    job.failed(RuntimeError("the store has ended"))
            self._connection.close()

    def _next_group(self) -> list[_Job]:
        with self._ready:
            if not self._jobs and not self._closing and not self._doomed:
                self._ready.wait(1.0)
            group: list[_Job] = []
            nbytes = 0
            while self._jobs and len(group) < GROUP_JOBS and (not group or nbytes < GROUP_BYTES):
                job = self._jobs.popleft()
                group.append(job)
                nbytes += job.nbytes
            return group

    def _commit(self, group: list[_Job]) -> None:
        tried = False
        while True:
            try:
                results = self._transact(group)
                break
            except sqlite3.Error as error:
                self._roll_back()
                if _damaged(error):  # the next start begins afresh
                    self._connection.close()
                    self._put_aside(str(error))
                    self._connection = self._connect()
                if _name(error) != "SQLITE_FULL":
                    raise
                if not tried and self._empty_log():
                    tried = True
                    continue
                self._is_full(True)
                if self._closing:
                    raise
                time.sleep(FULL_WAIT)
                tried = False
        self._is_full(False)
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
            except Exception as error:  # noqa: BLE001 - one job's fault is not the others'
                self._connection.execute("ROLLBACK TO job")
                results.append(error)
            self._connection.execute("RELEASE job")
        self._connection.execute("COMMIT")
        self._measure()
        return results

    def _empty_log(self) -> bool:
        """Make room on a small disk: move what is in the write-ahead log into the file, and cut the log."""
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

    def _is_full(self, full: bool) -> None:
        if full != self.full:
            self.full = full
            if full:
                self._telemetry.count("disk_full")
                log.error("the disk of %s is full: nothing is acknowledged until there is space", self.path)
            else:
                log.warning("the disk of %s has space again", self.path)
            self._changed()

    def _break(self, why: str) -> None:
        self.broken = why
        log.error("%s cannot be written: %s; the collector ends", self.path, why)
        self._changed()

    def _clean(self) -> None:
        """One slice of deleting what closed windows and checkpoints left, and of giving pages back."""
        until = time.monotonic() + SLICE
        window, through = self._doomed[0]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            left = True
            while left and time.monotonic() < until:
                left = bool(
                    self._connection.execute(
                        "DELETE FROM chunks WHERE id IN "
                        "(SELECT id FROM chunks WHERE window = ? AND turn <= ? ORDER BY turn LIMIT 4)",
                        (window, through),
                    ).rowcount
                )
            self._connection.execute("COMMIT")
            if not left:
                self._doomed.popleft()
                (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
                if free * schema.PAGE > FREE_BYTES:
                    self._connection.execute(f"PRAGMA incremental_vacuum({2 * 2**20 // schema.PAGE})").fetchall()
                    if not self._doomed:
                        self._doomed.append((window, through))  # until enough is given back
        except sqlite3.Error as error:
            self._roll_back()
            if _name(error) != "SQLITE_FULL":
                raise
            time.sleep(FULL_WAIT)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def _damaged(error: sqlite3.Error) -> bool:
    text = str(error)
    return _name(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in text or "not a database" in text
