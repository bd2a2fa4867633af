"""The thread that owns the collector's sockets. It moves bytes in and out and does nothing slow.

A subscription reaches a publisher only when this thread touches its socket, so a busy thread here would shut new
publishers out.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote

import zmq

from zmon._transport.settings import control_of
from zmon._wire.frames import Topic
from zmon.errors import ConfigurationError
from zmon_collector.config import Config, exposed
from zmon_collector.ingest.auth import Gate, user_of
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

BURST = 512  # messages taken from one socket before looking at the others
DESCRIPTORS = 256
OVERHEAD = 1024  # bytes of Python objects around a message, so that very many small ones are bounded, too
WAKE = "inproc://wake"
LINGER = 200  # ms that the last acknowledgements get
IPC_PATH = 100  # bytes that a unix socket's path may have, with room to spare

Socket = zmq.Socket[bytes]


class ReceivedMessage(NamedTuple):
    """What came in: `kind` is data (frames of a message), control or admin (one frame, and who to answer).

    `user` is the sender's public key, empty without CURVE.
    """

    kind: str
    frames: list[bytes]
    peer: bytes = b""
    user: str = ""


class Receiver:
    """Binds the sockets, fills `inbox`, sends what is handed to `reply`.

    Parameters
    ----------
    config : Config
    telemetry : Telemetry
    wake : callable
        Called from the thread after something was put into the inbox.
    """

    def __init__(self, config: Config, telemetry: Telemetry, wake: Callable[[], None]) -> None:
        self.inbox: deque[ReceivedMessage] = deque()
        self.questions: deque[ReceivedMessage] = deque()  # an operator does not wait behind what a crowd sends
        self._taken_in = self._given_out = 0  # bytes; each is written by one thread only
        self.data = self.control = ""  # endpoints as bound
        self.gate = Gate(config.security, telemetry)
        self._config = config
        self._telemetry = telemetry
        self._wake = wake
        self._outbound: deque[tuple[str, bytes, bytes]] = deque()
        self._stopping = False
        self._paused = False  # the socket of rows is not read: there is no room
        self._waking = threading.Lock()  # answers come from the collector's thread and from the store's
        self._limit = 2 * config.limits.inflight_bytes
        self._context: zmq.Context[Socket] = zmq.Context()
        self._thread = threading.Thread(target=self._run, name="zmon-receive", daemon=True)

    def start(self) -> None:
        """Bind; ConfigurationError when an endpoint cannot be had."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < DESCRIPTORS:  # libzmq spins when they run out, so it is said before
            raise ConfigurationError(
                f"this process may open {hard} files; a collector needs {DESCRIPTORS} and two more for each publisher: "
                "raise it (ulimit -n, LimitNOFILE=)"
            )
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._context.set(zmq.MAX_SOCKETS, 65_535)
        section = self._config.collector
        self.gate.open(self._context)
        self._sub = self._socket(zmq.SUB)
        self._router = self._socket(zmq.ROUTER)
        self.gate.secure(self._sub)
        self.gate.secure(self._router)
        self._admin = self._socket(zmq.ROUTER)
        for prefix in subscriptions(section.models):
            self._sub.setsockopt(zmq.SUBSCRIBE, prefix)
        self.data = self._bind(self._sub, section.bind)
        next_to_it = section.bind if section.bind.endswith(":0") else control_of(self.data)
        self.control = self._bind(self._router, section.control or next_to_it)
        if exposed(self._config):
            log.warning("%s and %s are open to the network without authentication (insecure = true): whoever reaches "
                        "them can publish as any model", self.data, self.control)  # fmt: skip
        self._bind_admin()
        self._woken = self._context.socket(zmq.PAIR)
        self._woken.bind(WAKE)
        self._waker = self._context.socket(zmq.PAIR)
        self._waker.connect(WAKE)
        self._thread.start()

    def _socket(self, kind: int) -> Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.MAXMSGSIZE, self._config.limits.message_bytes)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.SNDHWM, 10_000)
        return socket

    def _bind(self, socket: Socket, endpoint: str) -> str:
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"cannot bind {endpoint}: {error.strerror}; is another collector running? "
                "Stop it, or choose another endpoint with --bind"
            ) from None
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _bind_admin(self) -> None:
        path = self._config.collector.data_dir.absolute() / "admin.sock"
        if len(bytes(path)) > IPC_PATH:
            log.warning("no admin socket: the path %s is too long for one; choose a shorter data_dir", path)
            return
        self._bind(self._admin, f"ipc://{path}")
        path.chmod(0o600)

    @property
    def inbox_bytes(self) -> int:
        """Bytes that wait to be taken, with what holds them."""
        return self._taken_in - self._given_out + OVERHEAD * len(self.inbox)

    @property
    def caught_up(self) -> bool:
        """Whether nothing waits here, and nothing is kept out for lack of room."""
        return not self.inbox and not self._paused

    # --- called by other threads ----------------------------------------------------------------------------

    def take(self) -> ReceivedMessage | None:
        """The oldest thing received, if any."""
        if not self.inbox:
            return None
        received = self.inbox.popleft()
        self._given_out += sum(map(len, received.frames))
        return received

    def reply(self, kind: str, peer: bytes, frame: bytes) -> None:
        """Queue an answer; `flush` hands all of them over."""
        self._outbound.append((kind, peer, frame))

    def flush(self) -> None:
        if self._outbound:
            self._rouse()

    def stop(self) -> None:
        """Send the last answers and close the sockets."""
        self._stopping = True
        if self._thread.is_alive():
            self._rouse()
            self._thread.join(5.0)
        self.close()

    def _rouse(self) -> None:
        with self._waking, contextlib.suppress(zmq.ZMQError):  # full: it is awake; closed: nobody is left to wake
            self._waker.send(b"", zmq.DONTWAIT)

    def close(self) -> None:
        self._context.destroy(LINGER)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        at_the_gate = set(self.gate.sockets)
        for socket in (self._sub, self._router, self._admin, self._woken, *at_the_gate):
            poller.register(socket, zmq.POLLIN)
        while not self._stopping:
            full = self.inbox_bytes > self._limit
            if full != self._paused:  # publishers notice by missing acknowledgements, and keep their rows
                self._paused = full
                poller.modify(self._sub, 0 if full else zmq.POLLIN)
            ready = dict(poller.poll(20 if full else 500))
            if self._woken in ready:
                with contextlib.suppress(zmq.Again):
                    while True:
                        self._woken.recv(zmq.DONTWAIT)
            self._answer()
            if not at_the_gate.isdisjoint(ready):
                self.gate.serve()
            taken = 0
            if self._sub in ready:  # first: a goodbye must not overtake the rows that were sent before it
                taken += self._take_data()
            if self._router in ready:
                taken += self._take_addressed(self._router, "control", self.inbox)
            if self._admin in ready:
                taken += self._take_addressed(self._admin, "admin", self.questions)
            if taken:
                self._wake()
        self._answer()

    def _take_data(self) -> int:
        for count in range(BURST):
            try:
                frames, user = self._take(self._sub)
            except zmq.Again:
                return count
            self._taken_in += sum(map(len, frames))
            self.inbox.append(ReceivedMessage("data", frames, user=user))
        return BURST

    def _take_addressed(self, socket: Socket, kind: str, into: deque[ReceivedMessage]) -> int:
        for count in range(BURST):
            try:
                (peer, *frames), user = self._take(socket)
            except zmq.Again:
                return count
            if into is self.inbox:
                self._taken_in += sum(map(len, frames))
            into.append(ReceivedMessage(kind, frames, peer, user))
        return BURST

    def _take(self, socket: Socket) -> tuple[list[bytes], str]:
        """A message, and the key of its sender, which only uncopied frames tell."""
        if not self.gate.on or socket is self._admin:
            return socket.recv_multipart(zmq.DONTWAIT), ""
        frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
        return [frame.bytes for frame in frames], user_of(frames[-1])

    def _answer(self) -> None:
        while self._outbound:
            kind, peer, frame = self._outbound.popleft()
            try:
                (self._router if kind == "control" else self._admin).send_multipart([peer, frame], zmq.DONTWAIT)
            except zmq.ZMQError:  # full or gone: the publisher asks again
                self._telemetry.count("answers_dropped", kind)


def subscriptions(models: Sequence[str]) -> list[bytes]:
    """Topic prefixes to subscribe to: one per plain name, everything if a glob is among them."""
    if any(set(model) & set("*?[") for model in models):
        return [b"z1/"]
    return [Topic(model, "", "x").encode().partition(quote(model, safe="").encode() + b"/")[0]
            + quote(model, safe="").encode() + b"/" for model in models]  # fmt: skip
