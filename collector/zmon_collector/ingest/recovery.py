"""After a start: what an earlier run left is taken up, then its rows are replayed, chunk by chunk, while new ones come.

A replay decides nothing: late, lost and rejected rows were settled, and counted, before they were journaled.
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import msgpack

from zmon._wire.frames import Topic, decode_schema, schema_hash
from zmon.batch import Batch, Schema
from zmon.errors import WireError
from zmon.state import unpack_state
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.sample import stream_seed
from zmon_collector.ingest.ingestor import Ingestor, UnreportedWindow
from zmon_collector.ingest.sessions import GONE_AFTER
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage import journal
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal import JournalState, WindowRow
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NO_WINDOW, Now, OpenWindow, Tally

log = logging.getLogger("zmon.collector")

AHEAD = 4  # chunks read before they are needed


class Recovery:
    """Restores the desk and the engine, and replays rows until `finished`."""

    def __init__(
        self,
        found: JournalState,
        ingestor: Ingestor,
        engine: Engine,
        store: Database,
        telemetry: Telemetry,
        wake: Callable[[], None],
    ) -> None:
        self._found = found
        self._ingestor = ingestor
        self._engine = engine
        self._store = store
        self._telemetry = telemetry
        self._wake = wake
        self._schemas: dict[tuple[int, bytes], Schema] = {}
        self._windows: deque[tuple[WindowRow, OpenWindow]] = deque()
        self._chunks: deque[int] | None = None  # of the first window that are not asked for yet
        self._asked = 0
        self._arrived: deque[list[int] | list[ChunkRecord] | ValueError] = deque()
        self.replayed = 0  # rows

    @property
    def finished(self) -> bool:
        return not self._windows

    # --- state -------------------------------------------------------------------------------------------------------

    def restore(self, now: Now) -> None:
        """Take up positions, books, open windows and what plugins remember; everything but the rows."""
        found = self._found
        self._ingestor.numbers = count(max([0, *(row.number for row in found.windows), *found.leftovers]) + 1)
        self._ingestor.late.restore(found.label_owners)
        for model, version, start, end in found.spans:
            self._manager(model, version).closed.add(start, end)
        for model, version, agent, newest in found.agents:
            self._manager(model, version).restore_agent(agent, newest, now)
        for row in found.streams:
            self._restore_stream(row, now)
        for model, version, metric, agent, memory in found.memory:
            self._engine.contexts.remember((model, version), metric, agent or None, unpack_state(memory))
        for number, digest, body in found.schemas:
            self._schemas[number, digest] = _schema(body)
        windows = {row.number: self._restore_window(row) for row in found.windows}
        for number, model, version, agent, counts in found.counts:
            tally = Tally.of(journal.unpack_counts(counts))
            if number == NO_WINDOW:
                self._manager(model, version).restore_counts(agent, tally, now)
            elif number in windows:
                windows[number].tallies[agent] = tally
                if tally.received:
                    windows[number].contributors.add(agent)
        self._restore_shelf(now)
        for (model, _), manager in self._ingestor.managers.items():
            manager.change_rules(self._ingestor.policies.of(model).rules)
        self._ingestor.turn.number = found.turn + 1
        for number in found.leftovers:
            self._store.sweep(number, found.turn)
        for kept in found.windows:
            if kept.through >= 0:
                self._store.sweep(kept.number, kept.through)
        if windows:
            log.info("going on with %d open windows", len(windows))

    def _manager(self, model: str, version: str) -> WindowManager:
        managers = self._ingestor.managers
        if (model, version) not in managers:
            managers[model, version] = WindowManager(self._ingestor.policies.of(model).rules, self._ingestor.numbers)
        return managers[model, version]

    def _restore_shelf(self, now: Now) -> None:
        """Whatever is kept of a model has a book, so that it goes when the model is forgotten."""
        found = self._found
        heard = {(model, version): wall for model, version, wall in found.heard}
        kept = ((model, version) for model, version, *_ in found.memory)
        owners = ((model, version) for _, model, version in found.label_owners)
        for known in {*heard, *kept, *owners}:
            self._manager(*known)
        for known in self._ingestor.managers:
            if known in heard:
                self._ingestor.shelf.restore(known, heard[known], now)
            else:  # of a release that did not note it
                self._ingestor.shelf.hear(known, now)

    def _restore_stream(self, row: journal.StreamRow, now: Now) -> None:
        topic = Topic.decode(row.topic)
        stream = StreamPosition(topic, row.row, stream_seed(row.id))
        stream.issued = row.issued
        stream.tally = msgpack.unpackb(row.tally)
        if row.gone:  # it said goodbye: what had not come by then never will
            stream.ends_at = now.mono + GONE_AFTER
        else:  # windows wait for it as they did
            manager = self._manager(topic.model, topic.version)
            manager.connect(manager.admit(topic.agent_id), row.id, now)
        self._ingestor.sessions.restore(row.id, stream, now.mono - max(0.0, now.wall - row.heard))

    def _restore_window(self, row: WindowRow) -> OpenWindow:
        model = (row.model, row.version)
        window = OpenWindow(row.start, row.end, row.number, _schema(row.schema))
        hashes = {digest for number, digest in self._schemas if number == row.number}
        self._ingestor.pending[row.number] = UnreportedWindow(model, window, hashes)
        kept = self._found.checkpoints.get(row.number)
        if kept is not None:
            crc, data = kept
            try:
                if zlib.crc32(data) != crc:
                    raise ValueError("its checksum does not fit")
                self._engine.restore(model, window, checkpoint_codec.decode(data, window.schema))
            except (ValueError, TypeError, KeyError) as error:
                log.error(
                    "the checkpoint of a window of model %r is damaged, its rows count as lost: %s", row.model, error
                )
                self._telemetry.count("checkpoints_damaged")
        if not row.closing:
            self._manager(*model).restore_window(window)
        self._windows.append((row, window))
        return window

    # --- rows --------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Give the engine what was read, and ask for more. Called in each turn while there is room."""
        while self._windows:
            row, window = self._windows[0]
            while self._arrived:
                self._take(self._arrived.popleft(), row, window)
            if self._chunks is None:
                if not self._asked:
                    self._ask(partial(journal.chunk_ids, row, self._found.turn))
                return
            while self._chunks and self._asked < AHEAD:
                number = self._chunks.popleft()
                self._ask(partial(journal.read_chunk, number))
            if self._asked:
                return
            self._complete(row, window)
            self._windows.popleft()
            self._chunks = None

    def _ask(self, read: Callable[[Any], Any]) -> None:
        self._asked += 1

        def work(connection: Any) -> Any:
            try:
                return read(connection)
            except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
                return ValueError(str(error))

        def done(result: Any) -> None:
            self._arrived.append(result)
            self._wake()

        self._store.submit(work, done)

    def _take(self, result: list[Any] | ValueError, row: WindowRow, window: OpenWindow) -> None:
        self._asked -= 1
        if isinstance(result, ValueError):
            log.error("rows of a window of model %r are damaged and count as lost: %s", row.model, result)
            self._telemetry.count("chunks_damaged")
            self._chunks = self._chunks or deque()
        elif self._chunks is None:
            self._chunks = deque(result)
        else:
            for record in result:
                self._add(record, row, window)

    def _add(self, record: ChunkRecord, row: WindowRow, window: OpenWindow) -> None:
        if "label_outcomes" in record.columns:  # completed by labels; joined before it was journaled
            # Said again, since the end may have come before the journal heard of it: the agent may have no rows there.
            self._ingestor.managers[row.model, row.version].include_agent(window, record.agent)
            late = Batch(window.schema, record.columns, record.rows)
            self._engine.add((row.model, row.version), window, record.agent, late, 0, 0)
            return
        schema = self._schemas.get((row.number, record.schema))
        if schema is None:
            return  # it then counts as lost
        batch = Batch(schema, record.columns, record.rows, record.dictionaries)
        seed = stream_seed(record.stream)
        self._engine.add((row.model, row.version), window, record.agent, batch, seed, record.numbers)
        self._ingestor.pending[row.number].nbytes += sum(column.nbytes for column in record.columns.values())
        self.replayed += record.rows

    def _complete(self, row: WindowRow, window: OpenWindow) -> None:
        """What was counted as received and is not there any more is lost."""
        model = (row.model, row.version)
        there = self._engine.rows(model, window)
        for agent, tally in window.tallies.items():
            missing = tally.received - there.get(agent, 0)
            if missing > 0:
                tally.received -= missing
                tally.lost += missing
                self._telemetry.count("lost", "damaged", missing)
                self._ingestor.managers[model].changes.counts.add((row.number, agent))
        if row.closing:
            self._engine.close(model, window)


def _schema(body: bytes) -> Schema:
    try:
        return decode_schema(body, schema_hash(body)) if body else Schema()
    except WireError:
        return Schema()
