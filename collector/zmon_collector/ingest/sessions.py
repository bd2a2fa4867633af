"""Connected and remembered streams: position, sender, peer to answer, goodbye. Runs on the collector's thread.

Every collection is ordered by what is due next, so a turn costs in proportion to what is due, however many streams
there are.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator

import msgpack

from zmon._wire.checks import short_detail
from zmon._wire.control import Greeting
from zmon._wire.frames import Topic, pack
from zmon._wire.tally import REASONS, check_tally
from zmon.errors import WireError
from zmon_collector.ingest.acks import PendingAck, acknowledge_as_it_says
from zmon_collector.ingest.admission import Admission
from zmon_collector.ingest.answers import Answers
from zmon_collector.ingest.session import OwnStreams, Session
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage.journal_tables import StreamRow
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import ModelKey, Now

log = logging.getLogger("zmon.collector")

# A goodbye travels on the control socket, so it can overtake rows on the data socket. Therefore rows under way still
# count as arrived for a second; then they are counted as lost, and the stream is put aside.
GONE_AFTER = 1.0  # seconds after a goodbye until missing rows are lost
FORGET_STREAM = 7 * 86400.0  # seconds without rows, hello or ping
IDLE_STREAM = 60.0  # seconds of silence after which a stream may make room for a new one
NOTED_EVERY = 3600.0  # seconds between two notes in the journal of a stream's last sign of life
REMEMBER = 2 * FORGET_STREAM  # seconds since the last message
LEAST_REASONS, ALL_REASONS = 16, 200_000  # by name in the tallies of one stream, and of all streams together
LIVE, LEAVING, LEFT, ASIDE = range(4)  # a stream's state in the journal; earlier releases know the first two


class SessionRegistry:
    """All sessions, by stream, at most `limits.streams`; and what the current turn must journal and acknowledge."""

    def __init__(self, telemetry: Telemetry, admission: Admission) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()  # the longest silent first
        self.connected = 0  # sessions that can be answered; also read by the database's thread
        # Put aside; the oldest first. A stream may come back: rows that a goodbye has overtaken, or a publisher that
        # was cut off. Its position is remembered, on disk as well, so that no row is counted a second time.
        self.departed: OrderedDict[bytes, Session] = OrderedDict()
        self._admission = admission
        self._of = OwnStreams(admission.streams)  # the longest silent first
        self._greeted = OwnStreams()  # provisional ones of these, in the order in which they came
        self._departed_of = OwnStreams(admission.remembered)  # the oldest first
        self._leaving: OrderedDict[bytes, Session] = (
            OrderedDict()
        )  # after a goodbye, in the order in which their time ends
        self._left: OrderedDict[bytes, Session] = OrderedDict()  # after that, in the order in which they are put aside
        self._behind: set[bytes] = set()  # streams that were not seen to have delivered all they announced
        self._of_model: dict[ModelKey, dict[bytes, Session]] = {}
        self._telemetry = telemetry
        self._changed: set[bytes] = set()  # to be journaled with this turn
        self._forgotten: set[bytes] = set()  # to be deleted with this turn
        self._acks: dict[bytes, bytes] = {}  # due after this turn, with the schema each stream must send
        self._without: dict[bytes, PendingAck] = {}  # answers to streams without a session, the newest of each

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    @property
    def reasons(self) -> int:
        """How many reasons of a kind are counted by name for each stream: fewer while there are many streams."""
        return max(LEAST_REASONS, min(REASONS, ALL_REASONS // (1 + len(self._sessions) + len(self.departed))))

    def knows(self, key: bytes) -> bool:
        """Return whether there is a session of a stream, or one that was put aside."""
        return key in self._sessions or key in self.departed

    def get(self, key: bytes) -> Session | None:
        """Return the session of a stream, if there is one."""
        return self._sessions.get(key)

    def of_model(self, model: ModelKey) -> list[Session]:
        """Return the sessions of a model's publishers."""
        return list(self._of_model.get(model, {}).values())

    def topic_of(self, key: bytes, frame: bytes) -> Topic:
        """Return the topic of a frame, decoded once for each stream; WireError if it is malformed."""
        session = self._sessions.get(key)
        return session.topic if session is not None and session.frame == frame else Topic.decode(frame)

    def register(self, key: bytes, topic: Topic, position: StreamPosition, identity: str, now: Now) -> Session:
        """Create a session, or take up the one that was put aside, whose own position holds.

        WireError if the identity finds no place among limits.streams, and none of its own makes room.
        """
        if not self._admission.streams.take(identity):
            self._make_room(identity, now)
            self._admission.streams.hold(identity)
        session = self._take_up(key)
        if session is None:
            session = Session(key, topic, position, now.mono)
        elif session.left:  # a goodbye has overtaken these rows, which were counted then
            self._left[key] = session
        self._enter(session, identity)
        session.last_seen = now.mono
        self._behind.add(key)
        self._forgotten.discard(key)
        self._changed.add(key)
        return session

    def _take_up(self, key: bytes) -> Session | None:
        session = self.departed.pop(key, None)
        if session is not None:
            self._departed_of.release(session)
        return session

    def _enter(self, session: Session, identity: str) -> None:
        """List a session whose place is taken."""
        session.identity = identity
        self._sessions[session.key] = session
        self._of_model.setdefault((session.topic.model, session.topic.version), {})[session.key] = session
        self._of.add(session)
        if session.is_provisional:
            self._greeted.add(session)

    def _make_room(self, identity: str, now: Now) -> None:
        """Put a session aside for a new one: an idle one of the same identity, or else one that has only greeted.

        Another identity's makes room only for one that does not have its part, and only if it is idle.
        """
        pool = self._admission.streams
        idle = self._idle(self._of.oldest(identity), now)
        if idle is None:
            idle = self._sessions.get(self._greeted.oldest(identity) or b"")
        if idle is None and pool.held(identity) < pool.part and self._sessions:
            idle = self._idle(next(iter(self._sessions)), now)
        if idle is None:
            text, is_due = self._admission.refuse(pool, "streams", identity, now.mono)
            self._telemetry.count("admission_refused", "streams")
            if is_due and self._telemetry.may_log(now.mono):
                log.warning("%s: further publishers of it are not answered until others have left", text)
            raise WireError("streams", text)
        if not idle.is_provisional:
            self._telemetry.count("streams_forgotten")
        self._put_aside(idle)

    def _idle(self, key: bytes | None, now: Now) -> Session | None:
        """Return the session of a stream if it has been silent for long enough to make room."""
        session = self._sessions.get(key or b"")
        if session is None or session.ends_at is not None or now.mono - session.last_seen < IDLE_STREAM:
            return None
        return session

    def touch(self, session: Session, topic: Topic, user: str, now: Now, identity: str = "") -> None:
        """Note a message; WireError if its topic or its sender differs from the stream's earlier ones."""
        session.check_sender(topic, user)
        session.last_seen = now.mono
        self._sessions.move_to_end(session.key)
        if identity == session.identity:
            self._of.add(session)
        else:  # its publisher has moved, or an earlier release did not journal who it was
            for owned in (self._of, self._greeted):
                owned.move(session, identity)
            session.identity = identity
        if session.left and session.key in self._left:
            self._left[session.key] = self._left.pop(session.key)
        if now.mono - session.noted >= NOTED_EVERY:
            session.noted = now.mono
            self._changed.add(session.key)

    def mark_changed(self, session: Session) -> None:
        """Journal the session's position and tally with this turn, of which something was settled."""
        self._greeted.discard(session)
        self._changed.add(session.key)

    def set_peer(self, session: Session, peer: bytes) -> None:
        """Answer the session at this address from now on."""
        self.connected += session.peer is None
        session.peer = peer

    def end(self, session: Session, now: Now) -> None:
        """Note a goodbye; `ended` returns the session once rows under way have had time to arrive."""
        if not session.left:
            session.ends_at = now.mono + GONE_AFTER
            self._leaving.pop(session.key, None)
            self._leaving[session.key] = session
            self.mark_changed(session)

    def ended(self, now: Now, *, force: bool = False) -> Iterator[Session]:
        """Yield sessions whose missing rows will not come any more; with `force`, all that have said goodbye."""
        while self._leaving:
            session = next(iter(self._leaving.values()))
            if not force and session.ends_at is not None and now.mono < session.ends_at:
                break
            del self._leaving[session.key]
            session.ends_at, session.left = None, True
            self._left[session.key] = session
            yield session

    def forget_gone(self, now: Now) -> None:
        """Put aside sessions that have left, and those that have been silent for very long; forget the oldest ones."""
        for silent, after in ((self._left, GONE_AFTER), (self._sessions, FORGET_STREAM)):
            while silent and now.mono - (session := next(iter(silent.values()))).last_seen > after:
                self._put_aside(session)
        while self.departed:
            session = next(iter(self.departed.values()))
            if now.mono - session.last_seen <= REMEMBER:
                break
            self._forget(session)

    def _forget(self, session: Session) -> None:
        del self.departed[session.key]
        self._departed_of.release(session)
        self._changed.discard(session.key)
        self._forgotten.add(session.key)

    def _put_aside(self, session: Session) -> None:
        del self._sessions[session.key]
        model = session.topic.model, session.topic.version
        del self._of_model[model][session.key]
        if not self._of_model[model]:
            del self._of_model[model]
        self._of.release(session)
        self._greeted.discard(session)
        self._left.pop(session.key, None)
        self._behind.discard(session.key)
        self.connected -= session.peer is not None
        session.peer = None
        session.introduced = False
        if session.is_provisional:
            self._changed.discard(session.key)
            self._forgotten.add(session.key)
        else:
            self._remember(session)

    def _remember(self, session: Session) -> None:
        """Remember a position; of an identity that has its share, the oldest one is forgotten for it."""
        if not self._admission.remembered.take(session.identity):
            oldest = self._departed_of.oldest(session.identity) or next(iter(self.departed), None)
            if oldest is not None:
                self._forget(self.departed[oldest])
            self._admission.remembered.hold(session.identity)
        self.departed[session.key] = session
        self._departed_of.add(session)
        self._changed.add(session.key)

    def is_behind(self, now: Now, idle: float) -> bool:
        """Return whether some live stream has never delivered everything that it announced."""
        while self._behind:  # popped: the first of a set or dict that has lost many is found by a scan
            key = self._behind.pop()
            session = self._sessions[key]
            if session.position.row < session.position.issued and now.mono - session.last_seen < idle:
                self._behind.add(key)
                return True
        return False

    # --- the turn ----------------------------------------------------------------------------------------------------

    def acknowledge(self, key: bytes) -> None:
        """Acknowledge a stream after this turn."""
        self._acks.setdefault(key, b"")

    def answer(self, stream: bytes, rows: int, reason: str, detail: str) -> None:
        """Answer with this turn that rows of earlier ones were rejected, unless their stream has gone."""
        session = self.get(stream)
        if session is not None:
            session.answers.add("rejected", rows, reason, detail)
            self.mark_changed(session)
            self.acknowledge(stream)

    def request_schema(self, key: bytes, name: bytes) -> None:
        """Request a schema from a stream with this turn's acknowledgement; the stream may have no session yet."""
        self._acks[key] = name

    def decline(self, key: bytes, peer: bytes) -> None:
        """Tell a publisher after this turn that its model is not taken here, so that it keeps no rows for it."""
        self._without[key] = PendingAck(peer, key, 0, b"", {}, {}, None)

    def hold_off(self, key: bytes, peer: bytes, error: WireError) -> None:
        """Tell a publisher after this turn why its stream has to wait; it keeps its rows."""
        self._without[key] = PendingAck(peer, key, 0, b"", {error.reason: (0, short_detail(error.detail))}, {}, None)

    def acknowledge_as_it_says(self, greeting: Greeting, peer: bytes) -> None:
        """Answer a hello with this turn, of a stream of which it is not known yet where it goes on."""
        self._without[greeting.stream] = acknowledge_as_it_says(greeting, peer)

    def drain_acks(self) -> list[PendingAck]:
        """Return the acknowledgements that are due after this turn."""
        acks, self._acks = self._acks, {}
        without, self._without = self._without, {}
        return [
            PendingAck(
                *(session.peer, key, session.position.row, need),
                *session.answers.copied(),
                session.position.tally,
            )
            for key, need in acks.items()
            if (session := self.get(key)) is not None and session.peer is not None
        ] + list(without.values())

    def drain_changes(self, now: Now) -> tuple[list[StreamRow], list[bytes]]:
        """Return what to journal: streams that changed, and keys of those that were forgotten."""
        rows = [self._row(key, now) for key in self._changed if not self._is_greeted(key)]
        forgotten, self._forgotten = list(self._forgotten), set()
        self._changed.clear()
        return rows, forgotten

    def _is_greeted(self, key: bytes) -> bool:
        session = self._sessions.get(key)
        return session is not None and session.is_provisional

    def _row(self, key: bytes, now: Now) -> StreamRow:
        session = self._sessions.get(key)
        state = LIVE
        if session is None:
            session, state = self.departed[key], ASIDE
        if session.left or session.ends_at is not None:
            state = LEFT if session.left else LEAVING
        position, answers = session.position, session.answers.plain()
        tally = pack({**position.tally, "answers": answers} if answers else position.tally)
        heard = now.wall - (now.mono - session.last_seen)
        return StreamRow(key, session.frame, position.row, position.issued, tally, state, heard, session.identity)

    def restore(self, row: StreamRow, silence: float, now: Now) -> Session | None:
        """Restore a session from the journal, `silence` seconds after its last sign of life.

        After a goodbye, what had not come by then gets a second, as always. Restore the longest silent one first. A
        stream that an earlier release took, and whose names are refused now, is forgotten.
        """
        topic = Topic.decode(row.topic)
        try:
            topic.check()
        except WireError:
            self._forgotten.add(row.id)
            return None
        position = StreamPosition(row.row)
        tally = msgpack.unpackb(row.tally)
        answers = Answers(tally.pop("answers", None))  # none before 0.2
        position.issued, position.tally = row.issued, check_tally(tally)
        last_seen = now.mono - silence
        session = Session(row.id, topic, position, last_seen, answers=answers, noted=last_seen)
        session.identity = row.identity or ""
        if row.gone in (LEFT, ASIDE):
            session.left = row.gone == LEFT
            self._admission.remembered.hold(session.identity)
            self.departed[row.id] = session
            self._departed_of.add(session)
            return session
        self._admission.streams.hold(session.identity)
        self._enter(session, session.identity)
        self._behind.add(row.id)
        if row.gone == LEAVING:
            session.ends_at = now.mono + GONE_AFTER
            self._leaving[row.id] = session
        return session
