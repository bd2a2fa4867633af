"""The publisher's side of one collector: two sockets, a cursor over the ring, and the state of the connection."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import zmq

from zmon._transport import headroom
from zmon._transport.answers import Answers
from zmon._transport.keys import Keys
from zmon._transport.notices import EVERY, say
from zmon._transport.retransmission import Retransmission
from zmon._transport.ring import Cursor
from zmon._transport.settings import Endpoint
from zmon._wire.checks import short_detail
from zmon._wire.control import Ack
from zmon._wire.frames import MAX_HEADER
from zmon._wire.tally import merge_tallies
from zmon.backoff import Backoff

RETRY_AFTER = 1.0  # seconds between two hellos
REOPEN_AFTER = 0.5  # seconds after libzmq gave up a connection; doubled up to REOPEN_MAX, shortened at random
REOPEN_MAX = 10.0
FIRST_CONTACT = 0.4  # seconds that close() gives a connection that is not up yet, or was just lost
COME_BACK = 30.0  # seconds from its last answer on in which a lost collector may come back and say what it has on disk
FAILURES = 3  # broken handshakes before one is logged: a collector that restarts breaks off one
READ_LIMIT = 1024  # messages to read from one collector before turning to the others and to the ring
WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_UP = (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED)

Socket = zmq.Socket[bytes]


class Link:
    """The connection to one collector: its two sockets, its cursor, and its state.

    After a refused handshake libzmq never tries again, not even if the key is allowed later, and neither after bytes
    that are not ZMTP, as a broken proxy may send them. So the monitors of the sockets are watched: if no attempt to
    reconnect follows a disconnection, the socket has given up, and both sockets are created again.
    """

    def __init__(self, endpoint: Endpoint, keys: Keys | None) -> None:
        self.cursor = Cursor()
        # By prefix. After a reconnection the new connection's subscription may be read before the old one's end.
        self.subscriptions: Counter[bytes] = Counter()
        self.reached = False  # the data connection is up, or in its handshake
        self._lost_at = time.monotonic()  # when that connection was last lost; at first, when it was started
        self.handshake_at: float | None = None  # of the connection that is up; a stopped collector completes none
        self._asked = False  # the connection that is up, or was up last, has subscribed
        self.gave_up = False  # a connection was up and ended without a subscription
        self.offers = False  # the collector has subscribed, and `take` was not called yet
        self.takes_model = False  # the collector has subscribed; flush() waits for it even while it is disconnected
        self.apart = False  # when it was connected last, the collector did not take this model, or no longer did
        self.greeted = False  # the collector answered the hello of this subscription
        self.schemas: set[bytes] = set()  # sent on this subscription
        self.hello_due = 0.0
        self.ping_due = 0.0
        self.answered_at = 0.0
        self.broke = True  # since rows were last sent from the first that is not acknowledged
        self.retransmission = Retransmission()
        self.answers = 0
        self.answers_of_rows = Answers()
        self.message_bytes = 0  # of the largest message that the collector takes; 0: it does not say
        self.store = b""  # name of the store that holds what the collector acknowledged, from its last answer
        self.settled: Mapping[str, Any] = {}  # the part of the stream's tally that the collector has settled
        self.counted: Mapping[str, Any] = {}  # that, and what others have settled before this one takes the model
        self.told: Mapping[str, Any] = {}  # the tally of the last greeting
        self._monitors: list[Socket] = []
        self.sockets: list[Socket] = []  # data, control and their monitors; empty while they are closed
        self.endpoint = endpoint
        self._keys = keys
        self._reopening = Backoff(REOPEN_AFTER, REOPEN_MAX, jitter=0.5)
        self._given_up: set[Socket] = set()  # monitors of sockets that no longer try to connect
        self._reopen_at = 0.0
        self._failures = 0
        self._failure_logged = self._malformed_logged = self._held_off_logged = -EVERY

    @property
    def subscribed(self) -> bool:
        return bool(self.subscriptions)

    @property
    def is_greeting(self) -> bool:
        """Return whether a collector is there, and has not answered yet."""
        return self.handshake_at is not None and not self.greeted and not self.apart

    def enter_subscription(self, notice: bytes, topic: bytes) -> None:
        """Enter that a connection of the collector subscribed to a prefix of topics, or no longer does."""
        prefix = notice[1:]
        if not topic.startswith(prefix):
            return
        if notice[:1] == b"\x01":
            self.subscriptions[prefix] += 1
            self.offers = self._asked = True
        else:
            self.subscriptions -= Counter([prefix])
            self.offers = self.offers and self.subscribed
        self.greeted, self.broke = False, True  # either way, messages under way may be lost
        self.schemas.clear()

    def take(self) -> None:
        """Enter that the collector takes this model: from now on rows are kept for it."""
        self.takes_model, self.offers = True, False
        self.apart = self.gave_up = False
        self.hello_due = 0.0

    def leave(self) -> None:
        """Enter that the collector does not take this model: no rows are kept for it."""
        self.takes_model, self.apart, self.greeted = False, True, False

    def may_hold_rows(self, now: float) -> bool:
        """Return whether the collector was lost a moment ago, and may have rows that it did not acknowledge."""
        underway = self.cursor.reached > self.cursor.acked
        return self.takes_model and not self.greeted and underway and now - self.answered_at <= COME_BACK

    def settle(self, tally: Mapping[str, Any] | None) -> None:
        """Enter which part of the stream's tally the collector has settled."""
        # A collector of release 0.1 does not say so: it counts what it gets.
        tally = self.told if tally is None else tally
        if tally != self.settled:
            self.settled = merge_tallies(self.settled, tally)
            self.counted = merge_tallies(self.counted, tally)

    def follow(self, other: Link) -> None:
        """Treat what another collector has settled as settled: if this one takes the model, it begins there."""
        # One that was never connected may be about to take the model as well, and get every row that is held for it.
        row, counted = other.cursor.acked, other.counted
        if not self.apart:
            row, counted = other.cursor.settled, other.settled
        self.cursor.follow(row)
        self.counted = merge_tallies(self.counted, counted)
        self.answers_of_rows.follow(other.answers_of_rows)
        self.store = b""

    def is_coming(self, now: float) -> bool:
        """Return whether a collector that has not subscribed may do so in a moment."""
        return not self.apart and (self.reached or now - self._lost_at <= FIRST_CONTACT)

    def open(self, context: zmq.Context[Socket], poller: zmq.Poller) -> None:
        """Create the sockets and connect them."""
        self._context, self._poller = context, poller
        self._given_up.clear()
        self._lost_at = time.monotonic()
        self.data = self._socket(zmq.XPUB)
        self.data.setsockopt(zmq.XPUB_NODROP, 1)
        self.data.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.control = self._socket(zmq.DEALER)
        self._monitors = []
        for socket in (self.data, self.control):
            self._monitors.append(self._monitor(socket))
        self.data.connect(self.endpoint.data)
        self.control.connect(self.endpoint.control)

    def close(self) -> None:
        """Close the sockets. What was acknowledged stays known."""
        sockets, self.sockets = self.sockets, []
        for socket in sockets[: len(self._monitors)]:
            # An event for a monitor that is closed would block libzmq's thread, and so all publishers, for ever.
            socket.disable_monitor()
        for socket in sockets:
            if socket in self._poller:
                self._poller.unregister(socket)
            socket.close(0)
        self.subscriptions.clear()
        self.schemas.clear()
        self.reached = self.greeted = self.offers = False
        self.broke = True
        self.handshake_at = None

    def count_answer(self, now: float) -> None:
        """Note that the collector answered: earlier failures no longer matter."""
        self.answered_at = now
        self.answers += 1
        self.retransmission.hear(now)
        self._reopening.reset()
        self._failures = 0

    def log_malformed(self, error: Exception, now: float) -> None:
        """Log a malformed answer, at a bounded rate whatever is sent."""
        if now - self._malformed_logged >= EVERY:
            self._malformed_logged = now
            say("zmon: malformed answer from the collector at %s: %s", self.endpoint.control, error)

    def log_held_off(self, ack: Ack, model: str, now: float) -> None:
        """Log that the collector has no place for this stream, at a bounded rate."""
        if now - self._held_off_logged >= EVERY:
            self._held_off_logged = now
            why = "; ".join(f"{reason}: {detail}" for reason, (_, detail) in ack.refused.items())
            say("zmon: the collector at %s takes no rows of model %r now (%s); retrying, rows are kept meanwhile",
                self.endpoint.control, model, short_detail(why))  # fmt: skip

    def reopen_if_lost(self, ready: set[Socket], now: float) -> bool:
        """Read the monitors, and create the sockets again if libzmq gave them up; return whether it did."""
        for monitor in self._monitors:
            if monitor in ready:
                self._read_events(monitor, now)
        if not self._given_up or now < self._reopen_at:
            return False
        if headroom.lacking(headroom.LINK):
            self._reopen_at = now + self._reopening.next()
            return False
        self.close()
        self._reopening.grow()
        self.open(self._context, self._poller)
        return True

    def _socket(self, kind: int) -> Socket:
        socket: Socket = self._context.socket(kind)
        self.sockets.append(socket)
        self._poller.register(socket, zmq.POLLIN)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_HEADER)  # a hostile collector must not fill the model's memory
        # A connection that breaks off while its queue is full ends the process with the next heartbeat, by an assertion
        # of libzmq. So the queue is never full, and each step reads from it.
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server)
        return socket

    def _monitor(self, watched: Socket) -> Socket:
        socket: Socket = watched.get_monitor_socket(WATCHED)
        self.sockets.append(socket)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _read_events(self, monitor: Socket, now: float) -> None:
        while monitor.poll(0):
            frame, _ = monitor.recv_multipart(zmq.DONTWAIT)
            (event,) = struct.unpack_from("=H", frame)  # zmq.utils.monitor would import asyncio: 35 ms
            if monitor is self._monitors[0]:
                if self.takes_model and self.reached and event not in _UP:
                    self._lost_at = now
                self.reached = event in _UP
                if self.handshake_at is not None and not self.reached:
                    self.gave_up = not self._asked
                self.handshake_at = None
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self.handshake_at, self._asked = now, False
            if event == zmq.EVENT_DISCONNECTED:
                if not self._given_up:
                    self._reopen_at = now + self._reopening.wait()
                self._given_up.add(monitor)
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self._given_up.discard(monitor)
            elif event not in _UP:
                self._count_failure(now, denied=event == zmq.EVENT_HANDSHAKE_FAILED_AUTH)

    def _count_failure(self, now: float, *, denied: bool) -> None:
        self._failures += 1
        if (denied or self._failures >= FAILURES) and now - self._failure_logged >= EVERY:
            self._failure_logged = now
            say("zmon: %s; retrying, rows are kept meanwhile", self._reason(denied))

    def _reason(self, denied: bool) -> str:
        where = self.endpoint.data
        if self._keys is None:
            return f"the handshake with the collector at {where} failed: it may require secret_key and server_key"
        if denied:
            return (
                f"the collector at {where} does not allow this publisher's key {self._keys.public.decode()}; "
                "add it to its [security.clients] and reload it"
            )
        return f"the handshake with the collector at {where} failed: server_key may be wrong, or it does not use CURVE"
