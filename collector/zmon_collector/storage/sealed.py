"""Tables whose rows carry a checksum of their own: damage costs the row in which it is, and nothing else.

A start reads all that an earlier run left. One row that cannot be read must not end it, and a row that decodes in spite
of a flipped bit must not give a wrong number. So each row is checked and decoded by itself. A table with damaged rows
is written again from the others: a damaged key cannot be looked up, and a row that stayed would be counted each time.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from zmon_collector.storage.integrity import checksum

log = logging.getLogger("zmon.collector")
T = TypeVar("T")
LOGGED = 10  # damaged rows of a table that are logged one by one
DamagedRows = dict[str, list[Sequence[Any]]]  # as they were found, by table


class SealedTable:
    """A table whose column ``crc`` has the checksum of a row's other columns.

    Parameters
    ----------
    name : str
    columns : str
        Its columns but ``crc``, as SQL lists them.
    """

    def __init__(self, name: str, columns: str) -> None:
        self.name, self.columns = name, columns
        self._insert = f"INTO {name} ({columns}, crc) VALUES ({'?, ' * len(columns.split(','))}?)"

    def write(self, rows: Iterable[Sequence[Any]], connection: sqlite3.Connection) -> None:
        """Write rows; a row of the same key is replaced."""
        self._write("REPLACE", rows, connection)

    def write_new(self, rows: Iterable[Sequence[Any]], connection: sqlite3.Connection) -> None:
        """Write rows of keys that are not there yet."""
        self._write("IGNORE", rows, connection)

    def _write(self, otherwise: str, rows: Iterable[Sequence[Any]], connection: sqlite3.Connection) -> None:
        connection.executemany(f"INSERT OR {otherwise} {self._insert}", [(*row, checksum(row)) for row in rows])

    def seal(self, key: str, values: Iterable[Any], connection: sqlite3.Connection) -> None:
        """Compute checksums again, of a row for each value of `key`, after some of its columns have changed."""
        for value in values:
            row = connection.execute(f"SELECT {self.columns} FROM {self.name} WHERE {key} = ?", (value,)).fetchone()
            if row is not None:
                connection.execute(f"UPDATE {self.name} SET crc = ? WHERE {key} = ?", (checksum(row), value))

    def read(
        self,
        decode: Callable[..., T],
        damaged: DamagedRows,
        connection: sqlite3.Connection,
        order: str = "",
        unsealed: Callable[..., None] = lambda *_: None,
    ) -> list[T]:
        """Return what `decode` makes of each row's columns; move damaged rows from the table to `damaged`.

        A row without a checksum is of an older release. It is as good as it decodes, and passes `unsealed`.
        """
        found, decoded = connection.execute(f"SELECT {self.columns}, crc FROM {self.name} {order}").fetchall(), []
        bad: dict[int, Exception] = {}  # by place
        for place, whole in enumerate(found):
            *row, crc = whole
            try:
                if crc is None:
                    unsealed(*row)
                elif crc != checksum(row):
                    raise ValueError("its checksum does not match")
                decoded.append(decode(*row))
            except Exception as error:  # noqa: BLE001 - damaged bytes may raise anything
                bad[place] = error
        if bad:
            for why in list(bad.values())[:LOGGED]:
                log.error("a row of the table %r of state.sqlite is damaged and is lost: %s", self.name, why)
            if len(bad) > LOGGED:
                log.error("%d further rows of the table %r are damaged and are lost", len(bad) - LOGGED, self.name)
            damaged.setdefault(self.name, []).extend(found[place][:-1] for place in bad)
            connection.execute(f"DELETE FROM {self.name}")
            sound = (row for place, row in enumerate(found) if place not in bad)
            connection.executemany(f"INSERT OR IGNORE {self._insert}", sound)
        return decoded
