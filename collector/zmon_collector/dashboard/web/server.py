"""uvicorn on a thread of its own. The socket is bound here, so a port in use is an error at once.

The socket stays when the server ends by an error: the next one takes over the connections that wait meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.web.connections import STALL_LIMIT, Connection, Crowd
from zmon_collector.dashboard.web.security import split_bind
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

GRACE = 1  # seconds to finish responses at the end
START_WAIT = 10.0
BEAT_EVERY = 1.0  # seconds between two signs of life
SEND_BYTES = 131_072
HEADER_BYTES = 131_072  # so that a name of ten thousand characters fits into a URL
ACCEPTED = 16  # connections in a turn of the loop: few of them have to make room before their request is read
WAITING = 256  # connections that the system keeps until they are accepted


class _Server(uvicorn.Server):
    """uvicorn's server, which takes for one number how many connections wait, and how many are accepted in a turn."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(WAITING)


class WebServer:
    """A server of one application, from `start` to `stop`.

    Parameters
    ----------
    app : ASGI application
    bind : str
        ``HOST:PORT``; port 0 takes any free one.
    section : str
        The section of the configuration, for errors and the thread's name.
    telemetry : Telemetry
    most : int
        Connections at a time.
    """

    def __init__(self, app: ASGIApp, bind: str, section: str, telemetry: Telemetry, most: int = 64) -> None:
        host, port = split_bind(bind)
        self._crowd = Crowd(most, section, telemetry)
        self._socket = _bound(host, port, f"[{section}] bind = {bind!r}")
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._config = uvicorn.Config(
            app,
            http=partial(Connection, crowd=self._crowd),  # type: ignore[arg-type]
            backlog=ACCEPTED,
            ws="none",
            lifespan="auto",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
        self._server = _Server(self._config)
        self._stop = threading.Event()
        self._ending: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread = SupervisedThread(f"zmon-{section}", self._run, telemetry, self._stop)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def start(self) -> None:
        self.thread.start()
        until = time.monotonic() + START_WAIT
        while not self._server.started and not self.thread.error and time.monotonic() < until:
            time.sleep(0.005)
        if not self._server.started:
            self.stop()
            raise ConfigurationError(f"the web server on {self.url} did not start; see the log")

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in the server's loop, from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(function)

    def before_stop(self, function: Callable[[], None]) -> None:
        """Call a function in the loop when the server is about to end, to disconnect viewers."""
        self._ending.append(function)

    def stop(self) -> None:
        """End the server, whether or not there are viewers."""
        for function in self._ending:
            self.call(function)
        self._stop.set()
        self._server.should_exit = True
        self.thread.join(GRACE + 2)
        self._socket.close()

    def _run(self) -> None:
        self._server = _Server(self._config)
        if self._stop.is_set():  # looked at after the assignment: `stop` sees this server, or is seen here
            return
        with self._socket.dup() as listening:
            asyncio.run(self._serve(listening))
        if not self._stop.is_set():
            raise RuntimeError("the web server has ended")

    async def _serve(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._crowd.on_loop_error)
        self._beat(self._loop)
        await self._server.serve(sockets=[listening])

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread.beat()
        self._crowd.sweep()
        loop.call_later(BEAT_EVERY, self._beat, loop)


def _bound(host: str, port: int, what: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # how far a slow viewer may lag behind
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALL_LIMIT))  # of peers that vanish
        bound.bind((host, port))
        bound.listen(WAITING)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"{what}: cannot bind: {error.strerror or error}; choose another with --web") from None
    return bound
