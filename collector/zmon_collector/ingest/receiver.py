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
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from zmon._transport.settings import control_of
from zmon._wire.control import decode_greeting
from zmon._wire.frames import MAX_HEADER, Topic
from zmon.errors import ConfigurationError, WireError
from zmon_collector.config import Config, exposed
from zmon_collector.ingest.auth import Authenticator
from zmon_collector.ingest.connections import Connections
from zmon_collector.private_files import share_socket
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

BURST = 512  # messages received from one socket before polling the others
DESCRIPTORS = 256
OVERHEAD = 1024  # bytes of Python objects around a message, so that many small messages are also bounded
# Bytes of greetings beyond the limit of the inbox. They come once a second from every publisher, also while no rows are
# accepted; further ones are discarded, and repeated.
GREETING_BYTES = 16 * 2**20
# Seconds until a connection ends whose other side is gone: when it is silent, and when something was sent to it.
KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 2,
    zmq.TCP_KEEPALIVE_INTVL: 1,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 5000,  # ms
}
WAKE = "inproc://wake"
DISCARD_EVERY = 0.01  # seconds of rest in which messages gather, while they are discarded
LINGER = 200  # ms to send the last acknowledgements
IPC_PATH = 100  # longest path of a unix socket in bytes; the limit is 107

Socket = zmq.Socket[bytes]


class ReceivedMessage(NamedTuple):
    """Bytes as received: `kind` is data (frames of a message), control or admin (one frame; replies go to `peer`).

    `user` is the sender's public key, empty without CURVE; `identity` is the client that it belongs to, or without
    CURVE the sender's address. `connection` is the descriptor of the connection. Of a message of more than
    `limits.message_bytes`, `frames` has topic and header, and `too_large` its bytes.
    """

    kind: str
    frames: list[bytes]
    peer: bytes = b""
    user: str = ""
    identity: str = ""
    connection: int = -1
    too_large: int = 0


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
        self._held_in: defaultdict[int, int] = defaultdict(int)  # the same by connection
        self._held_out: defaultdict[int, int] = defaultdict(int)
        self.data = self.control = ""  # endpoints as bound
        self.auth = Authenticator(config.security, telemetry)
        self._config = config
        self.telemetry = telemetry
        self._wake = wake
        self._outbound: deque[tuple[str, bytes, bytes]] = deque()
        self._stopping = threading.Event()
        self.paused = False  # messages are discarded for lack of room
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
        self._connections = Connections((self._sub, self._router), self.telemetry)
        self._woken = self.context.socket(zmq.PAIR)
        self._woken.bind(WAKE)
        self._waker = self.context.socket(zmq.PAIR)
        self._waker.connect(WAKE)
        self.thread.start()

    def _socket(self, kind: int) -> Socket:
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.BACKLOG, 1024)  # after a restart all publishers reconnect at once
        # TCP alone may take hours to notice a peer whose machine is gone.
        for option, value in KEEPALIVE.items():
            socket.setsockopt(option, value)
        # A connection whose queue is full is not read. If it breaks off then, the next heartbeat of either side ends
        # the process by an assertion of libzmq. So no queue is ever full: what finds no room is read and discarded.
        socket.setsockopt(zmq.RCVHWM, 0)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.SNDHWM, 10_000)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_HEADER)
        else:
            socket.setsockopt(zmq.MAXMSGSIZE, self._config.limits.message_bytes)
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
        """Whether the inbox is empty and no messages are discarded."""
        return not self.inbox and not self.paused

    # --- called by other threads ----------------------------------------------------------------------------

    def next_message(self) -> ReceivedMessage | None:
        """Remove and return the oldest message in the inbox, if any."""
        if not self.inbox:
            return None
        received = self.inbox.popleft()
        nbytes = sum(map(len, received.frames))
        self._bytes_out += nbytes
        self._held_out[received.connection] += nbytes
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
        while not self._stopping.is_set():
            self.thread.beat()
            self.paused = self.inbox_bytes > self._limit
            ready = dict(poller.poll(500))
            if self._woken in ready:
                with contextlib.suppress(zmq.Again):
                    while True:
                        self._woken.recv(zmq.DONTWAIT)
            self._send_replies()
            if not authentication.isdisjoint(ready):
                self.auth.serve()
            if sum(self._receive_from(*source) for source in sources if source[0] in ready):
                self._wake()
            elif self.paused:
                self._stopping.wait(DISCARD_EVERY)
            self._connections.look()
        self._send_replies()

    def _receive_from(self, socket: Socket, kind: str, into: deque[ReceivedMessage]) -> int:
        """Receive up to BURST messages from a socket, and return how many of them were taken."""
        taken = 0
        for _ in range(BURST):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)  # what is discarded is not copied
            except zmq.Again:
                break
            user, identity = ("", "") if socket is self._admin else self.auth.sender_of(frames[0])
            connection = frames[0].get(zmq.SRCFD)
            self._connections.note(connection)
            peer = b"" if socket is self._sub else frames.pop(0).bytes
            nbytes = sum(map(len, frames))
            if into is self.inbox and not self._has_room(kind, frames, connection):
                self.telemetry.count("messages_discarded", kind)
                continue
            if nbytes > self._config.limits.message_bytes:
                frames, too_large = frames[:2], nbytes
            else:
                too_large = 0
            whole = [frame.bytes for frame in frames]
            if into is self.inbox:
                nbytes = sum(map(len, whole))
                self._bytes_in += nbytes
                self._held_in[connection] += nbytes
            into.append(ReceivedMessage(kind, whole, peer, user, identity, connection, too_large))
            taken += 1
        return taken

    def _has_room(self, kind: str, frames: list[zmq.Frame], connection: int) -> bool:
        """Return whether a message may be put into the inbox. What is discarded is sent again by its publisher.

        All is read nevertheless, because what stays in libzmq has no bound.

        The second half of the room is for connections that have little in it, so that none crowds out the others.
        """
        nbytes = self.inbox_bytes
        if nbytes <= self._limit // 2:
            return True
        if kind == "data":
            share = self._limit // 2 // max(1, len(self._connections))
            return nbytes <= self._limit and self._held_in[connection] - self._held_out[connection] <= share
        if nbytes <= self._limit + GREETING_BYTES:
            return True
        return nbytes <= self._limit + 2 * GREETING_BYTES and _is_goodbye(frames)

    def _send_replies(self) -> None:
        while self._outbound:
            kind, peer, frame = self._outbound.popleft()
            try:
                (self._router if kind == "control" else self._admin).send_multipart([peer, frame], zmq.DONTWAIT)
            except zmq.ZMQError:  # full or gone: the publisher repeats its message
                self.telemetry.count("answers_dropped", kind)


def _is_goodbye(frames: list[zmq.Frame]) -> bool:
    """Return whether a message is a goodbye, which its publisher does not repeat as it does other greetings."""
    try:
        return len(frames) == 1 and decode_greeting(frames[0].bytes).kind == "bye"
    except WireError:
        return False


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
