"""After a start: restore what an earlier run left, then replay its rows chunk by chunk while new ones arrive.

The order matters. Positions, agents, counts and open windows come back before the first message is handled: no
publisher is answered from a wrong position, and windows wait for the publishers that they waited for before. Rows come
last, and with them the checkpoints, while the collector already receives, because there may be gigabytes of them;
until they are back, no window closes and no checkpoint is made. A window is complete once its checkpoint and the
chunks behind it are with the engine; if it was closing, it is closed then.

A replay decides nothing: late, lost and rejected rows were settled and counted before they were journaled, and joined
labels were joined. What cannot be read any more is counted as lost.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from zmon.batch import Batch, Schema
from zmon_collector.compute import checkpoint_codec
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.checkpoint_codec import Checkpoint
from zmon_collector.compute.sample import stream_seed
from zmon_collector.ingest.damage import settle_damage
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.lost_positions import LostPositions
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.row_placement import UnreportedWindow
from zmon_collector.ingest.sessions import LIVE
from zmon_collector.ingest.variants import adopt, family
from zmon_collector.storage import chunk_reader, journal_state
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.chunk_reader import CHECKPOINT, ChunkEntry
from zmon_collector.storage.database import Database
from zmon_collector.storage.journal_state import JournalState
from zmon_collector.storage.journal_tables import WindowRow
from zmon_collector.windows.window import NO_WINDOW, OTHER, Now, OpenWindow

log = logging.getLogger("zmon.collector")

AHEAD_BYTES = 8 * 2**20  # of chunks that are read before they are needed
AHEAD = 256  # and their number
SLICE = 100  # streams or windows that are restored at a time


class Recovery:
    """Restores the ingestor and the engine, and replays rows until `finished`.

    Parameters
    ----------
    state : JournalState
        What an earlier run left, without the rows.
    ingestor : Ingestor
    database : Database
    wake : callable
        Called from the database's thread when a chunk has been read.
    """

    def __init__(self, state: JournalState, ingestor: Ingestor, database: Database, wake: Callable[[], None]) -> None:
        self._state = state
        self._ingestor = ingestor
        self._engine = ingestor.engine
        self._telemetry = ingestor.telemetry
        self._database = database
        self._wake = wake
        # Streams and agents keep the age that they had at the end of the earlier run: nobody could be heard since then.
        self._ended = max(_times_heard(state), default=0.0)
        self._windows: deque[tuple[WindowRow, OpenWindow]] = deque()
        self._schemas: dict[int, set[bytes]] = {}  # hashes, by window
        self._window_schemas: dict[int, Schema] = {}  # at the end of the earlier run, by window
        self._chunks: deque[ChunkEntry] | None = None  # that are not requested yet; None until they are listed
        self._requested: deque[ChunkEntry] = deque()
        self._requested_bytes = 0
        self._listed: deque[list[ChunkEntry]] = deque()
        self._is_listing = False
        self._arrived: deque[list[ChunkRecord] | Checkpoint | ValueError] = deque()  # in the order of the requests
        self._lost = LostPositions(state, ingestor, database, wake)
        self._is_swept = False  # rows that are not needed any more are being deleted
        self.replayed = 0  # rows

    @property
    def finished(self) -> bool:
        """Whether all rows are with the engine."""
        return self._is_swept and not self._windows

    # --- state -------------------------------------------------------------------------------------------------------

    def restore(self, now: Now, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Restore positions, agents, open windows and the memory of metrics; everything but the rows.

        `meanwhile` is called again and again.
        """
        state, ingestor = self._state, self._ingestor
        numbers = [*(row.number for row in state.windows), *(number for number, *_ in state.counts), *state.leftovers]
        ingestor.numbers = count(max([0, *numbers]) + 1)
        self._restore_models(now)
        for place, row in enumerate(sorted(state.streams, key=lambda row: row.heard)):
            if place % SLICE == 0:
                meanwhile()
            session = ingestor.sessions.restore(row, self._ended - row.heard, now)
            if session is None:
                continue
            own = ingestor.models.get((session.topic.model, session.topic.version))
            if row.gone == LIVE and own is not None:  # windows wait for it again
                agent = session.topic.agent_id
                for known in family(own):
                    known.windows.restore_stream(agent if known.windows.knows(agent) else OTHER, row.id)
        for number, digest in state.schemas:
            self._schemas.setdefault(number, set()).add(digest)
        windows = {}
        for place, kept in enumerate(state.windows):
            if place % SLICE == 0:
                meanwhile()
            windows[kept.number] = self._restore_window(kept)
        for number, model, version, agent, tally in state.counts:
            if number == NO_WINDOW:
                self._model(model, version).windows.restore_counts(agent, tally, now)
            elif number in windows:
                windows[number].tallies[agent] = tally
                if tally.received:
                    windows[number].contributors.add(agent)
        for number, model, version, agent, tags in state.tags:
            if number == NO_WINDOW:
                self._model(model, version).tags[agent] = tags
            elif number in windows:
                windows[number].tags[agent] = tags
        settle_damage(state, ingestor, now)
        last_seen = {(model, version): wall for model, version, wall, _ in state.heard}
        for key, restored in ingestor.models.items():
            restored.windows.change_rules(ingestor.policies.of(key[0]).rules)  # windows of the earlier run keep theirs
            if key in last_seen:
                restored.restore(last_seen[key], now)
            else:  # written by a release that did not note it
                restored.touch(now)
        ingestor.turn.number = state.turn + 1
        if windows:
            log.info("restored %d open windows", len(windows))

    def _restore_models(self, now: Now) -> None:
        # Whatever is kept of a model gives it a state, so that it goes when the model is forgotten.
        state = self._state
        for model, version, _, owner in state.heard:
            self._model(model, version, owner or "")
        for (model, version), schema, main in state.mains:
            restored = self._model(model, version)
            restored.windows.columns = schema
            if main is not None:
                adopt(self._model(model, main), restored)
        for labels in state.label_owners:
            self._ingestor.late.restore_owner(self._model(labels.model, labels.version), labels)
        for key, steps in state.periods:
            self._model(*key).windows.restore_periods(steps)
        for model, version, start, end in state.spans:
            self._model(model, version).windows.closed.add(start, end)
        for model, version, agent, newest, heard, identity in state.agents:
            silence = 0.0 if heard is None else self._ended - heard
            restored = self._model(model, version)
            restored.windows.restore_agent(agent, newest, now, silence)
            if agent != OTHER:
                restored.restore_agent(agent, identity or "")
        for model, version, metric, agent, memory in state.memory:
            self._model(model, version)
            self._engine.memory.restore((model, version), metric, agent or None, memory)

    def _model(self, model: str, version: str, owner: str = "") -> ModelState:
        key = (model, version)
        return self._ingestor.models.get(key) or self._ingestor.add_model(key, owner)

    def _restore_window(self, row: WindowRow) -> OpenWindow:
        model = (row.model, row.version)
        book, kept_contracts = self._engine.contracts, self._state.contracts
        contract, sound = book.restore(model, row.policy, row.reference, kept_contracts)
        if not sound:
            self._telemetry.count("contracts_damaged")
        schema = journal_state.decoded_schema(row.schema)
        self._window_schemas[row.number] = schema
        window = OpenWindow(row.start, row.end, row.number, schema, contract.policy.rules)
        self._engine.open(model, window, contract)
        hashes = self._schemas.get(row.number, set())
        unreported = UnreportedWindow(model, window, hashes, contract=contract)
        unreported.checkpoint_bytes = self._state.checkpoints.get(row.number, 0)
        self._ingestor.unreported[row.number] = unreported
        if not row.closing:
            self._model(*model).windows.restore_window(window)
        self._windows.append((row, window))
        return window

    # --- rows --------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Give the engine the chunks that were read, and request more. Called in each turn while there is room."""
        if not self._lost.advance():
            return
        if not self._is_swept:
            self._is_swept = True
            self._delete_what_is_left()
        if not self._windows or (self._chunks is None and not self._is_listed()):
            return
        while self._arrived:
            result, chunk = self._arrived.popleft(), self._requested.popleft()
            self._requested_bytes -= chunk.nbytes
            while self._windows[0][0].number != chunk.window:  # the earlier windows have all their rows
                self._complete(*self._windows.popleft())
            row, window = self._windows[0]
            if isinstance(result, Checkpoint):
                self._engine.restore((row.model, row.version), window, result)
            else:
                self._replay_chunk(chunk, result, row, window)
        while self._chunks and self._has_room(self._chunks[0]):
            self._request(self._chunks.popleft())
        if not self._requested:
            while self._windows:
                self._complete(*self._windows.popleft())

    def _delete_what_is_left(self) -> None:
        """Delete chunks of closed windows, and those that are in a checkpoint."""
        for number in self._state.leftovers:
            self._database.delete_chunks(number, self._state.turn)
        for kept in self._state.windows:
            if kept.through >= 0:
                self._database.delete_chunks(kept.number, kept.through)

    def _is_listed(self) -> bool:
        """Request the list of all chunks, and return whether it has come."""
        if self._listed:
            self._chunks = deque(self._listed.popleft())
        elif not self._is_listing:
            self._is_listing = True
            state = self._state
            list_chunks = partial(chunk_reader.list_chunks, state.windows, state.turn, checkpoints=state.checkpoints)
            self._database.submit(list_chunks, self._take(self._listed))
        return self._chunks is not None

    def _has_room(self, chunk: ChunkEntry) -> bool:
        ahead = self._requested_bytes + chunk.nbytes
        return not self._requested or (len(self._requested) < AHEAD and ahead <= AHEAD_BYTES)

    def _request(self, chunk: ChunkEntry) -> None:
        self._requested.append(chunk)
        self._requested_bytes += chunk.nbytes

        def work(connection: sqlite3.Connection) -> list[ChunkRecord] | Checkpoint | ValueError:
            try:
                if chunk.id == CHECKPOINT:
                    data = chunk_reader.read_checkpoint(chunk.window, connection)
                    return checkpoint_codec.decode(data, self._window_schemas[chunk.window])
                return chunk_reader.read_chunk(chunk, connection)
            except sqlite3.Error:
                raise
            except Exception as error:  # noqa: BLE001 - damaged bytes may raise anything
                return ValueError(f"{type(error).__name__}: {error}")

        self._database.submit(work, self._take(self._arrived))

    def _take(self, into: deque[Any]) -> Callable[[Any], None]:
        """Return what takes a result in the database's thread."""

        def done(result: Any) -> None:
            into.append(result)
            self._wake()

        return done

    def _replay_chunk(
        self, chunk: ChunkEntry, result: list[ChunkRecord] | ValueError, row: WindowRow, window: OpenWindow
    ) -> None:
        if isinstance(result, ValueError):
            what = "the checkpoint of a window" if chunk.id == CHECKPOINT else "journaled rows"
            log.error("%s of model %r: damaged, and its rows count as lost: %s", what, row.model, result)
            self._telemetry.count("checkpoints_damaged" if chunk.id == CHECKPOINT else "chunks_damaged")
            return
        for record in result:
            self.replay(record, row, window)

    def replay(self, record: ChunkRecord, row: WindowRow, window: OpenWindow) -> None:
        """Give a record's rows to the engine."""
        is_late = "label_outcomes" in record.columns  # joined before it was journaled
        schema = window.schema if is_late else self._state.schemas.get((row.number, record.schema))
        if schema is None:
            return  # its rows are missing, and count as lost
        batch = Batch(schema, record.columns, record.rows, record.dictionaries)
        self._ingestor.unreported[row.number].nbytes += batch.nbytes
        if is_late:
            # The earlier run may have ended before the journal had this agent's counts, and it may have no rows here.
            self._model(row.model, row.version).windows.include_agent(window, record.agent)
            self._engine.add_rows((row.model, row.version), window, AgentRows(record.agent, batch))
            return
        seed = stream_seed(record.stream)
        rows = AgentRows(record.agent, batch, seed, record.numbers)
        self._engine.add_rows((row.model, row.version), window, rows)
        self.replayed += record.rows

    def _complete(self, row: WindowRow, window: OpenWindow) -> None:
        """Count received rows that the engine did not get as lost; close a window that was closing."""
        model = (row.model, row.version)
        present = self._engine.rows(model, window)
        if "tallies" in self._state.damaged:
            for agent in present:
                self._model(*model).windows.include_agent(window, agent)
        for agent, tally in window.tallies.items():
            missing = tally.received - present.get(agent, 0)
            if missing < 0 and "tallies" in self._state.damaged:  # its counts are lost; its rows are here
                tally.received -= missing
                self._model(*model).windows.changes.counts.add((row.number, agent))
            if missing > 0:
                tally.received -= missing
                tally.lost += missing
                self._telemetry.count("lost", "damaged", missing)
                self._model(*model).windows.changes.counts.add((row.number, agent))
        if row.closing:
            self._engine.close(model, window)


def _times_heard(state: JournalState) -> Iterator[float]:
    yield from (row.heard for row in state.streams)
    yield from (heard for _, _, heard, _ in state.heard)
    yield from (heard for *_, heard, _ in state.agents if heard is not None)
