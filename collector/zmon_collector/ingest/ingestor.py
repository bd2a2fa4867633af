"""Every row that arrives is put into a window, or counted as late, lost, rejected or sampled out: once, for good.

What is decided in a turn is gathered for the journal; acknowledgements are due when that is on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from secrets import token_bytes
from typing import NamedTuple

from zmon._wire.control import Greeting
from zmon._wire.frames import Message, Topic, encode_schema
from zmon.batch import Batch, Schema
from zmon.errors import WireError
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.sample import stream_seed
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.ingest import validation
from zmon_collector.ingest.late_labels import LateLabels
from zmon_collector.ingest.model_state import ModelStates
from zmon_collector.ingest.schema_cache import SchemaCache
from zmon_collector.ingest.sessions import GONE_AFTER, SessionRegistry
from zmon_collector.ingest.stream_position import StreamPosition, first_contact
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.journal import ModelKey, Turn, WindowRow, pack_counts
from zmon_collector.storage.label_join import Joined
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NO_WINDOW, OTHER, Now, OpenWindow

log = logging.getLogger("zmon.collector")


class PendingAck(NamedTuple):
    """An acknowledgement that is due: to whom, for which stream, up to which row, and the schema that is needed."""

    peer: bytes
    stream: bytes
    row: int
    need: bytes


@dataclass(slots=True)
class UnreportedWindow:
    """A window whose report is not written yet."""

    model: ModelKey
    window: OpenWindow
    schemas: set[bytes] = field(default_factory=set)  # journaled with it
    nbytes: int = 0  # of rows behind the last checkpoint


class Ingestor:
    """Where rows are settled: streams, schemas and the books of all models. Runs on the collector's thread.

    Parameters
    ----------
    config : Config
    policies : PolicyStore
    telemetry : Telemetry
    engine : Engine
        Gets the rows, by window.
    journal : bool
        Whether rows and open windows are to be journaled.
    """

    def __init__(
        self, config: Config, policies: PolicyStore, telemetry: Telemetry, engine: Engine, *, journal: bool
    ) -> None:
        self.config = config
        self.policies = policies
        self.managers: dict[ModelKey, WindowManager] = {}
        self.shelf = ModelStates()
        self.sessions = SessionRegistry(telemetry)
        self.pending: dict[int, UnreportedWindow] = {}
        self.tags: dict[ModelKey, dict[str, Mapping[str, str]]] = {}
        self.numbers = count(1)
        self.store = token_bytes(8)  # names what acknowledgements are kept in; a journal has a name of its own
        self.turn = Turn(1)
        self._telemetry = telemetry
        self._engine = engine
        self._journal = journal
        self._schemas = SchemaCache(telemetry)
        self._acks: dict[bytes, bytes] = {}  # streams to acknowledge after this turn, and the schema each lacks
        self._alarmed: set[ModelKey] = set()
        self.late = LateLabels(engine.close, journal=journal)

    def reload(self, config: Config) -> None:
        """Other rules, from the next window on."""
        self.config = config
        for (model, _), manager in self.managers.items():
            manager.change_rules(self.policies.of(model).rules)

    # --- receive -----------------------------------------------------------------------------------------------------

    def take_greeting(self, greeting: Greeting, peer: bytes, now: Now, user: str = "") -> None:
        """A publisher says hello, still here, or goodbye."""
        if not self._wanted(greeting.topic):
            return
        stream = self.sessions.get(greeting.stream)
        if stream is None:
            stream = first_contact(greeting, stream_seed(greeting.stream), self.store)
            self.sessions.meet(greeting.stream, stream, self.config.limits.streams, now)
        self.sessions.hear(greeting.stream, greeting.topic, user, now)
        manager, agent = self._manager(greeting.topic, now)
        stream.issued = max(stream.issued, greeting.issued)
        self.sessions.answer(greeting.stream, peer)
        self._advance(greeting.stream, stream, greeting.base - 1, manager, agent, now)
        self._take_tally(greeting.stream, stream, greeting.tally, manager, agent, now)
        if greeting.kind == "hello":
            manager.connect(agent, greeting.stream, now)
        elif greeting.kind == "bye":
            manager.disconnect(agent, greeting.stream)
            if not stream.left:
                stream.ends_at = now.mono + GONE_AFTER
                self.sessions.moved(greeting.stream)
        self._acks.setdefault(greeting.stream, b"")

    def take_message(self, message: Message, now: Now, user: str = "") -> None:
        """A batch or a schema; WireError when it cannot be taken."""
        if not self._wanted(message.topic):
            return
        if message.kind == "schema":
            self._schemas.take(message, self.config.limits)
            return
        known = self._schemas.get(message.schema)
        if known is None:
            self._acks[message.stream] = message.schema  # not acknowledged: it comes again, after its schema
            raise WireError("schema_unknown", message.schema.hex())
        stream = self.sessions.get(message.stream)
        if stream is None:
            stream = StreamPosition(message.topic, message.first - 1, stream_seed(message.stream))
            self.sessions.meet(message.stream, stream, self.config.limits.streams, now)
        self.sessions.hear(message.stream, message.topic, user, now)
        manager, agent = self._manager(message.topic, now)
        settle = self._settle_labels if message.kind == "labels" else self._settle
        settle(message, *known, stream, manager, agent, now)
        self._acks.setdefault(message.stream, b"")

    # --- settle ------------------------------------------------------------------------------------------------------

    def _settle(
        self,
        message: Message,
        schema: Schema,
        body: bytes,
        stream: StreamPosition,
        manager: WindowManager,
        agent: str,
        now: Now,
    ) -> None:
        topic = message.topic
        skip = self._offered(message, stream, manager, agent, now)
        fresh = message.rows - skip
        if not fresh:
            return
        self._telemetry.count("rows", by=fresh)
        try:
            batch = validation.checked(message, schema)
            times, skewed = validation.settled(message, now.wall, self.config.collector.max_skew)
            starts = manager.periods.starts(times)
            validation.spread(starts, manager.rules.open_windows)
        except WireError as error:
            self._count(manager, agent, "rejected", fresh, now, error.reason)
            return
        if skewed:
            self._telemetry.count("skewed", by=skewed)
        model = (topic.model, topic.version)
        for part in validation.split(batch, message.first, skip, times, starts):
            rows = part.batch.rows
            manager.advance_clock(agent, message.stream, part.newest, now)
            window = manager.place_rows(agent, schema, part.start, rows, now)
            if window is None:
                self._telemetry.count("late_or_conflicting", by=rows)
                continue
            self._engine.add(model, window, agent, part.batch, stream.seed, part.numbers)
            if self._journal:
                columns, dictionaries = dict(part.batch.raw()), dict(part.batch.dictionaries)
                record = ChunkRecord(agent, message.stream, message.schema, part.numbers, rows, columns, dictionaries)
                self._write(model, window, body, record)
                if "ids" in columns:
                    self.late.keep(self.turn, model, window, agent, part, now)
        if schema.tags:
            self.tags.setdefault(model, {})[agent] = schema.tags

    def _offered(self, message: Message, stream: StreamPosition, manager: WindowManager, agent: str, now: Now) -> int:
        """Move the stream's position over a message; how many of its rows are known already."""
        skip, lost = stream.offer(message)
        self._count(manager, agent, "lost", lost, now)
        self._take_tally(message.stream, stream, message.tally, manager, agent, now)
        self._telemetry.count("messages")
        if skip < message.rows or lost:
            self.sessions.moved(message.stream)
        if skip == message.rows:
            self._telemetry.count("duplicates", by=message.rows)
        return skip

    def _settle_labels(
        self,
        message: Message,
        schema: Schema,
        body: bytes,
        stream: StreamPosition,
        manager: WindowManager,
        agent: str,
        now: Now,
    ) -> None:
        """Labels of rows that were published before, or will be soon: what becomes of them is found in the join."""
        skip = self._offered(message, stream, manager, agent, now)
        fresh = message.rows - skip
        if not fresh:
            return
        self._telemetry.count("labels", by=fresh)
        manager.disconnect_labels_only(agent, message.stream)
        settled = self.late.settle(
            self.turn, message, schema, skip, manager, agent, self.config.collector.max_skew, now
        )
        for reason, rows in settled.items():
            self._count(manager, agent, "rejected", rows, now, reason)

    def take_joined(self, windows: frozenset[int], joined: Joined) -> None:
        """What the join of a turn has completed goes into its windows, which may then close."""
        for number, record in self.late.completed(joined, self._telemetry):
            pending = self.pending[number]
            self.managers[pending.model].include_agent(pending.window, record.agent)
            batch = Batch(pending.window.schema, record.columns, record.rows)
            self._engine.add(pending.model, pending.window, record.agent, batch, 0, 0)
        self.late.joined(windows)

    def _write(self, model: ModelKey, window: OpenWindow, body: bytes, record: ChunkRecord) -> None:
        pending = self.pending.get(window.number)
        if pending is None:
            pending = self.pending[window.number] = UnreportedWindow(model, window)
        if record.schema not in pending.schemas:
            pending.schemas.add(record.schema)
            self.turn.schemas.append((window.number, record.schema, body))
        self.turn.chunks.setdefault(window.number, []).append(record)
        nbytes = sum(column.nbytes for column in record.columns.values())
        self.turn.nbytes += nbytes
        pending.nbytes += nbytes

    def _advance(
        self, key: bytes, stream: StreamPosition, row: int, manager: WindowManager, agent: str, now: Now
    ) -> None:
        lost = stream.advance(row)
        if lost:
            self.sessions.moved(key)
            self._count(manager, agent, "lost", lost, now)

    def _take_tally(
        self,
        key: bytes,
        stream: StreamPosition,
        tally: Mapping[str, object],
        manager: WindowManager,
        agent: str,
        now: Now,
    ) -> None:
        for kind, reason, rows in stream.news(tally):
            self.sessions.moved(key)
            self._count(manager, agent, kind, rows, now, reason)

    def _count(self, manager: WindowManager, agent: str, kind: str, rows: int, now: Now, reason: str = "") -> None:
        if rows:
            manager.count(agent, kind, rows, now, reason)
            self._telemetry.count(kind, reason, rows)

    def _wanted(self, topic: Topic) -> bool:
        if any(fnmatchcase(topic.model, glob) for glob in self.config.collector.models):
            return True
        self._telemetry.count("not_ours", by=1)
        return False

    def _manager(self, topic: Topic, now: Now) -> tuple[WindowManager, str]:
        """The book of the topic's model, and the name under which its agent counts."""
        model = (topic.model, topic.version)
        manager = self.managers.get(model)
        if manager is None:
            if len(self.managers) >= self.config.limits.models:
                raise WireError("models", f"more than limits.models = {self.config.limits.models}")
            manager = self.managers[model] = WindowManager(self.policies.of(topic.model).rules, self.numbers)
        self.shelf.hear(model, now)
        agent = manager.admit(topic.agent_id)
        if agent is OTHER:
            self._telemetry.count("agents_over_limit")
            if model not in self._alarmed:
                self._alarmed.add(model)
                log.error("model %r has more than limits.agents = %d agents: %r and further ones count for the rollup "
                          "only; is an agent_id made anew for each request?",
                          topic.model, manager.rules.agents, topic.agent_id)  # fmt: skip
        return manager, agent

    # --- close -------------------------------------------------------------------------------------------------------

    def end_streams(self, now: Now, *, force: bool = False) -> None:
        """After a goodbye: what has not arrived is lost, and the stream is forgotten; so are long silent ones."""
        for key, stream in self.sessions.ended(now, force=force):
            if stream.row < stream.issued:
                manager, agent = self._manager(stream.topic, now)
                self._advance(key, stream, stream.issued, manager, agent, now)
        self.sessions.forget_gone(now)

    def close_due(self, now: Now, *, hold: bool) -> None:
        """Hand the windows that close now to the engine. `hold`: none by the wall clock, after a start."""
        for model, manager in self.managers.items():
            for window in [*manager.close_due(now, hold=hold), *manager.close_unplaced(now)]:
                self._close(model, window)

    def close_all(self, now: Now) -> None:
        """Hand every open window to the engine."""
        for model, manager in self.managers.items():
            for window in [*manager.close_all(), *manager.close_unplaced(now, force=True)]:
                self._close(model, window)

    def _close(self, model: ModelKey, window: OpenWindow) -> None:
        self.turn.closing.append(window.number)
        self.late.close(model, window)

    # --- forget ------------------------------------------------------------------------------------------------------

    def forget_agents(self, model: ModelKey, agents: Sequence[str]) -> None:
        """Let go of all that is kept of agents that a book has forgotten."""
        self._engine.contexts.forget(model, agents)
        self.turn.gone += [(*model, agent) for agent in agents]
        for agent in agents:
            self.tags.get(model, {}).pop(agent, None)

    def forget(self, model: ModelKey) -> None:
        """Let go of all that is kept of a model, here and on disk."""
        del self.managers[model]
        self.tags.pop(model, None)
        self._alarmed.discard(model)
        self.shelf.forget(model)
        self.late.forget(model)
        self._engine.contexts.drop(model)
        self.turn.silent.append(model)

    # --- the turn ----------------------------------------------------------------------------------------------------

    def end_turn(self, now: Now) -> tuple[Turn, list[PendingAck], frozenset[int]]:
        """What this turn decided, the acknowledgements that are due once that is on disk, and the windows that wait for
        what its labels complete."""
        turn, self.turn = self.turn, Turn(self.turn.number + 1)
        collector = self.config.collector
        newest = {model: manager.open[max(manager.open)] for model, manager in self.managers.items() if manager.open}
        waiting = self.late.end_turn(
            turn, self.config.limits.label_bytes, collector.label_horizon, collector.label_wait, newest, now
        )
        for model, manager in self.managers.items():
            changes = manager.take_changes()
            turn.spans += [(*model, *span) for span in changes.spans]
            if not self._journal:
                continue
            for window in changes.opened:
                self.pending.setdefault(window.number, UnreportedWindow(model, window))
                body = encode_schema(window.schema) if window.schema.classes or window.schema.features else b""
                turn.windows.append(WindowRow(window.number, *model, window.start, window.end, body))
                changes.counts |= {(window.number, agent) for agent in window.tallies}
            for number, agent in changes.counts:
                turn.counts.append((number, *model, agent, self._packed(manager, number, agent)))
            turn.agents += [(*model, agent, manager.newest(agent)) for agent in changes.agents if manager.knows(agent)]
        acks = []
        for key, need in self._acks.items():
            stream, peer = self.sessions.get(key), self.sessions.peer(key)
            if stream is not None and peer is not None:
                acks.append(PendingAck(peer, key, stream.row, need))
        self._acks.clear()
        turn.streams, turn.forgotten = self.sessions.take_changes(now.wall)
        turn.heard = self.shelf.take_changes()
        if not self._journal:
            turn = Turn(turn.number, spans=turn.spans, gone=turn.gone, heard=turn.heard, silent=turn.silent)
        return turn, acks, waiting

    def _packed(self, manager: WindowManager, number: int, agent: str) -> bytes | None:
        pending = self.pending.get(number)  # none: the window was finished since, and its counts are in its report
        tallies = manager.unplaced if number == NO_WINDOW else pending.window.tallies if pending else {}
        tally = tallies.get(agent)
        return None if tally is None else pack_counts(tally.plain())
