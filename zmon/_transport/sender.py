"""The one background thread of a publisher: it owns the sockets, sends the ring's rows, reads acknowledgements.

All sockets connect outward. Every collector has a pair of them, and its own cursor over the shared ring, so that a
slow collector does not stall the others. The thread shares one lock with `publish()`, held for O(1) steps only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import zmq

from zmon._transport import threads
from zmon._transport.buffer_pool import LARGE
from zmon._transport.keys import Keys
from zmon._transport.link import READ_LIMIT, RETRY_AFTER, Link
from zmon._transport.ring import Bytes, Ring, RingEntry
from zmon._transport.settings import Endpoint
from zmon._transport.wakeup import Wakeup
from zmon._wire import control, frames
from zmon.backoff import Backoff
from zmon.errors import WireError

log = logging.getLogger("zmon")

BUSY_POLL = 0.05  # seconds between looks at the ring while batches arrive: small batches gather meanwhile
RUSH_POLL = 0.02  # the same while the ring holds more than MUCH
MUCH = 2**20  # bytes
BUSY_FOR = 0.1  # seconds without a new batch, after which the thread sleeps until publish() wakes it
SLEEP = 0.25  # seconds at most, because a hello or a ping may be due
PING_EVERY = 1.0
ABSENT_AFTER = 3.5  # seconds without any acknowledgement
BURST = 64  # messages to one collector before turning to the others
APART_AFTER = 5.0  # seconds after its handshake in which a collector subscribes, or else does not take this model
BYE_WAIT = 0.25
WAIT_POLL, WAIT_POLL_MAX = 0.0005, 0.01  # seconds between two looks of wait() at the acknowledgements
YIELD = 1e-4  # seconds of rest after a large message

DONE, BLOCKED, MORE = range(3)  # how far sending got


class Sender:
    """The background thread, and the methods by which the publisher starts, wakes, awaits and stops it.

    Parameters
    ----------
    ring, lock
        Shared with the publisher; every access to the ring holds the lock.
    schemas : mapping of bytes to bytes
        Schema bodies by hash; grows while publishing.
    tally : callable
        Returns cumulative counts of rows that will never be sent.
    """

    def __init__(
        self,
        *,
        endpoints: Sequence[Endpoint],
        keys: Keys | None,
        topic: frames.Topic,
        stream: bytes,
        ring: Ring,
        lock: threading.Lock,
        schemas: Mapping[bytes, bytes],
        tally: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._endpoints = endpoints
        self._keys = keys
        self._topic = topic.encode()
        self._stream = stream
        self._ring = ring
        self._lock = lock
        self._schemas = schemas
        self._tally = tally
        self._links: list[Link] = []
        self._wakeup: Wakeup | None = None
        self._stop_at: float | None = None
        self._waiting = 0  # callers that wait for acknowledgements
        self.connected = False
        self.failed = False
        self._acked: int | None = None  # by every collector that takes this model; None if none does
        self._thread = threads.Thread(self._run, "zmon-publisher")

    @property
    def asleep(self) -> bool:
        """Whether the thread sleeps until `wake` is called, because nothing was published for a moment."""
        wakeup = self._wakeup
        return wakeup is not None and wakeup.armed

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self.failed = True
            log.error("zmon: cannot start the publisher's thread (%s); nothing will be sent", error)

    def stop(self, timeout: float) -> None:
        """Send the remaining rows for at most `timeout` seconds, say goodbye, close the sockets."""
        with self._lock:
            self._stop_at = time.monotonic() + timeout
            self.wake()
        self._thread.join(timeout + BYE_WAIT + 1.0)

    def wake(self) -> None:
        """Wake the thread if it sleeps; call this under the lock."""
        if self._wakeup is not None:
            self._wakeup.wake()

    def wait(self, row: int, timeout: float) -> bool:
        """Return whether every collector that takes this model, at least one, acknowledges all up to `row` in time.

        Meanwhile the thread does not nap: it reads acknowledgements as they arrive.
        """
        deadline, poll = time.monotonic() + timeout, Backoff(WAIT_POLL, WAIT_POLL_MAX)
        with self._lock:
            self._waiting += 1
            if self._wakeup is not None:
                self._wakeup.interrupt()
        try:
            while self._acked is None or self._acked < row:
                left = deadline - time.monotonic()
                if left <= 0 or self.failed:
                    return False
                time.sleep(min(left, poll.next()))  # unlike a condition variable this lets other greenlets run
            return True
        finally:
            with self._lock:
                self._waiting -= 1

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._wakeup = Wakeup()
            self._loop(context, self._wakeup)
        except Exception:  # the model must not notice; the publisher keeps counting
            self.failed = True
            log.exception("zmon: the publisher's thread failed; nothing will be sent from now on")
        finally:
            self.connected = False
            with self._lock:
                wakeup, self._wakeup = self._wakeup, None
                if wakeup is not None:
                    wakeup.close()
            for link in self._links:
                link.close()
            context.term()

    def _loop(self, context: zmq.Context[zmq.Socket[bytes]], wakeup: Wakeup) -> None:
        poller, nap = zmq.Poller(), zmq.Poller()
        poller.register(wakeup.fileno(), zmq.POLLIN)
        nap.register(wakeup.fileno(), zmq.POLLIN)
        self._links = [Link(context, poller, endpoint, self._keys) for endpoint in self._endpoints]
        busy_at = time.monotonic()
        state, seen = DONE, 0
        while not self._finished():
            busy = time.monotonic() - busy_at < BUSY_FOR
            wait = 0.0 if state == MORE else RUSH_POLL
            if state == DONE and self._stop_at is None:
                if busy and self.connected and not self._waiting:
                    # Acknowledgements do not end this nap: the model has a better use for the interpreter.
                    nap.poll(int(1000 * (BUSY_POLL if self._ring.nbytes < MUCH else RUSH_POLL)))
                    wait = 0.0
                elif not busy:
                    with self._lock:
                        wait = SLEEP if self._ring.issued == seen and self._stop_at is None else 0.0
                        wakeup.arm()
            ready = {socket for socket, _ in poller.poll(int(wait * 1000))}
            with self._lock:
                wakeup.clear(wakeup.fileno() in ready)
            now = time.monotonic()
            for link in self._links:
                if link.data in ready:
                    self._read_subscriptions(link)
                if link.control in ready:
                    self._read_acks(link, now)
                if link.reopen_if_lost(ready, now):
                    self._update_state()
                self._keep_in_touch(link, now)
            state = max(self._send(link, now) for link in self._links)
            if state == MORE or self._ring.issued != seen:
                busy_at, seen = now, self._ring.issued
        self._say_goodbye(poller)

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        now = time.monotonic()
        with self._lock:
            issued, held = self._ring.issued, self._ring.tail > self._ring.head
        if not held or now >= self._stop_at:
            return True
        awaited = [link for link in self._links if link.subscribed or (link.takes_model and link.is_coming(now))]
        if not awaited:  # no collector: wait only for a first connection that is being established
            awaited = [link for link in self._links if link.is_coming(now)]
        return all(link.cursor.acked >= issued for link in awaited)

    def _read_subscriptions(self, link: Link) -> None:
        for _ in range(READ_LIMIT):
            try:
                notice = link.data.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            prefix = notice[1:]
            if not self._topic.startswith(prefix):
                continue
            if notice[:1] == b"\x01":
                link.subscriptions.add(prefix)
                link.takes_model, link.apart = True, False
                link.hello_due = 0.0
            else:
                link.subscriptions.discard(prefix)
            link.greeted = False  # either way, messages under way may be lost
            link.schemas.clear()
        self._update_state()

    def _read_acks(self, link: Link, now: float) -> None:
        for _ in range(READ_LIMIT):
            try:
                ack = control.decode_ack(link.control.recv(zmq.DONTWAIT))
            except zmq.Again:
                break
            except WireError as error:
                link.log_malformed(error, now)
                continue
            if ack.stream != self._stream:
                continue
            link.count_answer(now)
            link.store = ack.store
            link.schemas.discard(ack.need)
            with self._lock:
                if link.cursor.acknowledge(min(ack.row, self._ring.issued), ack.window):
                    link.progress_at = now
                    link.retransmission.reset()
                if not link.greeted and link.subscribed:
                    link.greeted = True
                    link.progress_at = now
                    link.cursor.rewind(self._ring)
        self._update_state()

    def _update_state(self) -> None:
        rows = [link.cursor.acked for link in self._links if link.takes_model]
        with self._lock:
            # No rows are kept for a collector that does not take this model. If it takes the model over later, it
            # starts where the other collector ended.
            furthest = max(link.cursor.acked for link in self._links)
            for link in self._links:
                if link.apart:
                    link.cursor.follow(furthest)
                    link.store = b""
            # Rows that a disconnected collector has not acknowledged stay in the ring until newer rows push them out.
            self._ring.release(min(link.cursor.acked for link in self._links))
            self._acked = min(rows) if rows else None
            self.connected = any(link.greeted for link in self._links)

    def _keep_in_touch(self, link: Link, now: float) -> None:
        if not link.subscribed:
            if link.handshake_at is not None and not link.apart and now - link.handshake_at > APART_AFTER:
                link.takes_model, link.apart = False, True
                self._update_state()
            return
        if not link.greeted:
            if now >= link.hello_due:
                link.hello_due = now + RETRY_AFTER
                self._greet(link, "hello")
            return
        if now >= link.ping_due:
            link.ping_due = now + PING_EVERY
            self._greet(link, "ping")
        if now - link.answered_at > ABSENT_AFTER:
            link.greeted = False
            link.schemas.clear()
            self._update_state()
        elif link.cursor.inflight and now - link.progress_at > link.retransmission.wait():
            link.progress_at = now
            link.retransmission.grow()
            link.schemas.clear()
            with self._lock:
                link.cursor.rewind(self._ring)

    def _greet(self, link: Link, kind: str) -> None:
        tally = self._tally()
        with self._lock:
            base, issued = self._ring.base, self._ring.issued
        frame = control.encode_greeting(
            kind,
            topic=self._topic,
            stream=self._stream,
            base=base,
            acked=link.cursor.acked,
            issued=issued,
            clock=time.time_ns(),
            tally=tally,
            store=link.store,
        )
        try:
            link.control.send(frame, zmq.DONTWAIT)
        except zmq.Again:
            link.hello_due = 0.0  # the control connection is established a moment after the data connection

    def _send(self, link: Link, now: float) -> int:
        """Send everything (DONE), as much as a burst allows (MORE), or as much as may be under way (BLOCKED)."""
        if not (link.subscribed and link.greeted):
            return DONE
        for _ in range(BURST):
            with self._lock:
                entry = link.cursor.peek(self._ring)
                base = self._ring.base
                blocked = entry is None and link.cursor.behind(self._ring)
            if entry is None:
                return BLOCKED if blocked else DONE
            # The entry may leave the ring meanwhile: then it is sent in vain, which the base tells the collector.
            try:
                self._send_schema(link, entry.layout.schema)
                link.data.send_multipart(self._frames(entry, min(base, entry.first)), zmq.DONTWAIT, copy=True)
            except zmq.Again:
                return BLOCKED
            if not link.cursor.inflight:
                link.progress_at = now
            with self._lock:
                link.cursor.sent(entry)
            if entry.nbytes >= LARGE:  # libzmq copied it under the interpreter's lock: now it is the model's turn
                time.sleep(YIELD)
        return MORE

    def _send_schema(self, link: Link, digest: bytes) -> None:
        if digest not in link.schemas:
            message = frames.encode_schema_message(self._topic, self._stream, self._schemas[digest])
            link.data.send_multipart(message, zmq.DONTWAIT)
            link.schemas.add(digest)

    def _frames(self, entry: RingEntry, base: int) -> list[Bytes]:
        if entry.encoded is None:
            entry.encoded = _join(entry)
            entry.pieces = []
        ts, arrays, buffers = entry.encoded
        return frames.encode_batch(
            self._topic,
            stream=self._stream,
            schema=entry.layout.schema,
            first=entry.first,
            rows=entry.rows,
            base=base,
            ts=ts,
            arrays=arrays,
            buffers=buffers,
            tally=self._tally(),
            kind=entry.layout.kind,
        )

    def _say_goodbye(self, poller: zmq.Poller) -> None:
        waiting = {}
        for link in self._links:
            if link.greeted:
                self._greet(link, "bye")
                waiting[link] = link.answers
        until = time.monotonic() + BYE_WAIT
        while waiting and time.monotonic() < until:
            poller.poll(10)
            for link, answers in list(waiting.items()):
                self._read_acks(link, time.monotonic())
                if link.answers > answers:
                    del waiting[link]


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
