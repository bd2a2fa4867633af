"""After a start: where streams go on whose positions are damaged, from the journaled chunks, a few a job.

Rows that were journaled, and not acknowledged before the collector ended, are known from their chunks alone. All of
them are looked at, those of closed windows included, so nothing is deleted and no such stream is taken up before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage import positions
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal_state import JournalState


class LostPositions:
    """The search for the last journaled rows of streams that are not known any more.

    Parameters
    ----------
    state : JournalState
    ingestor : Ingestor
        Streams that it does not know wait until the search is over.
    database : Database
    wake : callable
        Called from the database's thread when a job is done.
    """

    def __init__(self, state: JournalState, ingestor: Ingestor, database: Database, wake: Callable[[], None]) -> None:
        self._ingestor, self._database, self._wake = ingestor, database, wake
        self._known = {row.id for row in state.streams}
        self._newest = state.turn
        self._found: list[tuple[int, dict[bytes, int]]] = []  # by the database's thread
        self._is_searching = False
        ingestor.awaits_positions = state.positions.lost

    def advance(self) -> bool:
        """Take up what was found, and search on; return whether all is known."""
        if not self._ingestor.awaits_positions:
            return True
        after = 0
        if self._found:
            after, last = self._found.pop()
            self._is_searching = False
            settled = self._ingestor.settled_rows
            for stream, row in last.items():
                settled[stream] = max(settled.get(stream, 0), row)
            self._ingestor.awaits_positions = after > 0
        if self._ingestor.awaits_positions and not self._is_searching:
            self._is_searching = True
            self._database.submit(partial(positions.last_rows, after, self._newest, self._known), self._take)
        return not self._ingestor.awaits_positions

    def _take(self, found: tuple[int, dict[bytes, int]]) -> None:
        self._found.append(found)
        self._wake()
