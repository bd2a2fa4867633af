"""Sends one stream's rows to its collectors and reads their answers. Runs in the engine's thread.

All sockets connect outward. Every collector has a pair of them, and its own cursor over the shared ring, so that a
slow collector does not stall the others.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from zmon._transport import threads
from zmon._transport.buffer_pool import LARGE
from zmon._transport.keys import Keys
from zmon._transport.ledger import Ledger
from zmon._transport.link import READ_LIMIT, RETRY_AFTER, Link, Socket
from zmon._transport.ring import Bytes, Ring, RingEntry
from zmon._transport.settings import Endpoint
from zmon._wire import control, frames
from zmon._wire.tally import covers
from zmon.errors import WireError

PING_EVERY = 1.0
ABSENT_AFTER = 3.5  # seconds without any acknowledgement
BURST = 64  # messages to one collector before turning to the others
BURST_TIME = 0.02  # seconds of the same: each message leaves the interpreter to callers that may be in a hurry
APART_AFTER = 5.0  # seconds after its handshake in which a collector subscribes, or else does not take this model
ASK_AFTER = 0.3  # seconds after which one that took the model before is asked whether it still does
BYE_WAIT = 0.25
SCHEMA_FRAMES = frames.MAX_TOPIC + 128  # bytes of the frames next to the body of a schema, at most
YIELD = 1e-4  # seconds of rest after a large message

DONE, BLOCKED, MORE = range(3)  # how far sending got

# Collectors that have taken a model in this process, by model: a publisher that begins while one of them restarts, and
# is closed before that is back, waits for it as those do that were there before.
takers: OrderedDict[tuple[Endpoint, str], None] = OrderedDict()
TAKERS = 1024  # remembered, the newest


@dataclass(frozen=True, slots=True)
class Target:
    """Where a publisher's rows go, and under which topic."""

    endpoints: tuple[Endpoint, ...]
    keys: Keys | None
    topic: frames.Topic


