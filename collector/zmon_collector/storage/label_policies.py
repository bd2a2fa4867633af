"""The settings with which windows of kept predictions opened: a row wherever they change, as restatement needs them."""

from __future__ import annotations

import sqlite3

from zmon_collector.storage.label_work import Predicted
from zmon_collector.storage.sealed import SealedTable

POLICIES = SealedTable("label_policies", "owner, n, policy")


def note(block: Predicted, first: int, connection: sqlite3.Connection) -> None:
    """Note the settings of the block's window if they are not those of the predictions before number `first`."""
    own = connection.execute("SELECT policy FROM windows WHERE number = ?", (block.window.number,)).fetchone()
    policy = own[0] if own is not None and own[0] is not None else b""
    before = connection.execute(
        "SELECT policy FROM label_policies WHERE owner = ? AND n < ? ORDER BY n DESC LIMIT 1", (block.owner, first)
    ).fetchone()
    if before is None or before[0] != policy:
        POLICIES.write([(block.owner, first, policy)], connection)


def trim(connection: sqlite3.Connection) -> None:
    """Drop policies that no prediction needs any more; the numbers of predictions begin anew when none is left."""
    connection.execute("DELETE FROM label_policies WHERE n > (SELECT coalesce(max(n), 0) FROM predictions)")
    connection.execute(
        "DELETE FROM label_policies AS old WHERE EXISTS (SELECT 1 FROM label_policies AS later"
        " WHERE later.owner = old.owner AND later.n > old.n AND later.n <= (SELECT min(n) FROM predictions))"
    )
