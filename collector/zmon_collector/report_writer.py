"""Windows that are computed become reports in the outbox. From then on they are the sinks' business."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from zmon.state import pack_state
from zmon_collector.build import Parts
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.storage import journal


class ReportWriter:
    """Writes the reports of closed windows. Runs on the collector's thread."""

    def __init__(self, parts: Parts) -> None:
        self._ingestor, self._telemetry = parts.ingestor, parts.telemetry
        self._outbox, self._database = parts.outbox, parts.database

    def write(self, windows: Iterable[ClosedWindow]) -> None:
        """For each window, put its report into the outbox, drop its rows and replace plugin memory: one transaction."""
        for closed in windows:
            self._write(closed)

    def _write(self, closed: ClosedWindow) -> None:
        self._telemetry.count("windows")
        tags = self._ingestor.finish_window(closed)
        write_report, written = self._outbox.prepare(closed, tags) if closed.points else (None, None)

        def write(connection: Connection) -> int:
            memory = {key: pack_state(kept) for key, kept in closed.memory.items()}
            journal.write_closed(closed.number, closed.model, memory, connection)
            return write_report(connection) if write_report is not None else 0

        def committed(nbytes: int) -> None:
            if written is not None:
                written(nbytes)
            self._database.delete_chunks(closed.number, self._ingestor.turn.number)

        self._database.submit(write, committed)