class Delivery:
    """The links of one stream, and its part of the protocol.

    Parameters
    ----------
    target : Target
    stream : bytes
        Name of this stream.
    ring : Ring
    ledger : Ledger
    schemas : mapping of bytes to bytes
        Schema bodies by hash; grows with the conversions.
    """

    def __init__(
        self, target: Target, stream: bytes, ring: Ring, *, ledger: Ledger, schemas: Mapping[bytes, bytes]
    ) -> None:
        self._target = target
        self._topic = target.topic.encode()
        self._stream = stream
        self._ring = ring
        self._ledger = ledger
        self._schemas = schemas
        self._links = [Link(endpoint, target.keys) for endpoint in target.endpoints]
        self._goodbyes: dict[Link, int] = {}  # answers that each link had before its goodbye
        self._until = 0.0
        self.connected = False
        self.closing = False  # there is no time to wait for what a lost collector has to tell
        self.acked: int | None = None  # by every collector that takes this model; None if none does

    @property
    def sockets(self) -> list[Socket]:
        """The open sockets; empty while they are closed."""
        return [socket for link in self._links for socket in link.sockets]

    @property
    def is_greeting(self) -> bool:
        """Whether a collector is there whose answer would let the rows go."""
        return any(link.is_greeting for link in self._links)

    def open(self, context: zmq.Context[Socket], poller: zmq.Poller) -> None:
        """Create the sockets."""
        for link in self._links:
            link.open(context, poller)

    def close(self) -> None:
        """Close the sockets. What was acknowledged stays known."""
        self.connected = False
        for link in self._links:
            link.close()

    def step(self, ready: set[Socket], now: float) -> int:
        """Read what has arrived, then send what is due; return how far both got."""
        unread = False
        for link in self._links:
            if link.control in ready:
                unread |= self._read_acks(link, now)
            link.reopen_if_lost(ready, now)
            others = any(other.takes_model for other in self._links if other is not link)
            if link.gave_up and (others or not link.takes_model):
                link.leave()
        # Collectors acknowledge, then their connections end, then others subscribe that take the model over. All of it
        # may have happened since the last look.
        self._update_state()
        for link in self._links:
            if link.data in ready:
                unread |= self._read_subscriptions(link)
            if link.offers and (link.takes_model or self.closing or not self._is_unsure(now)):
                link.take()
                note_taker((link.endpoint, self._target.topic.model))
            self._keep_in_touch(link, now)
        state = max(self._send(link, now) for link in self._links)
        self._update_state()
        return MORE if unread else state

    def is_awaited(self, now: float) -> bool:
        """Return whether what is left may still arrive: at a collector that takes it, or that may come at once.

        Rows are left until they are acknowledged, and so are counts of rows that never arrive: a collector that is
        killed just after the goodbye has lost what only that told.
        """
        awaited = [link for link in self._links if link.takes_model]  # even while it is disconnected
        if not awaited:  # wait for one that restarts, else only for a first connection that is being established
            model = self._target.topic.model
            known = [link for link in self._links if (link.endpoint, model) in takers]
            awaited = known or [link for link in self._links if link.is_coming(now)]
        issued, tally = self._ring.issued, self._ledger.tally()
        return any(link.cursor.acked < issued or not covers(link.counted, tally) for link in awaited)

    def say_goodbye(self, now: float) -> None:
        """Say goodbye to every collector that answers, or that is there and may answer later."""
        for link in self._links:
            if link.subscribed and not link.apart:
                self._goodbyes[link] = link.answers
                self._greet(link, "bye")
        self._until = now + BYE_WAIT
        if any(link.takes_model for link in self._links):  # no other one will take the model before the end
            for link in self._links:
                if not link.takes_model:
                    link.leave()
            self._update_state()

    def has_left(self, now: float) -> bool:
        """Return whether all collectors have answered the goodbye, or had the time to."""
        return now >= self._until or all(link.answers > answers for link, answers in self._goodbyes.items())

    # --- answers -----------------------------------------------------------------------------------------------------

    # What is not read waits in libzmq without a bound, so both return whether there may be more.

    def _read_subscriptions(self, link: Link) -> bool:
        for _ in range(READ_LIMIT):
            try:
                notice = link.data.recv(zmq.DONTWAIT)
            except zmq.Again:
                return False
            link.enter_subscription(notice, self._topic)
        return True

    def _read_acks(self, link: Link, now: float) -> bool:
        for _ in range(READ_LIMIT):
            try:
                ack = control.decode_ack(link.control.recv(zmq.DONTWAIT))
            except zmq.Again:
                return False
            except WireError as error:
                link.log_malformed(error, now)
                continue
            if ack.declined == self._stream:
                self._leave(link)
            elif ack.held_off == self._stream:
                link.log_held_off(ack, self._target.topic.model, now)
            if ack.stream != self._stream:
                continue
            link.count_answer(now)
            link.store, link.message_bytes = ack.store, ack.message_bytes
            link.settle(ack.tally)
            link.schemas.discard(ack.need)
            if ack.refused or ack.degraded:
                self._enter_answers(link, ack)
            if link.cursor.acknowledge(min(ack.row, self._ring.issued), ack.window, now):
                link.retransmission.advance(link.cursor.latency)
            if not (link.greeted or link.apart) and link.subscribed:
                link.greeted = True
                if link.broke:  # else it only was silent for long, and what is under way arrives
                    link.broke = False
                    link.retransmission.begin()
                    link.cursor.rewind(self._ring)
        return True

    def _enter_answers(self, link: Link, ack: control.Ack) -> None:
        """Enter what a collector refused or degraded; where several did, the most of each reason."""
        news = link.answers_of_rows.add(ack)
        if news:
            refused: Counter[str] = Counter()
            degraded: Counter[str] = Counter()
            for other in self._links:
                refused |= other.answers_of_rows.refused
                degraded |= other.answers_of_rows.degraded
            self._ledger.answer(refused, degraded, news)

    def _update_state(self) -> None:
        rows = [link.cursor.acked for link in self._links if link.takes_model]
        # No rows are kept for a collector that does not take this model. If it takes the model over later, it starts
        # where the other collector ended.
        for link in self._links:
            for other in self._links:
                if not link.takes_model and (other.apart or (link.apart and other.takes_model)):
                    link.follow(other)
        # Rows that a disconnected collector has not acknowledged stay in the ring until newer rows push them out.
        self._ring.release(min(link.cursor.acked for link in self._links))
        self.acked = min(rows) if rows else None
        self.connected = any(link.greeted for link in self._links)

    @property
    def reached(self) -> int:
        """The last row that was sent to some collector."""
        return max((link.cursor.reached for link in self._links), default=0)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _leave(self, link: Link) -> None:
        """Enter that a collector is there and does not take this model."""
        link.leave()
        takers.pop((link.endpoint, self._target.topic.model), None)

    def _is_unsure(self, now: float) -> bool:
        """Return whether a collector may have rows that are under way, and will say so when it is back."""
        return any(link.may_hold_rows(now) for link in self._links)

    def _keep_in_touch(self, link: Link, now: float) -> None:
        if link.apart or link.offers:
            return
        if not link.subscribed:
            connected_for = 0.0 if link.handshake_at is None else now - link.handshake_at
            if connected_for > APART_AFTER:
                self._leave(link)
            elif link.takes_model and connected_for > ASK_AFTER and now >= link.hello_due:
                link.hello_due = now + RETRY_AFTER
                self._greet(link, "hello")  # it answers what it has on disk, before another one gets those rows
            return
        if not link.greeted:
            if now >= link.hello_due:
                link.hello_due = now + RETRY_AFTER
                self._greet(link, "hello")
            return
        # At the end nobody waits for the next ping to tell what is counted.
        if now >= link.ping_due or (self.closing and link.told != self._ledger.tally()):
            link.ping_due = now + PING_EVERY
            self._greet(link, "ping")
        if now - link.answered_at > ABSENT_AFTER:
            link.greeted = False
            link.schemas.clear()
        elif link.cursor.inflight and link.retransmission.is_due(now):
            link.retransmission.repeat()
            link.schemas.clear()
            link.cursor.rewind(self._ring)

    def _greet(self, link: Link, kind: str) -> None:
        tally: Mapping[str, Any] = self._ledger.tally()
        if tally and self._ledger.details:
            tally = {**tally, "details": self._ledger.details}
        frame = control.encode_greeting(
            kind,
            topic=self._topic,
            stream=self._stream,
            base=self._ring.base,
            acked=link.cursor.acked,
            issued=self._ring.issued,
            clock=time.time_ns(),
            tally=tally,
            store=link.store,
            counted=None if kind == "ping" else link.counted,
        )
        link.told = self._ledger.tally()
        try:
            link.control.send(frame, zmq.DONTWAIT)
        except zmq.Again:
            link.hello_due = 0.0  # the control connection is established a moment after the data connection

    def _send(self, link: Link, now: float) -> int:
        """Send everything (DONE), as much as a burst allows (MORE), or as much as may be under way (BLOCKED)."""
        if not (link.subscribed and link.greeted):
            return DONE
        until = time.monotonic() + BURST_TIME
        for _ in range(BURST):
            entry = link.cursor.peek(self._ring)
            if entry is None:
                return BLOCKED if link.cursor.behind(self._ring) else DONE
            message = self._encoded(entry)
            if message is None:
                self._ring.discard(entry)
                continue
            if nbytes := self._excess(link, entry, message):
                message = self._withheld(entry, nbytes)
            try:
                if not nbytes:
                    self._send_schema(link, entry.layout.schema)
                link.data.send_multipart(message, zmq.DONTWAIT, copy=True)
            except zmq.Again:
                return BLOCKED
            if not link.cursor.inflight:
                link.retransmission.begin()
            link.cursor.sent(entry, now)
            if entry.nbytes >= LARGE:  # libzmq copied it under the interpreter's lock: now it is the model's turn
                threads.sleep(YIELD)
            if time.monotonic() > until:
                break
        return MORE

    def _send_schema(self, link: Link, digest: bytes) -> None:
        if digest not in link.schemas:
            message = frames.encode_schema_message(self._topic, self._stream, self._schemas[digest])
            link.data.send_multipart(message, zmq.DONTWAIT)
            link.schemas.add(digest)

    def _encoded(self, entry: RingEntry) -> list[Bytes] | None:
        """Return the message of an entry; None if an error that nobody foresaw makes it impossible."""
        try:
            return self._frames(entry)
        except Exception:  # noqa: BLE001 - conversions are checked; whatever is wrong here must not stop the stream
            self._ledger.say("internal", entry.rows, "dropped", "they cannot be encoded; please report this")
            return None

    def _frames(self, entry: RingEntry) -> list[Bytes]:
        if entry.encoded is None:
            entry.encoded = _join(entry)
            entry.pieces = []
        ts, arrays, buffers = entry.encoded
        return self._batch(entry, ts, arrays, buffers)

    def _withheld(self, entry: RingEntry, nbytes: int) -> list[Bytes]:
        """Return the message of an entry without its arrays: the collector refuses it, and answers why."""
        return self._batch(entry, entry.encoded[0], (), (), withheld=nbytes)

    def _batch(self, entry: RingEntry, ts: int, arrays: Any, buffers: Any, withheld: int = 0) -> list[Bytes]:
        return frames.encode_batch(
            self._topic,
            stream=self._stream,
            schema=entry.layout.schema,
            first=entry.first,
            rows=entry.rows,
            base=self._ring.base,
            ts=ts,
            arrays=arrays,
            buffers=buffers,
            tally=self._ledger.tally(),
            kind=entry.layout.kind,
            withheld=withheld,
        )

    def _excess(self, link: Link, entry: RingEntry, message: Sequence[Bytes]) -> int:
        """Return the bytes of a message, or of its schema's, if the collector takes none of this size; else 0.

        A larger frame would end the connection, again and again.
        """
        largest = max(sum(map(len, message)), len(self._schemas[entry.layout.schema]) + SCHEMA_FRAMES)
        return largest if 0 < link.message_bytes < largest else 0


def note_taker(taker: tuple[Endpoint, str]) -> None:
    """Note that a collector has taken a model; forget the oldest note of many."""
    takers[taker] = None
    takers.move_to_end(taker)
    if len(takers) > TAKERS:
        takers.popitem(last=False)


def _join(entry: RingEntry) -> tuple[int, list[tuple[str, str, Sequence[int]]], list[Bytes]]:
    """Join the pieces' buffers to one per array; rows that differ in time get a timestamps array."""
    pieces = entry.pieces
    newest = pieces[-1].ts
    arrays = entry.layout.of_rows(entry.rows)
    if len(pieces) == 1:
        return newest, arrays, list(pieces[0].buffers)
    buffers: list[Bytes] = [b"".join(column) for column in zip(*(piece.buffers for piece in pieces), strict=True)]
    if all(name != "timestamps" for name, _, _ in arrays):
        times = np.repeat(np.array([piece.ts for piece in pieces], dtype="<i8"), [piece.rows for piece in pieces])
        arrays.append(("timestamps", "<i8", (entry.rows,)))
        buffers.append(times.tobytes())
    return newest, arrays, buffers
