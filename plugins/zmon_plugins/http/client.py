"""HTTP exchanges: bounded in time and size as a whole, never redirected, and nothing that leaves them holds a secret.

Proxies and certificates are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``, ``REQUESTS_CA_BUNDLE``), as the
library `requests` has it.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

import requests
import urllib3
from requests.adapters import HTTPAdapter

from zmon_plugins.http.response import Response, Unreachable

LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry", "urllib3.connection")  # at DEBUG they log addresses
MOST_STATUSES = 10


class Redact:
    """Removes secrets from text."""

    def __init__(self) -> None:
        self._forms: dict[str, set[str]] = {}  # by kind; replaced as a whole, since any thread may log

    def register(self, kind: str, secret: str) -> None:
        """Remove this secret; it replaces the last one of its kind."""
        forms = {secret, quote(secret, safe=""), quote_plus(secret)} - {""}
        self._forms = {**self._forms, kind: forms}

    def clean(self, text: str) -> str:
        for forms in self._forms.values():
            for form in forms:
                text = text.replace(form, "***")
        return text


class _LogFilter(logging.Filter):
    """Removes the secrets of all clients from the HTTP library's log records. Never removed itself."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: tuple[Redact, ...] = ()
        self._lock = threading.Lock()
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def add(self, client: Redact) -> None:
        with self._lock:
            self._clients = (*self._clients, client)

    def remove(self, client: Redact) -> None:
        with self._lock:
            self._clients = tuple(each for each in self._clients if each is not client)

    def filter(self, record: logging.LogRecord) -> bool:
        text = clean = record.getMessage()
        for client in self._clients:
            clean = client.clean(clean)
        if clean != text:
            record.msg, record.args = clean, ()
        record.exc_info = None  # its text may hold the address, and what the server sent
        return True


_LOGS = _LogFilter()


class _Response(http.client.HTTPResponse):
    """A response before which a few informal ones may come: parsing them without end would take the interpreter."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._statuses = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._statuses += 1
        if self._statuses > MOST_STATUSES:
            raise http.client.HTTPException("too many responses to one request")
        return super()._read_status()  # type: ignore[misc,no-any-return]


class _Adapter(HTTPAdapter):
    """Adapter that can end an exchange from another thread, whatever that waits for.

    It keeps a descriptor of its own for the socket in use: that of the connection changes hands in a TLS handshake.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_expired = False
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        return self._watch(super().proxy_manager_for(*arguments, **options))

    def _watch(self, manager: Any) -> Any:
        adapter = self

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]
                response_class = _Response

                def _new_conn(self) -> socket.socket:
                    made: socket.socket = super()._new_conn()
                    adapter.hold(made)
                    return made

                def close(self) -> None:
                    super().close()
                    adapter.release()

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        pools = urllib3.poolmanager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in pools.items()}
        return manager

    def begin(self) -> None:
        """Note that an exchange begins."""
        self._is_expired = False

    def hold(self, used: socket.socket) -> None:
        """Keep the socket of the exchange, or end it at once if its time is over."""
        self.release()
        self._socket = used.dup()
        if self._is_expired:
            self.interrupt()

    def release(self) -> None:
        """Forget the socket, which is closed."""
        kept, self._socket = self._socket, None
        if kept is not None:
            kept.close()

    def interrupt(self) -> None:
        """End the exchange."""
        self._is_expired = True
        used = self._socket
        if used is not None:
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)


class HttpClient:
    """A session that keeps one connection open, for one thread at a time.

    Parameters
    ----------
    connect_timeout : float
        Seconds until a connection to one address of a host is open.
    timeout : float
        Seconds of a whole exchange, from the connection to the last byte. Only the search for a host's addresses may
        take longer, since the system offers no bound for it.
    """

    def __init__(self, connect_timeout: float, timeout: float) -> None:
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._redact = Redact()
        self._adapter = _Adapter()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        _LOGS.add(self._redact)

    def close(self) -> None:
        self._session.close()
        self._adapter.release()
        _LOGS.remove(self._redact)

    def keep_secret(self, kind: str, secret: str) -> None:
        """Remove this secret from logs, errors and responses; it replaces the last one of its kind."""
        self._redact.register(kind, secret)

    def exchange(
        self,
        method: str,
        url: str,
        data: bytes | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 0,
    ) -> Response:
        """Send JSON and return the response, whatever its status.

        Parameters
        ----------
        method, url : str
        data : bytes, optional
        query, headers : mapping of str to str, optional
        limit : int
            Most bytes of the response's body; 0 does not read it.

        Raises
        ------
        Unreachable
            There is no complete response in time, or it is too large.
        """
        with self._deadline() as expired:
            response = self._request(method, url, data, query=query, headers=headers, limit=limit)
        # Raised outside of the handler, where no exception with the address is chained.
        if expired.is_set():  # what a connection that was cut gives may look complete
            raise Unreachable(f"no response within {self._timeout:g} s")
        if isinstance(response, str):
            raise Unreachable(response)
        return response

    def _request(
        self,
        method: str,
        url: str,
        data: bytes | None,
        *,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        limit: int,
    ) -> Response | str:
        """Return the response, or the reason why there is none."""
        try:
            with self._session.request(
                method,
                url,
                params=query,
                data=data,
                headers={"Content-Type": "application/json", **(headers or {})},
                timeout=(min(self._connect_timeout, self._timeout), self._timeout),
                allow_redirects=False,  # a redirect would send secrets to any host
                stream=True,
            ) as response:
                body = b""
                for part in response.iter_content(65_536) if limit else ():
                    body += part
                    if len(body) > limit:
                        return f"a response of more than {limit} bytes"
                announced = response.headers.get("Content-Length", "") if limit else ""
                if announced.isdigit() and "Content-Encoding" not in response.headers and len(body) < int(announced):
                    return "the response ended too early"
                clean = self._redact.clean(body.decode("utf-8", "replace")).encode()
                return Response(response.status_code, response.headers, clean)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return self._redact.clean(_reason(error))

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[threading.Event]:
        """Cut the connection if the response is late: a read timeout alone restarts with every byte."""
        expired = threading.Event()

        def cut() -> None:
            expired.set()
            self._adapter.interrupt()

        self._adapter.begin()
        timer = threading.Timer(self._timeout, cut)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()


def _reason(error: BaseException) -> str:
    """Return the reason without the address, which the messages of requests' exceptions hold."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror and not isinstance(seen, requests.RequestException):
            return seen.strerror
        inner = next((argument for argument in seen.args if isinstance(argument, BaseException)), None)
        seen = inner or getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
    if isinstance(error, requests.Timeout):
        return "no response in time"
    return type(error).__name__
