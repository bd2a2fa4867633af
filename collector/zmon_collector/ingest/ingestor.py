"""Put every row that arrives into a window, or count it as late, lost, rejected or sampled out: exactly once.

What a turn decides is gathered for the journal. Acknowledgements follow when that is on disk, so a crash loses only
what publishers send again, and positions on disk keep that from being counted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from secrets import token_bytes

from zmon._wire.control import Greeting
from zmon._wire.frames import Message, Topic
from zmon.batch import Batch
from zmon.errors import WireError
from zmon.names import OTHER_REASON
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.series_selection import matches
from zmon_collector.ingest.acks import PendingAck
from zmon_collector.ingest.admission import Admission, Globs, Pool, share_text
from zmon_collector.ingest.answers import Detail, Details
from zmon_collector.ingest.arrival import Arrival, BatchArrival
from zmon_collector.ingest.auth import AllowedClient
from zmon_collector.ingest.late_labels import LateLabels
from zmon_collector.ingest.model_admission import ModelAdmission
from zmon_collector.ingest.model_journal import ModelJournal
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.reason_names import ReasonNames, known_reason
from zmon_collector.ingest.row_placement import RowPlacement, UnreportedWindow
from zmon_collector.ingest.schedule import Schedule
from zmon_collector.ingest.schema_cache import SchemaCache
from zmon_collector.ingest.session import Session
from zmon_collector.ingest.sessions import SessionRegistry
from zmon_collector.ingest.stream_position import StreamPosition, first_contact
from zmon_collector.ingest.variants import Variants, family, forsake
from zmon_collector.storage.journal import Turn
from zmon_collector.storage.label_join import Joined
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NO_WINDOW, OTHER, ModelKey, Now, OpenWindow, Tally

log = logging.getLogger("zmon.collector")


class Ingestor:
    """State of all streams and models, and the decisions about their rows. Runs on the collector's thread.

    Parameters
    ----------
    config : Config
    policies : PolicyStore
    telemetry : Telemetry
    engine : Engine
        Receives the rows, by window.
    journal : bool
        Whether rows and open windows are to be journaled.
    """

    def __init__(
        self, config: Config, policies: PolicyStore, telemetry: Telemetry, engine: Engine, *, journal: bool
    ) -> None:
        self.config = config
        self.policies = policies
        self.models: dict[ModelKey, ModelState] = {}
        self.admission = Admission(config.limits)
        self.sessions = SessionRegistry(telemetry, self.admission)
        self._reasons = ReasonNames()
        self.unreported: dict[int, UnreportedWindow] = {}
        self.numbers = count(1)
        self.store_id = token_bytes(8)  # sent with acknowledgements; replaced by the id of the journal, if there is one
        self.settled_rows: dict[bytes, int] = {}  # the last journaled row of streams whose position was lost
        self.awaits_positions = False  # they are still searched for, and unknown streams wait
        self.restored = False  # these positions are of a copy of the database older than the files next to it
        self.turn = Turn(1)
        self.telemetry = telemetry
        self.engine = engine
        self._places = ModelAdmission(self.models, self.admission, self.sessions, telemetry, self.add_model)
        self.late = LateLabels(self.models, engine.close, journal=journal)
        self._model_journal = ModelJournal(engine, self.unreported, journal=journal)
        self._variants = Variants(self._places.admit_version)
        self._placement = RowPlacement(engine, self.late, self._variants, self.unreported, journal=journal)
        self._changed: dict[ModelKey, None] = {}  # models to be journaled with this turn
        self._unplanned: dict[ModelKey, None] = {}  # of these, models that may have to be looked at sooner
        self._schedule = Schedule()  # by the wall time at which windows of a model may close
        self._journal = journal
        self._schemas = SchemaCache(telemetry)

    def reload(self, config: Config, globs: Sequence[Globs] | None = None) -> None:
        """Follow another configuration, from the next window on; `globs` has the models of each identity."""
        self.config = config
        self.admission.follow(config.limits, globs)
        self._schemas.forget_refusals()
        for (name, _), model in self.models.items():
            model.windows.change_rules(self.policies.of(name).rules)
            model.places.resize(model.windows.rules.agents, self.admission.identities_of(name))

    # --- receive -----------------------------------------------------------------------------------------------------

    def handle_greeting(self, greeting: Greeting, peer: bytes, now: Now, user: str = "", identity: str = "") -> None:
        """Settle a hello, a ping or a goodbye of a publisher; WireError if there is no place for its stream."""
        if not self._is_wanted(greeting.topic):
            self._decline(greeting, peer, now, user, identity)
            return
        if self._must_wait(greeting.stream):
            if greeting.kind == "hello":
                self.sessions.acknowledge_as_it_says(greeting, peer)
            return
        session = self.sessions.get(greeting.stream)
        if session is None:
            known = self.settled_rows.get(greeting.stream, greeting.acked)
            if self.restored and greeting.acked > known:  # in reports written since the copy, or lost
                self.telemetry.count("rows_since_restored_copy", by=greeting.acked - known)
            position = first_contact(greeting, self.store_id)
            try:
                session = self._register(greeting.stream, greeting.topic, position, identity, now)
            except WireError as error:
                self.sessions.hold_off(greeting.stream, peer, error)
                raise
        self.sessions.touch(session, greeting.topic, user, now, identity)
        if session.position.hand_over(greeting, self.store_id):
            self.sessions.mark_changed(session)
        position = session.position
        adds = greeting.base - 1 > position.row or greeting.tally != position.tally
        arrival = self._arrival(session, now, takes_place=adds)
        position.issued = max(position.issued, greeting.issued)
        self.sessions.set_peer(session, peer)
        self._write_off(arrival, greeting.base - 1)
        self._count_tally(arrival, greeting.tally)
        counted = session.position.tally
        for reason, detail in greeting.details.items():
            kind = "degraded" if reason in counted.get("degraded", {}) else "rejected"
            arrival.explain(kind, reason if reason in counted.get(kind, {}) else OTHER_REASON, detail)
        if greeting.kind == "bye":
            for model in family(arrival.model) if arrival.model is not None else ():
                known = model.windows.knows(greeting.topic.agent_id)
                model.windows.disconnect(greeting.topic.agent_id if known else OTHER, greeting.stream)
            self.sessions.end(session, now)
        elif arrival.model is not None:
            self._places.greet(session, arrival.model, now, is_hello=greeting.kind == "hello")
        self.sessions.acknowledge(greeting.stream)

    def _decline(self, greeting: Greeting, peer: bytes, now: Now, user: str, identity: str) -> None:
        """Answer that the model is not taken here, and what was settled of the stream when it was."""
        session = self.sessions.get(greeting.stream)
        if session is not None:
            self.sessions.touch(session, greeting.topic, user, now, identity)
            self.sessions.set_peer(session, peer)
            self.sessions.acknowledge(greeting.stream)
        self.sessions.decline(greeting.stream, peer)

    def handle_message(
        self, message: Message, now: Now, user: str = "", client: AllowedClient | None = None, identity: str = ""
    ) -> None:
        """Settle a batch, or store a schema; WireError if the message is refused."""
        if not self._is_wanted(message.topic):
            return
        if message.kind == "schema":
            self._schemas.store(message, self.config.limits)
            return
        if self._must_wait(message.stream):
            return
        refusal = self._schemas.refusal(message.schema)
        if refusal is not None:
            self.refuse_message(message, refusal, now, user, identity)
            return
        entry = self._schemas.get(message.schema)
        if entry is None:  # the position stays, so the rows come again, after their schema
            self.sessions.request_schema(message.stream, message.schema)
            raise WireError("schema_unknown", message.schema.hex())
        session = self._session(message, now, user, identity)
        arrival = self._arrival(session, now)
        skip, max_skew = self._accept(arrival, message), self.config.collector.max_skew
        self._places.note_rows(arrival, labels=message.kind == "labels")
        if arrival.model is None:
            detail = share_text(self.admission.models, "models", identity)
            arrival.refuse(message.rows - skip, "models", detail)
        elif skip < message.rows:
            batch = BatchArrival(session, arrival.model, arrival.agent, now, self.telemetry, message, *entry, client)
            if message.kind == "labels":
                batch.model.windows.disconnect_labels_only(batch.agent, message.stream)
                self.late.settle(self.turn.join_work, self._variants.of_labels(batch), skip, max_skew)
            else:
                self._placement.settle(self.turn, batch, skip, max_skew)
        self.sessions.acknowledge(message.stream)

    def refuse_message(self, message: Message, error: WireError, now: Now, user: str = "", identity: str = "") -> None:
        """Reject the rows of a batch that cannot be decoded, or whose schema was refused, and answer its publisher.

        The position moves over them: no publisher sends a message again that is refused again.
        """
        if not self._is_wanted(message.topic) or self._must_wait(message.stream):
            return
        session = self._session(message, now, user, identity)
        arrival = self._arrival(session, now)
        skip = self._accept(arrival, message)
        arrival.refuse(message.rows - skip, error.reason, error.detail)
        self.sessions.acknowledge(message.stream)

    def _session(self, message: Message, now: Now, user: str, identity: str) -> Session:
        session = self.sessions.get(message.stream)
        if session is None:
            if message.first > message.base and not self.sessions.knows(message.stream):
                raise WireError("stream_unknown", "rows before these are not settled: its next greeting says which")
            position = StreamPosition(message.first - 1)
            session = self._register(message.stream, message.topic, position, identity, now)
        self.sessions.touch(session, message.topic, user, now, identity)
        return session

    def _arrival(self, session: Session, now: Now, *, takes_place: bool = True) -> Arrival:
        """Return an arrival of a stream; its model has a state only if it has a place, or takes one."""
        topic, agent = session.topic, session.topic.agent_id
        key = (topic.model, topic.version)
        model = self.models.get(key)
        if takes_place:
            model, agent = self._places.admit(topic, session.identity, now)
        elif model is not None and not model.windows.knows(agent):
            agent = OTHER
        if model is not None:
            model.touch(now)
            self._note_change(key)
        return Arrival(session, model, agent, now, self.telemetry)

    def _must_wait(self, stream: bytes) -> bool:
        """Return whether it is not known yet where a stream goes on; its publisher sends the rows again."""
        return self.awaits_positions and not self.sessions.knows(stream)

    def takes(self, model: str) -> bool:
        """Return whether this collector takes a model."""
        return matches(self.config.collector.models, model)

    def _is_wanted(self, topic: Topic) -> bool:
        if self.takes(topic.model):
            return True
        self.telemetry.count("not_ours", by=1)
        return False

    def _register(self, stream: bytes, topic: Topic, position: StreamPosition, identity: str, now: Now) -> Session:
        position.row = max(position.row, self.settled_rows.pop(stream, 0))
        position.issued = max(position.issued, position.row)
        return self.sessions.register(stream, topic, position, identity, now)

    def details_of(self, key: ModelKey) -> list[Detail]:
        """Return why rows of a model were rejected or degraded, newest first. Any thread may call it."""
        model = self.models.get(key)
        return model.details.newest() if model is not None else []

    def add_model(self, key: ModelKey, owner: str = "") -> ModelState:
        """Create the state of a model, whose place an identity holds."""
        self._note_change(key)
        self.admission.models.hold(owner)
        rules, changed = self.policies.of(key[0]).rules, partial(self._note_change, key)
        windows, details = WindowManager(rules, self.numbers, changed), Details(partial(len, self.models))
        places = Pool(rules.agents, self.admission.identities_of(key[0]))
        self.models[key] = ModelState(key, windows, owner=owner, places=places, details=details)
        return self.models[key]

    def _note_change(self, key: ModelKey) -> None:
        self._changed[key] = self._unplanned[key] = None

    # --- positions and tallies ----------------------------------------------------------------------------------------

    def _accept(self, arrival: Arrival, message: Message) -> int:
        """Move the stream's position over a message; return how many of its rows are settled already."""
        skip, lost = arrival.session.position.accept(message)
        if lost:
            arrival.count("lost", lost)
        if message.tally:
            self._count_tally(arrival, message.tally)
        self.telemetry.count("messages")
        if skip < message.rows or lost:
            self.sessions.mark_changed(arrival.session)
        if skip == message.rows:
            self.telemetry.count("duplicates", by=message.rows)
        return skip

    def _write_off(self, arrival: Arrival, row: int) -> None:
        lost = arrival.session.position.write_off(row)
        if lost:
            self.sessions.mark_changed(arrival.session)
            arrival.count("lost", lost)

    def _count_tally(self, arrival: Arrival, tally: Mapping[str, object]) -> None:
        place = known_reason if arrival.model is None else partial(self._reasons.place, arrival.model.key)
        for kind, reason, rows in arrival.session.position.update_tally(tally, place, self.sessions.reasons):
            self.sessions.mark_changed(arrival.session)
            arrival.count(kind, rows, reason)

    def handle_joined(self, windows: frozenset[int], joined: Joined) -> None:
        """Add the rows that a turn's join has completed to their windows, which may close then."""
        for number, record in self.late.completed(joined, self.telemetry):
            unreported = self.unreported[number]
            self.models[unreported.model].windows.include_agent(unreported.window, record.agent)
            batch = Batch(unreported.window.schema, record.columns, record.rows)
            unreported.nbytes += batch.nbytes
            self.engine.add_rows(unreported.model, unreported.window, AgentRows(record.agent, batch))
        for stream, (rows, detail) in joined.forbidden.items():  # they have an outcome already, and no other count
            self.sessions.answer(stream, rows, "forbidden", detail)
        self.late.release(windows)

    # --- close -------------------------------------------------------------------------------------------------------

    def end_streams(self, now: Now, *, force: bool = False) -> None:
        """Count what is missing of streams that said goodbye as lost; forget them and those that are long silent."""
        for session in self.sessions.ended(now, force=force):
            if session.position.row < session.position.issued:
                arrival = self._arrival(session, now)
                self._write_off(arrival, session.position.issued)
        self.sessions.forget_gone(now)

    def close_due(self, now: Now, *, hold: bool) -> None:
        """Hand windows that are due to the engine; with `hold`, after a start, none by the collector's clocks."""
        self._plan_looks()
        for key in self._schedule.due(now.wall):
            model = self.models.get(key)
            if model is not None:
                model.windows.place_counts(now)
                self._close(model, model.windows.close_due(now, hold=hold))
                self._schedule.note(key, model.windows.next_look)

    def _plan_looks(self) -> None:
        """Note when windows of the models that have changed may close."""
        for key in self._unplanned:
            model = self.models.get(key)
            if model is not None:
                self._schedule.note(key, model.windows.next_look)
        self._unplanned.clear()

    def is_open(self, unreported: UnreportedWindow) -> bool:
        """Return whether a window takes rows, so that it is not closing yet."""
        model = self.models.get(unreported.model)
        window = unreported.window
        return model is not None and model.windows.open.get(window.start) is window

    def close_early(self, key: ModelKey) -> OpenWindow | None:
        """Have the oldest open window of a model closed with the next turn, though it is not due; return it."""
        model = self.models.get(key)
        return model.windows.close_oldest() if model is not None else None

    def close_all(self, now: Now) -> None:
        """Hand every open window to the engine."""
        for model in self.models.values():
            model.windows.place_counts(now, force=True)
            self._close(model, model.windows.close_all())

    def _close(self, model: ModelState, windows: Sequence[OpenWindow]) -> None:
        for window in windows:
            self.turn.closing.append(window.number)
            self.late.close(model, window)

    def finish_window(self, closed: ClosedWindow) -> dict[str, Mapping[str, str]]:
        """Drop a window whose report is about to be written; return its agents' tags."""
        unreported = self.unreported.pop(closed.number, None)
        self._model_journal.release(closed.number)
        model = self.models.get(closed.model)
        # Of an agent that has counts and no rows in the window: the tags of its newest rows.
        tags = {**(model.tags if model else {}), **(unreported.window.tags if unreported else {})}
        return {agent: tags[agent] for agent in closed.rows if agent in tags}

    def lose_window(self, closed: ClosedWindow, now: Now) -> None:
        """Give up a window whose report cannot be written: its rows count as lost, with the next window's counts."""
        model = self.models.get(closed.model) or self.add_model(closed.model)
        for agent, rows in closed.rows.items():
            self.telemetry.count("lost", "report", rows.received)
            tally = Tally(0, rows.late, rows.lost, rows.sampled_out, dict(rows.rejected), dict(rows.degraded))
            tally.add("lost", rows.received)
            model.windows.restore_counts(agent, tally, now)
            model.windows.changes.counts.add((NO_WINDOW, agent))
        self.turn.unreported.append(closed.number)

    # --- forget ------------------------------------------------------------------------------------------------------

    def forget_agents(self, model: ModelState, agents: Sequence[str]) -> None:
        """Forget what is kept of agents that the model's windows no longer know."""
        self.engine.memory.forget_agents(model.key, agents)
        self.turn.forgotten_agents += [(*model.key, agent) for agent in agents]
        for agent in agents:
            model.forget_agent(agent)

    def forget(self, model: ModelKey) -> None:
        """Forget everything that is kept of a model, here, in the engine, and on disk with this turn."""
        self.admission.models.release(self.models.pop(model).owner)
        self._reasons.forget(model)
        forsake(self.models.values(), model)
        self.engine.forget(model)
        self.turn.forgotten_models.append(model)

    # --- the turn ----------------------------------------------------------------------------------------------------

    def end_turn(self, now: Now) -> tuple[Turn, list[PendingAck], frozenset[int]]:
        """Return this turn's decisions, the acknowledgements due once they are on disk, and the windows that wait for
        its join."""
        turn, self.turn = self.turn, Turn(self.turn.number + 1)
        joining = self.late.end_turn(turn.join_work, self.config, now)
        self._plan_looks()
        for key in self._changed:
            if key in self.models:
                self._model_journal.add(turn, self.models[key], now)
        self._changed.clear()
        acks = self.sessions.drain_acks()
        turn.streams, turn.forgotten_streams = self.sessions.drain_changes(now)
        if not self._journal:
            turn = Turn(
                turn.number,
                spans=turn.spans,
                periods=turn.periods,
                mains=turn.mains,
                forgotten_agents=turn.forgotten_agents,
                heard=turn.heard,
                forgotten_models=turn.forgotten_models,
            )
        return turn, acks, joining
