"""Connected and remembered streams: position, sender, peer to answer, goodbye. Runs on the collector's thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from zmon._wire.frames import Topic, pack
from zmon.errors import WireError
from zmon_collector.compute.sample import stream_seed
from zmon_collector.ingest.answers import Answers
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage.journal import StreamRow
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

# A goodbye travels on the control socket, so it can overtake rows on the data socket. Three limits follow: rows under
# way still count as arrived for a second; then they are counted as lost and the stream is forgotten; and rows that come
# later still find the stream's last row for a while, so that they are not counted a second time.
GONE_AFTER = 1.0  # seconds after a goodbye until missing rows are lost
REMEMBER_GONE = 300.0  # seconds in which a departed stream's last row is remembered
GONE = 10_000  # departed streams remembered, the newest
FORGET_STREAM = 7 * 86400.0  # seconds without rows, hello or ping
IDLE_STREAM = 60.0  # seconds of silence after which a stream may make room for a new one


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
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = stream_seed(self.key)

    def touch(self, topic: Topic, user: str, now: Now) -> None:
        """Note a message; WireError if its topic or its sender differs from the stream's earlier ones."""
        if self.topic != topic:
            raise WireError("topic_changed", "the topic of a stream changed")
        if self.user is None:
            self.user = user
        elif self.user != user:
            raise WireError("forbidden", "the stream belongs to another key")
        self.last_seen = now.mono


class PendingAck(NamedTuple):
    """An acknowledgement that is due: its peer and stream, the last settled row, the schema that is missing, and what
    was refused or degraded."""

    peer: bytes
    stream: bytes
    row: int
    need: bytes
    refused: Mapping[str, tuple[int, str]]
    degraded: Mapping[str, tuple[int, str]]


class SessionRegistry:
    """All sessions, by stream, at most `limits.streams`; and what the current turn must journal and acknowledge."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._sessions: dict[bytes, Session] = {}
        self.connected = 0  # sessions that can be answered; also read by the database's thread
        self.departed: dict[bytes, tuple[int, float]] = {}  # last row, time of forgetting
        self._telemetry = telemetry
        self._changed: set[bytes] = set()  # to be journaled with this turn
        self._forgotten: list[bytes] = []  # to be deleted with this turn
        self._acks: dict[bytes, bytes] = {}  # due after this turn, with the schema each stream must send

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, key: bytes) -> Session | None:
        """Return the session of a stream, if there is one."""
        return self._sessions.get(key)

    def register(self, key: bytes, topic: Topic, position: StreamPosition, limit: int, now: Now) -> Session:
        """Create a session; WireError if there are `limit` sessions and none is idle."""
        if len(self._sessions) >= limit:
            oldest = min(self._sessions.values(), key=lambda session: session.last_seen)
            if now.mono - oldest.last_seen < IDLE_STREAM:
                raise WireError("streams", f"more than limits.streams = {limit}")
            self._forget(oldest, now)
            self._telemetry.count("streams_forgotten")
        session = self._sessions[key] = Session(key, topic, position, now.mono)
        if key in self.departed:  # a goodbye has overtaken these rows, which were counted then
            position.row, session.left = max(position.row, self.departed.pop(key)[0]), True
        self._changed.add(key)
        return session

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
            self.mark_changed(session)

    def ended(self, now: Now, *, force: bool = False) -> Iterator[Session]:
        """Yield sessions whose missing rows will not come any more; with `force`, all that have said goodbye."""
        for session in list(self._sessions.values()):
            if session.ends_at is not None and (force or now.mono >= session.ends_at):
                session.ends_at, session.left = None, True
                yield session

    def forget_gone(self, now: Now) -> None:
        """Forget sessions that have left, and those that have been silent for very long."""
        for session in list(self._sessions.values()):
            if now.mono - session.last_seen > (GONE_AFTER if session.left else FORGET_STREAM):
                self._forget(session, now)
        for key, (_, since) in list(self.departed.items()):
            if len(self.departed) <= GONE and now.mono - since <= REMEMBER_GONE:
                break
            del self.departed[key]

    def _forget(self, session: Session, now: Now) -> None:
        del self._sessions[session.key]
        if session.left:
            self.departed[session.key] = session.position.row, now.mono
        self.connected -= session.peer is not None
        self._changed.discard(session.key)
        self._forgotten.append(session.key)

    def is_behind(self, now: Now, idle: float) -> bool:
        """Return whether some live stream has not delivered everything that it announced."""
        return any(
            session.position.row < session.position.issued and now.mono - session.last_seen < idle
            for session in self._sessions.values()
        )

    # --- the turn ----------------------------------------------------------------------------------------------------

    def acknowledge(self, key: bytes) -> None:
        """Acknowledge a stream after this turn."""
        self._acks.setdefault(key, b"")

    def request_schema(self, key: bytes, name: bytes) -> None:
        """Request a schema from a stream with this turn's acknowledgement; the stream may have no session yet."""
        self._acks[key] = name

    def drain_acks(self) -> list[PendingAck]:
        """Return the acknowledgements that are due after this turn."""
        acks, self._acks = self._acks, {}
        return [
            PendingAck(
                *(session.peer, key, session.position.row, need),
                *(dict(session.answers.refused), dict(session.answers.degraded)),
            )
            for key, need in acks.items()
            if (session := self.get(key)) is not None and session.peer is not None
        ]

    def drain_changes(self, wall: float) -> tuple[list[StreamRow], list[bytes]]:
        """Return what to journal: sessions that changed, and keys of those that were forgotten."""
        rows = []
        for key in self._changed:
            session = self._sessions[key]
            position, leaves = session.position, session.left or session.ends_at is not None
            answers = session.answers.plain()
            tally = pack({**position.tally, "answers": answers} if answers else position.tally)
            row = (session.topic.encode(), position.row, position.issued, tally, leaves, wall)
            rows.append(StreamRow(key, *row))
        forgotten, self._forgotten = self._forgotten, []
        self._changed.clear()
        return rows, forgotten

    def restore(self, row: StreamRow, now: Now) -> Session:
        """Restore a session from the journal. After a goodbye, what had not come by then gets a second, as always."""
        position = StreamPosition(row.row)
        tally = msgpack.unpackb(row.tally)
        answers = Answers(tally.pop("answers", None))  # none before 0.2
        position.issued, position.tally = row.issued, tally
        last_seen = now.mono - max(0.0, now.wall - row.heard)
        session = self._sessions[row.id] = Session(
            row.id, Topic.decode(row.topic), position, last_seen, answers=answers
        )
        if row.gone:
            session.ends_at = now.mono + GONE_AFTER
        return session
