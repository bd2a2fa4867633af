"""The database of a stepped collector: it commits when the test says so, its disk may be full, and bits may flip."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import greenlet
from zmon_collector.storage.database import Database

from tests.support.databases import in_memory
from tests.support.disks import error_of
from tests.support.stepped.clock import Clock
from tests.support.stepped.lanes import hang

GROWS = ("COMMIT", "INSERT INTO chunks")  # statements that find no room on a full disk


class Killed(BaseException):
    """The collector's process ends here."""


class Connection(sqlite3.Connection):
    """A connection whose disk may be full: no transaction that changes something succeeds then."""

    full = False
    _changes = 0  # until the transaction began

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            self._changes = self.total_changes
        elif self.full and sql.startswith(GROWS) and (sql != "COMMIT" or self.total_changes != self._changes):
            raise error_of("SQLITE_FULL")
        return super().execute(sql, *parameters)


@cache
def _empty() -> bytes:
    with contextlib.closing(in_memory()) as connection:
        return connection.serialize()


def connect() -> Connection:
    """An empty database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Connection)
    connection.deserialize(_empty())
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


class Pauses:
    """Stands for the module `time` where the database's thread rests because its disk is full: it stands there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        hang()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


class Disk(Database):
    """The database without its thread: the test commits, some jobs at a time, and may kill just after it."""

    connection: Connection  # given to the class: it outlives every collector

    def open(self) -> None:
        self._connection = self.connection
        self._measure()

    def start(self) -> None:
        self.dies = False
        self._busy: greenlet.greenlet | None = None  # with a transaction that finds no room

    def is_alive(self) -> bool:
        return True

    def call(self, work: Callable[[sqlite3.Connection], Any], meanwhile: Callable[[], None] | None = None) -> Any:
        answer: list[Any] = []
        self.submit(work, answer.append)
        while not answer:
            if meanwhile is not None:
                meanwhile()
            if not self.commit():
                assert self._busy is not None, "a job has no outcome"
                self.connection.full = False  # it waits: what it has to write is damage
        return answer[0]

    @property
    def jobs(self) -> int:
        """How many have no outcome yet."""
        return len(self._jobs) + (self._busy is not None)

    def commit(self, most: int = 1000) -> bool:
        """Commit at most so many jobs in one transaction; False if there were none, or there is no room for it."""
        if self._busy is None:
            group = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
            if not group and not self._deletions:
                return False
            if group and self.dies:
                group[0].done = self._die
            do = partial(self._commit, group) if group else partial(self._persist, self._delete_slice)
            self._busy = greenlet.greenlet(do)
        self._busy.switch()
        assert not self.broken, self.broken
        if not self._busy.dead:
            return False
        self._busy = None
        return True

    def _die(self, _: Any) -> None:
        raise Killed


def flip(connection: sqlite3.Connection, table: str, row: int, column: int, bit: int) -> bool:
    """Flip a bit in a row of the disk; whether there was one."""
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    if not rows:
        return False
    whole = list(rows[row % len(rows)])
    places = [i for i, value in enumerate(whole) if isinstance(value, bytes | str) and value]
    if not places:
        return False
    place = places[column % len(places)]
    data = bytearray(whole[place] if isinstance(whole[place], bytes) else whole[place].encode())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    same = " AND ".join(f'"{name}" IS ?' for name in names)
    value = "CAST(? AS TEXT)" if isinstance(whole[place], str) else "?"
    with contextlib.suppress(sqlite3.IntegrityError):  # another row has this key
        connection.execute(f'UPDATE {table} SET "{names[place]}" = {value} WHERE {same}', (bytes(data), *whole))
    return True
