"""Connected and remembered streams: position, sender, peer to answer, goodbye. Runs on the collector's thread.

Every collection is ordered by what is due next, so a turn costs in proportion to what is due, however many streams
there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from zmon._wire.control import Greeting, encode_ack, encode_decline
from zmon._wire.frames import Topic, pack
from zmon._wire.tally import REASONS, check_tally
from zmon.errors import WireError
from zmon_collector.compute.sample import stream_seed
from zmon_collector.ingest.answers import Answers
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage.journal_tables import StreamRow
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

# A goodbye travels on the control socket, so it can overtake rows on the data socket. Therefore rows under way still
# count as arrived for a second; then they are counted as lost, and the stream is put aside.
GONE_AFTER = 1.0  # seconds after a goodbye until missing rows are lost
FORGET_STREAM = 7 * 86400.0  # seconds without rows, hello or ping
IDLE_STREAM = 60.0  # seconds of silence after which a stream may make room for a new one
NOTED_EVERY = 3600.0  # seconds between two notes in the journal of a stream's last sign of life
# A stream that was put aside may come back: rows that a goodbye has overtaken, or a publisher that was cut off. Its
# position is remembered, on disk as well, so that no row is counted a second time.
DEPARTED = 10_000  # streams remembered, the newest
LEAST_INFLIGHT = 64 * 2**10  # bytes that any publisher may send ahead of acknowledgements
REMEMBER = 2 * FORGET_STREAM  # seconds since the last message
LEAST_REASONS, ALL_REASONS = 16, 200_000  # by name in the tallies of one stream, and of all streams together
LIVE, LEAVING, LEFT, ASIDE = range(4)  # a stream's state in the journal; earlier releases know the first two


@dataclass(slots=True)
class Session:
    """One stream (publisher incarnation): its sender, its position, and the peer to answer."""

    key: bytes
    topic: Topic
    position: StreamPosition
    last_seen: float  # monotonic time of the last message
    user: str | None = None  # public key of the sender; empty without CURVE, None until it sends something
    peer: bytes | None = None  # address on the control socket
    ends_at: float | None = None  # after a goodbye: when missing rows are lost
    left: bool = False  # said goodbye, and its missing rows are counted
    answers: Answers = field(default_factory=Answers)
    noted: float = float("-inf")  # monotonic time of the last note of a sign of life
    frame: bytes = field(init=False)  # the topic as it is sent
    seed: int = field(init=False)  # of the keys by which the stream's rows are sampled

    def __post_init__(self) -> None:
        self.frame, self.seed = self.topic.encode(), stream_seed(self.key)

    def check_sender(self, topic: Topic, user: str) -> None:
        """Raise WireError if a message's topic or sender differs from the stream's earlier ones."""
        if self.topic is not topic and self.topic != topic:
            raise WireError("topic_changed", "the topic of a stream changed")
        if self.user is None:
            self.user = user
        elif self.user != user:
            raise WireError("forbidden", "the stream belongs to another key")


class PendingAck(NamedTuple):
    """An acknowledgement that is due: its peer and stream, the last settled row, the schema that is missing, what was
    refused or degraded, and the counts that are settled; without those, the stream is declined."""

    peer: bytes
    stream: bytes
    row: int
    need: bytes
    refused: Mapping[str, tuple[int, str]]
    degraded: Mapping[str, tuple[int, str]]
    tally: Mapping[str, Any] | None
    store: bytes | None = None  # that has acknowledged it, if that is not the collector's own

    def encode(self, window: int, store: bytes) -> bytes:
        """Return its frame; `window` bytes may be under way, and `store` names the collector's store."""
        if self.tally is None:
            return encode_decline(self.stream)
        return encode_ack(
            *(self.stream, self.row, window),
            need=self.need,
            store=store if self.store is None else self.store,
            refused=self.refused,
            degraded=self.degraded,
            tally=self.tally,
        )


def acknowledge_as_it_says(greeting: Greeting, peer: bytes) -> PendingAck:
    """Return an answer to a hello that acknowledges what its publisher knows to be acknowledged, and nothing else."""
    return PendingAck(
        *(peer, greeting.stream, greeting.acked, b"", {}, {}), dict(greeting.counted or {}), greeting.store
    )


