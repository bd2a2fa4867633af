"""Disks that fail: small ones that are full, and statements that raise what SQLite raises then."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from zmon_collector.storage import store_file

TEXTS = {"SQLITE_IOERR_READ": "disk I/O error", "SQLITE_CORRUPT": "database disk image is malformed"}


def error_of(name: str) -> sqlite3.Error:
    """Return an error as SQLite raises it."""
    error = sqlite3.OperationalError(TEXTS.get(name, name))
    error.sqlite_errorname = name  # type: ignore[misc]
    return error


class FailingDisk:
    """Connections of which each statement asks `fault` first: the name of the error that it raises, or nothing."""

    def __init__(self) -> None:
        self.fault: Callable[[str], str | None] = lambda statement: None
        self.failures = 0

    def check(self, statement: str) -> None:
        """Raise the error of a statement, if it has one."""
        name = self.fault(statement)
        if name:
            self.failures += 1
            raise error_of(name)

    def fail(self, name: str, times: int, where: str = "") -> None:
        """Let the next so many statements that contain `where` raise this error."""
        end = self.failures + times
        self.fault = lambda statement: name if where in statement and self.failures < end else None


@contextmanager
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    """Let the database's connections be on a disk that can fail, with short pauses between tries."""
    disk = FailingDisk()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            disk.check(sql)
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            disk.check(sql)
            return super().executemany(sql, *parameters)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return real(*arguments, factory=Connection, **options)

    real = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        patch.setattr(store_file, "PAUSES", (0.0, 0.0, 0.0))
        yield disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of its own, of so many bytes, at a new folder."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], check=False)
    if done.returncode:
        if os.environ.get("ZMON_REQUIRE_ALL"):
            raise AssertionError("no tmpfs can be mounted here")
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
