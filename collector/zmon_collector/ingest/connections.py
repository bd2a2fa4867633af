"""What each connection has sent of a message that is not whole yet; the one with most is cut when it is too much.

libzmq passes on whole messages only. It bounds their frames, and not how many of them a message has, so a message
without end would fill the memory. How much of it there is the kernel knows: the bytes that it received on the
connection since the last message that came whole.
"""

from __future__ import annotations

import logging
import socket as sockets
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import zmq

from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

LOOK_EVERY = 0.1  # seconds
SHARE = 0.02  # of a processor, at most, for looking: with very many connections looks are rarer
UNFINISHED = 64 * 2**20  # bytes of unfinished messages of all connections
HEARTBEAT = 64  # bytes a second that are no message: heartbeats of a peer that has nothing to send
_RECEIVED = struct.Struct("=128xQ")  # in the kernel's struct tcp_info: bytes received so far

Socket = zmq.Socket[bytes]


class Connections:
    """The TCP connections of the receiver's sockets. Runs in the receiving thread.

    Those of a unix socket are not counted: the kernel does not say, and whoever reaches one has the rights of its
    folder.

    Parameters
    ----------
    watched : sequence of Socket
    telemetry : Telemetry
    """

    def __init__(self, watched: Sequence[Socket], telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._monitors: list[Socket] = [
            socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED) for socket in watched
        ]
        self._peers: dict[int, tuple[str, int]] = {}  # by descriptor
        # Bytes received before the message that is being received, and when.
        self._before: dict[int, tuple[int, float]] = {}
        self._heard: set[int] = set()  # connections of which a message has come since the last look
        self._look_at = 0.0

    def __len__(self) -> int:
        return len(self._peers)

    def note(self, connection: int) -> None:
        """Note that a whole message of a connection was received."""
        self._heard.add(connection)

    def look(self) -> None:
        """Cut the connections with most, while unfinished messages take too much together. Call it often."""
        began = time.monotonic()
        if began < self._look_at:
            return
        self._read_events(began)
        unfinished = {connection: self._unfinished(connection, began) for connection in self._peers}
        self._heard.clear()
        total = sum(unfinished.values())
        while total > UNFINISHED:
            largest = max(unfinished, key=unfinished.__getitem__)
            nbytes = unfinished.pop(largest)
            total -= nbytes
            self._cut(largest, nbytes)
        ended = time.monotonic()
        self._look_at = ended + max(LOOK_EVERY, (ended - began) / SHARE)

    def _read_events(self, now: float) -> None:
        for monitor in self._monitors:
            while monitor.poll(0):
                event, connection = struct.unpack_from("=Hi", monitor.recv_multipart()[0])
                self._peers.pop(connection, None)
                peer = _peer(connection) if event == zmq.EVENT_ACCEPTED else None
                if peer is not None:
                    self._peers[connection] = peer
                    self._before[connection] = 0, now

    def _unfinished(self, connection: int, now: float) -> int:
        received = _received(connection)
        if connection in self._heard:
            self._before[connection] = received, now
        before, since = self._before[connection]
        return max(0, received - before - int(HEARTBEAT * (now - since)))

    def _cut(self, connection: int, nbytes: int) -> None:
        peer = self._peers.pop(connection)
        if _peer(connection) != peer:  # it has ended, and its descriptor may be another's
            return
        self._telemetry.count("connections_cut")
        if self._telemetry.may_log(time.monotonic()):
            log.warning("the connection of %s:%d is cut: it has sent %d MiB of a message that does not end", *peer,
                        nbytes >> 20)  # fmt: skip
        with suppress(OSError), _borrowed(connection) as socket:
            socket.shutdown(sockets.SHUT_RDWR)


@contextmanager
def _borrowed(connection: int) -> Iterator[sockets.socket]:
    """Yield the socket of a descriptor that libzmq owns, and may have closed already: then OSError."""
    socket = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, 0, connection)
    try:
        yield socket
    finally:
        socket.detach()


def _peer(connection: int) -> tuple[str, int] | None:
    """Return the address at the other end of a TCP connection; None for a unix socket, or after its end."""
    with suppress(OSError), _borrowed(connection) as socket:
        address = socket.getpeername()
        return address[:2] if isinstance(address, tuple) else None
    return None


def _received(connection: int) -> int:
    with suppress(OSError), _borrowed(connection) as socket:
        (received,) = _RECEIVED.unpack(socket.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _RECEIVED.size))
        return int(received)
    return 0
