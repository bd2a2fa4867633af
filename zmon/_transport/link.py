"""One collector as the publisher's thread sees it: two sockets, a cursor over the ring, and what it has been told."""

from __future__ import annotations

import logging
import random
import struct
import time

import zmq

from zmon._transport.keys import Keys
from zmon._transport.ring import Cursor
from zmon._transport.settings import Endpoint
from zmon._wire.frames import MAX_HEADER

log = logging.getLogger("zmon")

RETRY_AFTER = 1.0  # seconds without an acknowledgement that advances; doubled up to the transport's RETRY_MAX
REOPEN_AFTER = 0.5  # seconds after libzmq gave a connection up; doubled up to REOPEN_MAX, shortened at random
REOPEN_MAX = 10.0
FIRST_CONTACT = 0.4  # seconds that close() gives a connection that is not up yet, or has just gone
FAILURES = 3  # handshakes that break off before the log speaks of it: a collector that restarts breaks off one
LOG_EVERY = 300.0
TAKEN = 256  # messages from a collector before looking at the others and at the ring
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
    """One collector: its two sockets, its cursor, and what it has been told.

    After a refused handshake libzmq never tries again, not even when the key is allowed later; nor after bytes that
    are no ZMTP, as a broken proxy may send them. So the sockets' monitors are watched: a disconnection that no attempt
    to reconnect follows is the end of a socket, and both are made anew.
    """

    def __init__(self, context: zmq.Context[Socket], poller: zmq.Poller, endpoint: Endpoint, keys: Keys | None) -> None:
        self.cursor = Cursor()
        self.subscriptions: set[bytes] = set()
        self.reached = False  # the connection for data is up, or its handshake under way
        self._gone_at = time.monotonic()  # when that connection was last lost; at first, when it began to come up
        self.met_at: float | None = None  # since when the collector's side answers; one that is stopped does not
        self.takes = False  # the collector has subscribed; while it is away its rows are still waited for
        self.apart = False  # the collector is there and has not subscribed: it does not take this model
        self.greeted = False  # the collector answered our hello of this subscription
        self.schemas: set[bytes] = set()  # sent on this subscription
        self.hello_due = 0.0
        self.ping_due = 0.0
        self.heard = 0.0
        self.progress = 0.0
        self.retry = RETRY_AFTER
        self.answers = 0
        self.store = b""  # where the collector keeps what it acknowledged, as its last answer named it
        self._context = context
        self._poller = poller
        self._endpoint = endpoint
        self._keys = keys
        self._pause = REOPEN_AFTER
        self._given_up: set[Socket] = set()  # monitors of sockets that do not try any more
        self._reopen_at = 0.0
        self._failures = 0
        self._logged = self._complained = -LOG_EVERY
        self._open()

    @property
    def subscribed(self) -> bool:
        return bool(self.subscriptions)

    def is_coming(self, now: float) -> bool:
        """Whether a collector that has not subscribed may do so in a moment."""
        return not self.apart and (self.reached or now - self._gone_at <= FIRST_CONTACT)

    def close(self) -> None:
        for socket in (*self._monitors, self.data, self.control):
            self._poller.unregister(socket)
            socket.close(0)

    def hear(self, now: float) -> None:
        """The collector answered: whatever was refused before is past."""
        self.heard = now
        self.answers += 1
        self._pause, self._failures = REOPEN_AFTER, 0

    def complain(self, error: Exception, now: float) -> None:
        """An answer that is none: logged, but not as often as somebody may send it."""
        if now - self._complained >= LOG_EVERY:
            self._complained = now
            log.warning("zmon: an answer of the collector at %s is not understood: %s", self._endpoint.control, error)

    def mend(self, ready: set[Socket], now: float) -> bool:
        """Look at the monitors; True when the sockets were made anew."""
        for monitor in self._monitors:
            if monitor in ready:
                self._take_events(monitor, now)
        if not self._given_up or now < self._reopen_at:
            return False
        self.close()
        self.subscriptions.clear()
        self.schemas.clear()
        self.reached = self.greeted = self.apart = False
        self.met_at = None
        self._pause = min(2 * self._pause, REOPEN_MAX)
        self._open()
        return True

    def _open(self) -> None:
        self._given_up.clear()
        self.data = self._socket(zmq.XPUB)
        self.data.setsockopt(zmq.XPUB_NODROP, 1)
        self.data.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.control = self._socket(zmq.DEALER)
        self._monitors = [socket.get_monitor_socket(WATCHED) for socket in (self.data, self.control)]
        for socket in (*self._monitors, self.data, self.control):
            self._poller.register(socket, zmq.POLLIN)
        self.data.connect(self._endpoint.data)
        self.control.connect(self._endpoint.control)

    def _socket(self, kind: int) -> Socket:
        socket: Socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_HEADER)  # the model's memory is no hostile collector's
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server)
        return socket

    def _take_events(self, monitor: Socket, now: float) -> None:
        while monitor.poll(0):
            described, _ = monitor.recv_multipart(zmq.DONTWAIT)
            (event,) = struct.unpack_from("=H", described)  # zmq.utils.monitor would bring asyncio along: 35 ms
            if monitor is self._monitors[0]:
                if self.takes and self.reached and event not in _UP:
                    self._gone_at = now
                self.reached = event in _UP
                self.met_at = now if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else None
            if event == zmq.EVENT_DISCONNECTED:
                if not self._given_up:
                    self._reopen_at = now + self._pause * random.uniform(0.5, 1.0)
                self._given_up.add(monitor)
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self._given_up.discard(monitor)
            elif event not in _UP:
                self._take_failure(now, denied=event == zmq.EVENT_HANDSHAKE_FAILED_AUTH)

    def _take_failure(self, now: float, *, denied: bool) -> None:
        self._failures += 1
        if (denied or self._failures >= FAILURES) and now - self._logged >= LOG_EVERY:
            self._logged = now
            log.warning("zmon: %s; it is tried again, and rows wait meanwhile", self._reason(denied))

    def _reason(self, denied: bool) -> str:
        where = self._endpoint.data
        if self._keys is None:
            return f"the handshake with the collector at {where} fails: it may ask for secret_key and server_key"
        if denied:
            return (
                f"the collector at {where} does not allow this publisher's key {self._keys.public.decode()}; "
                "add it to its [security.clients] and reload it"
            )
        return f"the handshake with the collector at {where} fails: server_key may be another one's, or it has no CURVE"
