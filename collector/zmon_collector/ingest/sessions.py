"""Which streams there are: what has arrived of each, when it was last heard of, who speaks for it and is answered."""

from __future__ import annotations

from collections.abc import Iterator

from zmon._wire.frames import Topic, pack
from zmon.errors import WireError
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage.journal import StreamRow
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

GONE_AFTER = 1.0  # seconds after a goodbye in which what was under way still counts as arrived
FORGET_STREAM = 7 * 86400.0  # seconds without rows, hello or ping
REMEMBER_GONE = 300.0  # seconds in which rows of a stream that left still find out that they are counted
GONE = 10_000  # streams remembered that way, the newest
IDLE_STREAM = 60.0  # seconds of silence after which a stream may make room for a new one


class SessionRegistry:
    """All streams, by their keys, at most as many as `limits.streams`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.streams: dict[bytes, StreamPosition] = {}
        self._telemetry = telemetry
        self._peers: dict[bytes, bytes] = {}  # who to answer, by stream
        self._users: dict[bytes, str] = {}  # the key that speaks for a stream; empty without CURVE
        self._heard: dict[bytes, float] = {}
        self._moved: set[bytes] = set()  # streams whose position the journal does not know yet
        self._forgotten: list[bytes] = []
        self._gone: dict[bytes, tuple[int, float]] = {}  # last row and time of forgetting, of streams that left

    def __len__(self) -> int:
        return len(self.streams)

    @property
    def connected(self) -> int:
        """Streams that can be answered: heard of since the start, and not gone."""
        return len(self._peers)

    def get(self, key: bytes) -> StreamPosition | None:
        return self.streams.get(key)

    def meet(self, key: bytes, stream: StreamPosition, limit: int, now: Now) -> None:
        """A stream that is new here; WireError when there are too many that are not idle."""
        if len(self.streams) >= limit:
            silent = min(self.streams, key=lambda each: self._heard.get(each, 0.0))
            if now.mono - self._heard.get(silent, 0.0) < IDLE_STREAM:
                raise WireError("streams", f"more than limits.streams = {limit}")
            self.forget(silent, now)
            self._telemetry.count("streams_forgotten")
        if key in self._gone:  # it was settled with a goodbye that overtook these rows: they are counted
            stream.row, stream.left = max(stream.row, self._gone.pop(key)[0]), True
        self.streams[key] = stream
        self._moved.add(key)

    def restore(self, key: bytes, stream: StreamPosition, heard: float) -> None:
        """A stream of an earlier run, last heard of at `heard`."""
        self.streams[key] = stream
        self._heard[key] = heard

    def hear(self, key: bytes, topic: Topic, user: str, now: Now) -> None:
        """Something came of a stream; WireError unless it is what, and from whom, it always was."""
        if self.streams[key].topic != topic:
            raise WireError("topic_changed", "a stream speaks for one model, version and agent")
        if self._users.setdefault(key, user) != user:
            raise WireError("forbidden", "the stream belongs to another key")
        self._heard[key] = now.mono

    def answer(self, key: bytes, peer: bytes) -> None:
        """From now on the stream is answered there."""
        self._peers[key] = peer

    def peer(self, key: bytes) -> bytes | None:
        return self._peers.get(key)

    def moved(self, key: bytes) -> None:
        """The stream's position or tally has changed: the journal must know."""
        self._moved.add(key)

    def forget(self, key: bytes, now: Now) -> None:
        stream = self.streams.pop(key)
        if stream.left:
            self._gone[key] = stream.row, now.mono
        self._users.pop(key, None)
        self._peers.pop(key, None)
        self._heard.pop(key, None)
        self._moved.discard(key)
        self._forgotten.append(key)

    def forget_gone(self, now: Now) -> None:
        """Streams that said goodbye, and those that have been silent for very long."""
        for key, stream in list(self.streams.items()):
            if now.mono - self._heard.get(key, now.mono) > (GONE_AFTER if stream.left else FORGET_STREAM):
                self.forget(key, now)
        for key, (_, since) in list(self._gone.items()):
            if len(self._gone) <= GONE and now.mono - since <= REMEMBER_GONE:
                break
            del self._gone[key]

    def ended(self, now: Now, *, force: bool = False) -> Iterator[tuple[bytes, StreamPosition]]:
        """Streams whose goodbye is long enough ago that what has not arrived never will; `force`: all that said it."""
        for key, stream in list(self.streams.items()):
            if stream.ends_at is not None and (force or now.mono >= stream.ends_at):
                stream.ends_at, stream.left = None, True
                yield key, stream

    def is_behind(self, now: Now, idle: float) -> bool:
        """Some stream that is there has not delivered yet what it announced."""
        return any(
            stream.row < stream.issued and now.mono - self._heard.get(key, 0.0) < idle
            for key, stream in self.streams.items()
        )

    def take_changes(self, wall: float) -> tuple[list[StreamRow], list[bytes]]:
        """What the journal does not know yet: streams that moved, and streams that were forgotten."""
        rows = []
        for key in self._moved:
            stream = self.streams[key]
            leaves = stream.left or stream.ends_at is not None
            row = (stream.topic.encode(), stream.row, stream.issued, pack(stream.tally), leaves, wall)
            rows.append(StreamRow(key, *row))
        forgotten = self._forgotten
        self._moved, self._forgotten = set(), []
        return rows, forgotten
