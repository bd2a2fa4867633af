"""The collector's database: an empty one in memory, and what a collector that has ended left in its file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from zmon_collector.storage import schema


def in_memory(**options: Any) -> sqlite3.Connection:
    """An empty database with all tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None, **options)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    schema.create(connection)
    return connection


def stored(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of state.sqlite in a collector's folder."""
    with closing(sqlite3.connect(folder / "state.sqlite")) as connection:
        return connection.execute(query).fetchall()
