"""One stream: its sender, its position, whom to answer; and the streams of each identity, in order."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from zmon._wire.frames import Topic
from zmon.errors import WireError
from zmon_collector.compute.sample import stream_seed
from zmon_collector.ingest.admission import Pool
from zmon_collector.ingest.answers import Answers
from zmon_collector.ingest.stream_position import StreamPosition


@dataclass(slots=True)
class Session:
    """One stream (publisher incarnation): its sender, its position, and the peer to answer."""

    key: bytes
    topic: Topic
    position: StreamPosition
    last_seen: float  # monotonic time of the last message
    identity: str = ""  # that holds its place; empty if it is not known
    user: str | None = None  # public key of the sender; empty without CURVE, None until it sends something
    peer: bytes | None = None  # address on the control socket
    ends_at: float | None = None  # after a goodbye: when missing rows are lost
    left: bool = False  # said goodbye, and its missing rows are counted
    answers: Answers = field(default_factory=Answers)
    noted: float = float("-inf")  # monotonic time of the last note of a sign of life
    introduced: bool = False  # windows know of it: it has announced or sent rows
    frame: bytes = field(init=False)  # the topic as it is sent
    seed: int = field(init=False)  # of the keys by which the stream's rows are sampled

    def __post_init__(self) -> None:
        self.frame, self.seed = self.topic.encode(), stream_seed(self.key)

    @property
    def is_provisional(self) -> bool:
        """Whether nothing was settled of the stream: it has only greeted, and nothing is lost if it is forgotten."""
        position, answers = self.position, self.answers
        return not (position.row or position.tally or answers.refused or answers.degraded)

    def check_sender(self, topic: Topic, user: str) -> None:
        """Raise WireError if a message's topic or sender differs from the stream's earlier ones."""
        if self.topic is not topic and self.topic != topic:
            raise WireError("topic_changed", "the topic of a stream changed")
        if self.user is None:
            self.user = user
        elif self.user != user:
            raise WireError("forbidden", "the stream belongs to another key")


class OwnStreams:
    """Streams of each identity, in an order of their own; `pool` has the places that they hold, if they hold any."""

    def __init__(self, pool: Pool | None = None) -> None:
        self._pool = pool
        self._keys: dict[str, OrderedDict[bytes, None]] = {}

    def add(self, session: Session) -> None:
        """List a stream as the newest of its identity."""
        keys = self._keys.get(session.identity)
        if keys is None:
            keys = self._keys[session.identity] = OrderedDict()
        keys[session.key] = None
        keys.move_to_end(session.key)

    def oldest(self, identity: str) -> bytes | None:
        """Return the oldest stream of an identity."""
        return next(iter(self._keys.get(identity, ())), None)

    def discard(self, session: Session) -> bool:
        """Strike a stream off, if it is listed; return whether it was."""
        keys = self._keys.get(session.identity)
        if keys is None or session.key not in keys:
            return False
        del keys[session.key]
        if not keys:
            del self._keys[session.identity]
        return True

    def release(self, session: Session) -> None:
        """Strike a stream off, and give its place back."""
        self.discard(session)
        if self._pool is not None:
            self._pool.release(session.identity)

    def move(self, session: Session, identity: str) -> None:
        """List a stream under another identity, which gets its place."""
        if self.discard(session):
            self._keys.setdefault(identity, OrderedDict())[session.key] = None
            if self._pool is not None:
                self._pool.release(session.identity)
                self._pool.hold(identity)
