"""Answers to hellos while the state of an earlier run is still being restored: positions only, and nothing is decided.

The hello stays in the inbox and is handled when all is restored, as if it had come then. Until then the publisher is
told the position on disk. If the disk has none for its stream, it is told the position that it has itself named. So an
early answer acknowledges nothing new, and nothing has changed if the collector ends the next moment. The rows that the
publisher then sends wait in the inbox, which is bounded.
"""

from __future__ import annotations

import msgpack

from zmon._wire.control import Greeting, decode_greeting
from zmon.errors import WireError
from zmon_collector.ingest.acks import PendingAck, acknowledge_as_it_says, fair_share
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.ingest.sessions import ASIDE
from zmon_collector.storage.journal_tables import StreamRow
from zmon_collector.storage.positions import Positions


class EarlyAnswers:
    """Answers the hellos in the inbox. On the collector's thread, before the first turn.

    Parameters
    ----------
    receiver : Receiver
    ingestor : Ingestor
    """

    def __init__(self, receiver: Receiver, ingestor: Ingestor) -> None:
        self._receiver, self._ingestor = receiver, ingestor
        self._store_id: bytes | None = None  # until positions are known
        self._streams: dict[bytes, StreamRow] = {}
        self._lost = False
        self._connected = 0
        self._seen = 0  # messages of the inbox that were looked at

    def know(self, positions: Positions) -> None:
        """Answer from now on."""
        self._store_id, self._lost = positions.store_id, positions.lost or positions.restored
        self._streams = {row.id: row for row in positions.streams}
        self._connected = sum(row.gone != ASIDE for row in positions.streams)

    def answer(self) -> None:
        """Answer the hellos that have come since the last call."""
        if self._store_id is None:
            return
        inbox = self._receiver.inbox  # nothing is taken from it meanwhile
        while self._seen < len(inbox):
            received = inbox[self._seen]
            self._seen += 1
            if received.kind == "control" and len(received.frames) == 1:
                try:
                    greeting = decode_greeting(received.frames[0])
                    greeting.topic.check()
                    self._receiver.auth.check(received.user, greeting.topic)
                except WireError:
                    continue  # counted when it is handled
                ack = self._ack(greeting, received.peer) if greeting.kind == "hello" else None
                if ack is not None:
                    limits = self._ingestor.config.limits
                    share = fair_share(limits.inflight_bytes, self._connected)
                    frame = ack.encode(share, self._store_id, limits.message_bytes)
                    self._receiver.reply("control", ack.peer, frame)
        self._receiver.flush()

    def _ack(self, greeting: Greeting, peer: bytes) -> PendingAck | None:
        """Return the answer to a hello; None if only the whole state tells it."""
        if not self._ingestor.takes(greeting.topic.model):
            return None
        row = self._streams.get(greeting.stream)
        if row is not None:
            tally = msgpack.unpackb(row.tally)
            tally.pop("answers", None)
            behind = greeting.acked > row.row  # another collector has settled more
            return None if behind else PendingAck(peer, row.id, row.row, b"", {}, {}, tally)
        if greeting.store == self._store_id and not self._lost:
            return None  # its rows are lost, which is counted first
        if self._connected >= self._ingestor.config.limits.streams:
            return None  # perhaps it has to wait
        self._connected += 1
        return acknowledge_as_it_says(greeting, peer)
