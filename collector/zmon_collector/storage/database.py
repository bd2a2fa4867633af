"""The one connection to state.sqlite, and the one thread that uses it: everything durable passes here, in order.

A commit waits for the disk, for milliseconds to tenths of a second. So jobs are committed in groups: all that
have gathered while the last transaction was synced share the next one. A job's `done` is called, from this thread, only
after its transaction is on disk; acknowledgements to publishers hang on that.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zmon.backoff import Backoff
from zmon.errors import ZmonError
from zmon_collector.storage import schema, store_file
from zmon_collector.storage.store_file import StoreFile
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

GROUP_BYTES = 8 * 2**20  # a transaction takes no more jobs once it holds this many bytes
GROUP_JOBS = 256
MEANWHILE = 0.01  # seconds between two calls while a result is awaited
# Deleting a closed window's rows can take seconds, and a commit that waited behind it would delay acknowledgements, so
# publishers would send again. So rows are deleted in slices of this many seconds, between commits.
SLICE = 0.008
FREE_BYTES = 64 * 2**20  # free pages kept in the file for reuse
FULL_WAIT = 0.5  # seconds between tries while the disk is full
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between tries while the disk fails
LOOK_EVERY = 1.0  # seconds between two looks at whether the file is still in its place
REMOVED = (
    "was removed or replaced while the collector runs, and what it writes now is lost with it; end the collector with "
    "SIGTERM, which lets it report its open windows, and start it again"
)
DISK_PATIENCE = 10.0  # seconds in which a disk may fail; then the process ends, so that somebody looks
OWN_ERRORS = ("SQLITE_TOOBIG", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_ERROR")  # of one job


@dataclass(slots=True)
class _Job:
    work: Work | None = None
    done: Callable[[Any], None] | None = None
    failed: Callable[[Exception], None] | None = None  # without it, an exception of `work` breaks the database
    nbytes: int = 0

    def fail(self, error: Exception) -> None:
        """Tell a caller that wants to know that the job is not on disk."""
        if self.failed is not None:
            self.failed(error)


class StoreError(ZmonError):
    """The database has ended, and with it what was submitted."""


class _Failure(NamedTuple):
    """A job that raised; its result may be anything else, an exception included."""

    error: Exception


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
        self.removed = False  # the file was removed or replaced: what is written ends with this process
        self.pending_bytes = 0
        self.used_bytes = 0
        self.beat = time.monotonic()  # when the thread last did something, or looked for something to do
        self._file = StoreFile(path, telemetry, self._alive)
        self._next_look = 0.0  # at whether the file is still in its place
        self._telemetry = telemetry
        self._changed = changed
        self._jobs: deque[_Job] = deque()
        self._deletions: deque[tuple[int, int]] = deque()  # (window, turn up to which its chunks go)
        self._ready = threading.Condition()
        self._closing = self._ended = False
        self._connection: sqlite3.Connection
        self._thread = threading.Thread(target=self._run, name="zmon-store", daemon=True)

    def open(self) -> None:
        """Open the file; ConfigurationError as `StoreFile.open` raises it."""
        self._connection = self._file.open()
        self._measure()

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def problems(self) -> list[str]:
        """Return what an operator should know, a sentence each."""
        return [f"{self.path} {REMOVED}"] if self.removed else []

    @property
    def damaged_files(self) -> dict[str, str]:
        """Files that were set aside, and what was read from each."""
        return self._file.damaged_files

    @property
    def incomplete(self) -> set[str]:
        """Tables of which only a part could be read from a damaged file."""
        return self._file.incomplete

    # --- called from any thread --------------------------------------------------------------------------------------

    def submit(
        self,
        work: Work | None,
        done: Callable[[Any], None] | None = None,
        nbytes: int = 0,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run `work` in one of the next transactions; once that is on disk, call `done` with the result of `work`.

        Without `work`, `done` is called once all earlier jobs are on disk. If `work` raises, or the database ends
        before, `failed` is called; without it, an exception of `work` breaks the database.
        """
        self._enqueue(_Job(work, done, failed, nbytes))

    def call(self, work: Work, meanwhile: Callable[[], None] | None = None) -> Any:
        """Return the result of `work` after its commit, or raise; `meanwhile` is called again and again until then.

        Not for the collector's own thread in its turns, which must not wait.
        """
        answer: Future[Any] = Future()
        self._enqueue(_Job(work, answer.set_result, answer.set_exception))
        while meanwhile is not None and not wait([answer], MEANWHILE).done:
            meanwhile()
        try:
            return answer.result()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def wait(self, timeout: float) -> bool:
        """Return whether everything submitted so far was on disk within `timeout` seconds."""
        answer: Future[bool] = Future()
        self._enqueue(_Job(done=lambda _: answer.set_result(True), failed=lambda _: answer.set_result(False)))
        try:
            return answer.result(timeout)
        except TimeoutError:
            return False

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
            store_file.close(self._connection)
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enqueue(self, job: _Job) -> None:
        with self._ready:
            if not self._ended:
                self._jobs.append(job)
                self.pending_bytes += job.nbytes
                self._ready.notify()
                return
        job.fail(self._ended_error())

    def _ended_error(self) -> StoreError:
        return StoreError(f"{self.path} cannot be used: {self.broken or 'it is closed'}")

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        group: list[_Job] = []
        try:
            while not self.broken:
                self._alive()
                self._look()
                group = self._next_group()
                if group:
                    self._commit(group)
                elif self._closing:
                    break
                if self._deletions:
                    self._persist(self._delete_slice)
        except Exception as error:  # noqa: BLE001 - whatever it is, acknowledge nothing more and end the process
            self._break(f"{type(error).__name__}: {error}")
        finally:
            with self._ready:
                self._ended = True
                left = [*group, *self._jobs]
                self._jobs.clear()
            for job in left:
                job.fail(self._ended_error())
            store_file.close(self._connection)

    def _alive(self) -> None:
        self.beat = time.monotonic()

    def _look(self) -> None:
        if self.beat < self._next_look:
            return
        self._next_look = self.beat + LOOK_EVERY
        if not self.removed and not self._file.is_in_place():
            self.removed = True
            log.error("%s %s", self.path, REMOVED)

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
        results = self._persist(lambda: self._transact(group))
        while group:  # what is left here when something raises has no outcome yet
            job, result = group.pop(0), results.pop(0)
            if isinstance(result, _Failure) and job.failed is None:
                raise result.error
            if isinstance(result, _Failure):
                job.fail(result.error)
            elif job.done is not None:
                job.done(result)
            with self._ready:
                self.pending_bytes -= job.nbytes

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Return the result of a transaction that is on disk: tried again while the disk is full or fails."""
        tried, pauses, reopened = False, Backoff(FIRST_PAUSE, LONGEST_PAUSE), False
        failing_since = 0.0
        while True:
            self._alive()
            try:
                result = attempt()
                break
            except sqlite3.Error as error:
                self._roll_back()
                if store_file.is_damage(error):
                    # Perhaps the disk failed for a moment. Else the process ends: what is acknowledged from now on
                    # might not be kept, and the next start finds a new file with what could be read of this one.
                    if reopened:
                        self._file.give_up(self._connection, error)
                        raise
                    self._connection, reopened = self._file.reopen(self._connection), True
                elif store_file.is_disk_error(error):
                    failing_since = failing_since or time.monotonic()
                    if time.monotonic() - failing_since > DISK_PATIENCE:
                        raise
                    self._note_disk_error(error)
                    time.sleep(pauses.next())
                elif store_file.name_of(error) != "SQLITE_FULL":
                    raise
                elif not tried and self._truncate_log():
                    tried = True
                else:
                    self._set_full(True)
                    if self._closing:
                        raise
                    time.sleep(FULL_WAIT)
                    tried = False
        self._set_full(False)
        return result

    def _note_disk_error(self, error: sqlite3.Error) -> None:
        self._telemetry.count("disk_errors")
        log.warning("the disk of %s fails (%s); trying again, and nothing is acknowledged meanwhile", self.path, error)

    def _transact(self, group: list[_Job]) -> list[Any]:
        """Run the group's jobs in one transaction; return their results, a _Failure for one that failed by itself."""
        if all(job.work is None for job in group):
            return [None] * len(group)
        results: list[Any] = []
        self._connection.execute("BEGIN IMMEDIATE")
        for job in group:
            self._alive()
            if job.work is None:
                results.append(None)
                continue
            self._connection.execute("SAVEPOINT job")
            try:
                results.append(job.work(self._connection))
            except Exception as error:
                if not _is_its_own(error):
                    raise
                # A failed job must not undo the others of its group.
                self._connection.execute("ROLLBACK TO job")
                results.append(_Failure(error))
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
            with contextlib.suppress(sqlite3.Error):  # SQLite rolled back by itself, or opens the file again
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
        log.error("%s cannot be used: %s; the collector stops", self.path, why)
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
            self._measure()  # a full journal accepts no rows, so no other transaction may come
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
            if store_file.name_of(error) != "SQLITE_FULL":
                raise
            time.sleep(FULL_WAIT)


def _is_its_own(error: Exception) -> bool:
    """Return whether an error is that of one job: its data, its code, a row above SQLite's limit. Not the disk's."""
    name = store_file.name_of(error)
    return not isinstance(error, sqlite3.Error) or not name or name.startswith(OWN_ERRORS)