def fair_share(inflight_bytes: int, publishers: int) -> int:
    """Return the bytes that each of so many publishers may send ahead of acknowledgements."""
    return max(LEAST_INFLIGHT, inflight_bytes // max(1, publishers))


class SessionRegistry:
    """All sessions, by stream, at most `limits.streams`; and what the current turn must journal and acknowledge."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()  # the longest silent first
        self.connected = 0  # sessions that can be answered; also read by the database's thread
        self.departed: OrderedDict[bytes, Session] = OrderedDict()  # put aside, and remembered; the oldest first
        self._leaving: OrderedDict[bytes, Session] = (
            OrderedDict()
        )  # after a goodbye, in the order in which their time ends
        self._left: OrderedDict[bytes, Session] = OrderedDict()  # after that, in the order in which they are put aside
        self._behind: set[bytes] = set()  # streams that were not seen to have delivered all they announced
        self._telemetry = telemetry
        self._changed: set[bytes] = set()  # to be journaled with this turn
        self._forgotten: set[bytes] = set()  # to be deleted with this turn
        self._acks: dict[bytes, bytes] = {}  # due after this turn, with the schema each stream must send
        self._held_back: dict[bytes, PendingAck] = {}  # the same, of streams whose positions are not known yet
        self._declines: dict[bytes, bytes] = {}  # the same, of models that are not taken: peers by stream

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

    def topic_of(self, key: bytes, frame: bytes) -> Topic:
        """Return the topic of a frame, decoded once for each stream; WireError if it is malformed."""
        session = self._sessions.get(key)
        return session.topic if session is not None and session.frame == frame else Topic.decode(frame)

    def register(self, key: bytes, topic: Topic, position: StreamPosition, limit: int, now: Now) -> Session:
        """Create a session, or take up the one that was put aside, whose own position holds.

        WireError if there are `limit` sessions and none is idle.
        """
        if len(self._sessions) >= limit:
            oldest = next(iter(self._sessions.values()))
            if now.mono - oldest.last_seen < IDLE_STREAM or oldest.ends_at is not None:
                raise WireError("streams", f"more than limits.streams = {limit}")
            self._put_aside(oldest)
            self._telemetry.count("streams_forgotten")
        session = self.departed.pop(key, None)
        if session is None:
            session = Session(key, topic, position, now.mono)
        elif session.left:  # a goodbye has overtaken these rows, which were counted then
            self._left[key] = session
        self._sessions[key] = session
        session.last_seen = now.mono
        self._behind.add(key)
        self._forgotten.discard(key)
        self._changed.add(key)
        return session

    def touch(self, session: Session, topic: Topic, user: str, now: Now) -> None:
        """Note a message; WireError if its topic or its sender differs from the stream's earlier ones."""
        session.check_sender(topic, user)
        session.last_seen = now.mono
        self._sessions.move_to_end(session.key)
        if session.left and session.key in self._left:
            self._left[session.key] = self._left.pop(session.key)
        if now.mono - session.noted >= NOTED_EVERY:
            session.noted = now.mono
            self._changed.add(session.key)

    def mark_changed(self, session: Session) -> None:
        """Journal the session's position and tally with this turn."""
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
            key, session = next(iter(self.departed.items()))
            if len(self.departed) <= DEPARTED and now.mono - session.last_seen <= REMEMBER:
                break
            del self.departed[key]
            self._changed.discard(key)
            self._forgotten.add(key)

    def _put_aside(self, session: Session) -> None:
        del self._sessions[session.key]
        self._left.pop(session.key, None)
        self._behind.discard(session.key)
        self.connected -= session.peer is not None
        session.peer = None
        self.departed[session.key] = session
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

    def request_schema(self, key: bytes, name: bytes) -> None:
        """Request a schema from a stream with this turn's acknowledgement; the stream may have no session yet."""
        self._acks[key] = name

    def decline(self, key: bytes, peer: bytes) -> None:
        """Tell a publisher after this turn that its model is not taken here, so that it keeps no rows for it."""
        self._declines[key] = peer

    def acknowledge_as_it_says(self, greeting: Greeting, peer: bytes) -> None:
        """Answer a hello with this turn, of a stream of which it is not known yet where it goes on."""
        self._held_back[greeting.stream] = acknowledge_as_it_says(greeting, peer)

    def drain_acks(self) -> list[PendingAck]:
        """Return the acknowledgements that are due after this turn."""
        acks, self._acks = self._acks, {}
        declines, self._declines = self._declines, {}
        held_back, self._held_back = self._held_back, {}
        return (
            [*held_back.values()]
            + [
                PendingAck(
                    *(session.peer, key, session.position.row, need),
                    *session.answers.copied(),
                    session.position.tally,
                )
                for key, need in acks.items()
                if (session := self.get(key)) is not None and session.peer is not None
            ]
            + [PendingAck(peer, key, 0, b"", {}, {}, None) for key, peer in declines.items()]
        )

    def drain_changes(self, now: Now) -> tuple[list[StreamRow], list[bytes]]:
        """Return what to journal: streams that changed, and keys of those that were forgotten."""
        rows = [self._row(key, now) for key in self._changed]
        forgotten, self._forgotten = list(self._forgotten), set()
        self._changed.clear()
        return rows, forgotten

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
        return StreamRow(key, session.frame, position.row, position.issued, tally, state, heard)

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
        if row.gone in (LEFT, ASIDE):
            session.left = row.gone == LEFT
            self.departed[row.id] = session
            return session
        self._sessions[row.id] = session
        self._behind.add(row.id)
        if row.gone == LEAVING:
            session.ends_at = now.mono + GONE_AFTER
            self._leaving[row.id] = session
        return session
