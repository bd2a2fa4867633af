"""The thread that owns the collector's sockets: it moves bytes in and out and does nothing slow.

A subscription reaches a publisher only when this thread touches its socket, so a busy thread would shut out new
publishers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket as sockets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from zmon._transport.settings import control_of
from zmon._wire.frames import Topic
from zmon.errors import ConfigurationError
from zmon_collector.config import Config, exposed
from zmon_collector.ingest.auth import Authenticator, user_of
from zmon_collector.private_files import share_socket
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

BURST = 512  # messages received from one socket before polling the others
DESCRIPTORS = 256
OVERHEAD = 1024  # bytes of Python objects around a message, so that many small messages are also bounded
# Bytes of greetings beyond the limit at which the data socket is not read any more. They come once a second from every
# publisher, also while no rows are accepted; those that are not read wait in the connections, and are repeated.
GREETING_BYTES = 16 * 2**20
GREETINGS = 100  # that wait in a connection
WAKE = "inproc://wake"
LINGER = 200  # ms to send the last acknowledgements
IPC_PATH = 100  # longest path of a unix socket in bytes; the limit is 107

Socket = zmq.Socket[bytes]


class ReceivedMessage(NamedTuple):
    """Bytes as received: `kind` is data (frames of a message), control or admin (one frame; replies go to `peer`).

    `user` is the sender's public key, empty without CURVE.
    """

    kind: str
    frames: list[bytes]
    peer: bytes = b""
    user: str = ""


class Receiver:
    """Binds the sockets, fills `inbox` and `requests`, and sends what is passed to `reply`.

    Parameters
    ----------
    config : Config
    telemetry : Telemetry
    wake : callable
        Called from the thread after something was received.
    """

    def __init__(self, config: Config, telemetry: Telemetry, wake: Callable[[], None]) -> None:
        self.inbox: deque[ReceivedMessage] = deque()
        self.requests: deque[ReceivedMessage] = deque()  # of operators, who do not queue behind publishers
        self._bytes_in = self._bytes_out = 0  # bytes; each is written by one thread only
        self.data = self.control = ""  # endpoints as bound
        self.auth = Authenticator(config.security, telemetry)
        self._config = config
        self._telemetry = telemetry
        self._wake = wake
        self._outbound: deque[tuple[str, bytes, bytes]] = deque()
        self._stopping = threading.Event()
        self.paused = False  # the data socket is not read, for lack of room
        self._waking = threading.Lock()  # replies come from the collector's thread and from the database's
        self._limit = 2 * config.limits.inflight_bytes
        self.context: zmq.Context[Socket] = zmq.Context()
        self.thread = SupervisedThread("zmon-receive", self._run, telemetry, self._stopping)

    def start(self) -> None:
        """Bind the sockets and start the thread; ConfigurationError if an endpoint cannot be bound."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < DESCRIPTORS:  # checked here, because libzmq spins when they run out
            raise ConfigurationError(
                f"this process may open {hard} files; a collector needs {DESCRIPTORS} and two more for each publisher: "
                "raise the limit (ulimit -n, LimitNOFILE=)"
            )
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.context.set(zmq.MAX_SOCKETS, 65_535)
        section = self._config.collector
        self.auth.start(self.context)
        self._sub = self._socket(zmq.SUB)
        self._router = self._socket(zmq.ROUTER)
        self.auth.secure(self._sub)
        self.auth.secure(self._router)
        self._admin = self._socket(zmq.ROUTER)
        for prefix in subscriptions(section.models):
            self._sub.setsockopt(zmq.SUBSCRIBE, prefix)
        self.data = self._bind(self._sub, section.bind)
        default = section.bind if section.bind.endswith(":0") else control_of(self.data)
        self.control = self._bind(self._router, section.control or default)
        for endpoint in (self.data, self.control):
            share_socket(endpoint)
        if exposed(self._config):
            log.warning("%s and %s are open to the network without authentication (insecure = true): anyone who "
                        "reaches them can publish as any model", self.data, self.control)  # fmt: skip
        self._bind_admin()
        self._woken = self.context.socket(zmq.PAIR)
        self._woken.bind(WAKE)
        self._waker = self.context.socket(zmq.PAIR)
        self._waker.connect(WAKE)
        self.thread.start()

    def _socket(self, kind: int) -> Socket:
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.MAXMSGSIZE, self._config.limits.message_bytes)
        socket.setsockopt(zmq.BACKLOG, 1024)  # after a restart all publishers reconnect at once
        # TCP alone may take hours to notice a peer whose machine is gone.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.SNDHWM, 10_000)
            socket.setsockopt(zmq.RCVHWM, GREETINGS)
        return socket

    def _bind(self, socket: Socket, endpoint: str) -> str:
        try:
            if _is_served(endpoint):
                raise zmq.ZMQError(errno.EADDRINUSE)
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
        """Bytes in the inbox, with the overhead of the objects that hold them."""
        return self._bytes_in - self._bytes_out + OVERHEAD * len(self.inbox)

    @property
    def caught_up(self) -> bool:
        """Whether the inbox is empty and the data socket is read."""
        return not self.inbox and not self.paused

    # --- called by other threads ----------------------------------------------------------------------------

    def next_message(self) -> ReceivedMessage | None:
        """Remove and return the oldest message in the inbox, if any."""
        if not self.inbox:
            return None
        received = self.inbox.popleft()
        self._bytes_out += sum(map(len, received.frames))
        return received

    def reply(self, kind: str, peer: bytes, frame: bytes) -> None:
        """Queue a reply; `flush` has all queued replies sent."""
        self._outbound.append((kind, peer, frame))

    def flush(self) -> None:
        """Have the queued replies sent."""
        if self._outbound:
            self._interrupt_poll()

    def stop(self) -> None:
        """Send the last replies and close the sockets."""
        self._stopping.set()
        if self.thread.is_alive():
            self._interrupt_poll()
            self.thread.join(5.0)
        self.close()

    def _interrupt_poll(self) -> None:
        with self._waking, contextlib.suppress(zmq.ZMQError):  # full: it is awake; closed: it has ended
            self._waker.send(b"", zmq.DONTWAIT)

    def close(self) -> None:
        """Close the sockets without waiting for the thread."""
        self.context.destroy(LINGER)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        authentication = set(self.auth.sockets)
        for socket in (self._sub, self._router, self._admin, self._woken, *authentication):
            poller.register(socket, zmq.POLLIN)
        sources = (  # data first, so that a goodbye rarely overtakes rows sent before it
            (self._sub, "data", self.inbox),
            (self._router, "control", self.inbox),
            (self._admin, "admin", self.requests),
        )
        self.paused = deaf = False  # after an error both sockets are polled again
        while not self._stopping.is_set():
            self.thread.beat()
            nbytes = self.inbox_bytes
            full, overfull = nbytes > self._limit, nbytes > self._limit + GREETING_BYTES
            if full != self.paused:  # publishers notice by missing acknowledgements, and keep their rows
                self.paused = full
                poller.modify(self._sub, 0 if full else zmq.POLLIN)
            if overfull != deaf:
                deaf = overfull
                poller.modify(self._router, 0 if deaf else zmq.POLLIN)
            ready = dict(poller.poll(20 if full else 500))
            if self._woken in ready:
                with contextlib.suppress(zmq.Again):
                    while True:
                        self._woken.recv(zmq.DONTWAIT)
            self._send_replies()
            if not authentication.isdisjoint(ready):
                self.auth.serve()
            if sum(self._receive_from(*source) for source in sources if source[0] in ready):
                self._wake()
        self._send_replies()

    def _receive_from(self, socket: Socket, kind: str, into: deque[ReceivedMessage]) -> int:
        """Receive up to BURST messages from a socket, and return their number."""
        for count in range(BURST):
            try:
                frames, user = self._receive(socket)
            except zmq.Again:
                return count
            peer = b"" if socket is self._sub else frames.pop(0)
            if into is self.inbox:
                self._bytes_in += sum(map(len, frames))
            into.append(ReceivedMessage(kind, frames, peer, user))
        return BURST

    def _receive(self, socket: Socket) -> tuple[list[bytes], str]:
        """Return a message's frames and its sender's key, which only frames that are not copied carry."""
        if not self.auth.enabled or socket is self._admin:
            return socket.recv_multipart(zmq.DONTWAIT), ""
        frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
        return [frame.bytes for frame in frames], user_of(frames[-1])

    def _send_replies(self) -> None:
        while self._outbound:
            kind, peer, frame = self._outbound.popleft()
            try:
                (self._router if kind == "control" else self._admin).send_multipart([peer, frame], zmq.DONTWAIT)
            except zmq.ZMQError:  # full or gone: the publisher repeats its message
                self._telemetry.count("answers_dropped", kind)


def _is_served(endpoint: str) -> bool:
    """Return whether another process accepts connections on a unix socket, which libzmq would take away from it."""
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or path.startswith("@"):
        return False
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def subscriptions(models: Sequence[str]) -> list[bytes]:
    """Return the topic prefixes to subscribe to: one for each plain name, or everything if any name is a glob."""
    if any(set(model) & set("*?[") for model in models):
        return [b"z1/"]
    return [Topic(model, "", "x").encode().removesuffix(b"/x/") for model in models]
