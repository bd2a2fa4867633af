"""uvicorn on a thread of its own. The socket is bound here, so a port in use is an error at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.web.security import split_bind

GRACE = 1  # seconds to finish responses at the end
START_WAIT = 10.0
SEND_BYTES = 131_072
HEADER_BYTES = 131_072  # so that a name of ten thousand characters fits into a URL


class WebServer:
    """A server of one application, from `start` to `stop`.

    Parameters
    ----------
    app : ASGI application
    bind : str
        ``HOST:PORT``; port 0 takes any free one.
    where : str
        The section of the configuration, for errors.
    """

    def __init__(self, app: ASGIApp, bind: str, where: str) -> None:
        host, port = split_bind(bind)
        self._socket = _bound(host, port, f"{where} bind = {bind!r}")
        self.host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            http="h11",
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
        self._server = uvicorn.Server(config)
        self._ending: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="zmon-web", daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def start(self) -> None:
        self._thread.start()
        until = time.monotonic() + START_WAIT
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        if not self._server.started:
            raise ConfigurationError(f"the web server on {self.url} did not start; see the log")

    def is_alive(self) -> bool:
        """Return whether the server's thread runs."""
        return self._thread.is_alive()

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
        self._server.should_exit = True
        self._thread.join(GRACE + 2)
        self._socket.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])


def _bound(host: str, port: int, what: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # how far a slow viewer may lag behind
        bound.bind((host, port))
        bound.listen(256)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"{what}: cannot bind: {error.strerror or error}; choose another with --web") from None
    return bound
