"""The connections of a web server: bounded in number, in time, and in bytes that are not read.

A connection either works, which is the application's time, or waits for its peer: for a request, or for the response to
be read. One that waits for too long is closed, and once there are too many, one that waits makes room for a new one.
So peers that connect and say nothing cost a place each, and no good request waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

REQUEST_LIMIT = 10.0  # seconds for a whole request: since the connection was made, or the response before it was sent
FRESH = 1.0  # seconds in which a new peer may send its request before those that read slowly make room for it
STALL_LIMIT = 30.0  # seconds in which nothing of a response is read
UNREAD_BYTES = 64 * 2**20  # of responses, of all connections together
HEADER_LINES = 200
LOG_EVERY = 60.0  # seconds between two lines about the same
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def descriptor_share(part: int) -> int:
    """Return one part in so many of the descriptors that this process may open: the rest is for publishers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // part if soft != resource.RLIM_INFINITY else 2**16


class Crowd:
    """All connections of one server. Used by the server's loop alone.

    Parameters
    ----------
    most : int
        Connections at a time.
    section : str
        The section of the configuration, for the log and the counters.
    telemetry : Telemetry
    """

    def __init__(self, most: int, section: str, telemetry: Telemetry) -> None:
        self.most = most
        self._section = section
        self._telemetry = telemetry
        self._connections: set[Connection] = set()
        self._logged: dict[str, float] = {}  # when, by what

    def __len__(self) -> int:
        return len(self._connections)

    def enter(self, newest: Connection) -> None:
        """Take a new connection in; if there are too many, the one that has waited longest goes."""
        self._connections.add(newest)
        if len(self._connections) <= self.most:
            return
        self.log("crowded", f"all {self.most} connections are taken: those that send no request are closed")
        waiting = [each for each in self._connections if each is not newest and each.waits_since is not None]
        if waiting:
            now = time.monotonic()
            self.cut(min(waiting, key=lambda each: each.worth(now)), "crowded")
        else:
            newest.transport.write(BUSY)
            newest.transport.close()
            self._telemetry.count(f"{self._section}_connections_closed", "busy")

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)

    def cut(self, connection: Connection, why: str) -> None:
        """Close a connection at once, whatever its peer has not read."""
        self._connections.discard(connection)
        # Reset: else the system would keep what the peer has not read.
        used = connection.transport.get_extra_info("socket")
        used.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()
        self._telemetry.count(f"{self._section}_connections_closed", why)

    def sweep(self) -> None:
        """Close the connections that have waited for too long."""
        now = time.monotonic()
        for connection in list(self._connections):
            since = connection.waits_since
            limit = STALL_LIMIT if connection.is_stalled else REQUEST_LIMIT
            if since is not None and now - since > limit:
                self.cut(connection, "stalled" if connection.is_stalled else "no_request")

    def bound_unread(self) -> None:
        """Close those that have not read for longest, until the bytes of all are within the bound."""
        unread = {each: each.transport.get_write_buffer_size() for each in self._connections}
        stalled = sorted((each for each in unread if each.is_stalled), key=lambda each: each.waits_since or 0.0)
        total = sum(unread.values())
        for connection in stalled:
            if total <= UNREAD_BYTES:
                return
            total -= unread[connection]
            self.cut(connection, "unread")

    def log(self, what: str, text: str) -> None:
        """Log a warning, unless one about the same was logged just now."""
        now = time.monotonic()
        if now - self._logged.get(what, float("-inf")) >= LOG_EVERY:
            self._logged[what] = now
            log.warning("[%s] %s", self._section, text)

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of the loop: a line a minute for each kind, where asyncio writes one for each connection."""
        error = context.get("exception")
        kind = type(error).__name__
        self._telemetry.count(f"{self._section}_errors", kind)
        if isinstance(error, OSError):
            self.log(kind, f"connections wait: {error.strerror}; raise the limit of open files (ulimit -n)")
        elif time.monotonic() - self._logged.get(kind, float("-inf")) >= LOG_EVERY:
            self._logged[kind] = time.monotonic()
            loop.default_exception_handler(context)


class Connection(H11Protocol):
    """A connection that says since when it waits for its peer.

    Parameters
    ----------
    crowd : Crowd
    **options
        As uvicorn gives them.
    """

    def __init__(self, *, crowd: Crowd, **options: Any) -> None:
        super().__init__(**options)
        self._crowd = crowd
        self._request_since = time.monotonic()
        self._stalled_since: float | None = None
        self._lines = 0

    @property
    def is_stalled(self) -> bool:
        """Whether more of a response is written than its peer reads."""
        return self._stalled_since is not None

    @property
    def waits_since(self) -> float | None:
        """Since when it waits for its peer; None while the application works."""
        if self._stalled_since is not None:
            return self._stalled_since
        is_owed = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing()
        return self._request_since if is_owed else None

    def worth(self, now: float) -> tuple[int, float]:
        """Return a key by which connections that wait make room for others, the smallest first.

        Whoever reads slowly has sent a request at least, and whoever has just come will.
        """
        since = self._stalled_since or self._request_since
        if self.is_stalled:
            return 1, since
        return (0 if now - since > FRESH else 2), since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._lines += data.count(b"\n")
            if self._lines > HEADER_LINES:  # each would be parsed, in the loop
                self.send_400_response("Too many header lines.")
                return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # a response has begun
            self.transport.abort()

    def on_response_complete(self) -> None:
        self._request_since, self._lines = time.monotonic(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = time.monotonic()
        self._crowd.bound_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None
