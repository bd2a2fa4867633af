"""HTTP session to Anodot's API: bounded in time and size, and nothing that leaves it holds the token."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import requests
import urllib3
from requests.adapters import HTTPAdapter

from zmon_plugins.api.responses import Response, Unreachable
from zmon_plugins.api.target import ApiTarget

RESPONSE_LIMIT = 4 * 2**20  # bytes; a thousand errors are some 100 kB
LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry", "urllib3.connection")  # at DEBUG they log addresses


class Redact(logging.Filter):
    """Removes the token from log records."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._forms = {form: form for form in (token, quote(token, safe=""), quote_plus(token))}

    def register(self, kind: str, secret: str) -> None:
        """Remove this secret as well; it replaces the last one of its kind."""
        self._forms = {**self._forms, kind: secret}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = self.clean(text)
        if clean != text:
            record.msg, record.args = clean, ()
        return True

    def clean(self, text: str) -> str:
        for form in self._forms.values():
            text = text.replace(form, "***")
        return text


class _Adapter(HTTPAdapter):
    """Adapter that knows the socket in use, so that a watchdog can end a request whatever it waits for."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
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
                def connect(self) -> None:
                    super().connect()
                    adapter.socket = self.sock

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        pools = urllib3.poolmanager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in pools.items()}
        return manager

    def interrupt(self) -> None:
        used = self.socket
        if used is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(used, socket.SHUT_RDWR)  # of the plain socket: an SSL shutdown would wait


class Client:
    """HTTP client of one API, for one thread at a time.

    Parameters
    ----------
    target : ApiTarget
    token : str
    protocol : str
        Protocol of the samples: ``"anodot20"`` or ``"anodot30"``.
    """

    def __init__(self, target: ApiTarget, token: str, protocol: str = "anodot20") -> None:
        self._protocol = protocol
        self._target = target
        self._token = token
        self._redact = Redact(token)
        self._adapter = _Adapter()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self._redact)

    def close(self) -> None:
        self._session.close()
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self._redact)

    def send(self, samples: Sequence[Mapping[str, Any]]) -> Response:
        """Post samples; Unreachable if there is no complete response in time."""
        return self.post("/api/v1/metrics", samples)

    def post(self, path: str, body: Any) -> Response:
        """Post JSON with the token."""
        return self._exchange("POST", path, {"token": self._token, "protocol": self._protocol}, body, {})

    def request_as_bearer(self, method: str, path: str, query: Mapping[str, str], body: Any, bearer: str) -> Response:
        """Make a request with a bearer token instead."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return self._exchange(method, path, query, body, headers)

    def keep_secret(self, kind: str, secret: str) -> None:
        """Remove this secret, too, from logs, errors and responses."""
        self._redact.register(kind, secret)

    def _exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> Response:
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        with self._deadline() as expired:
            response = self._request(method, path, query, data, headers)
        if isinstance(response, str):  # raised outside of the handler, where no exception with the address is chained
            raise Unreachable(f"no response within {self._target.read_timeout:g} s" if expired.is_set() else response)
        return response

    def _request(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, headers: Mapping[str, str]
    ) -> Response | str:
        """Return the response, or the reason why there is none."""
        target = self._target
        try:
            with self._session.request(
                method,
                target.url + path,
                params=query,
                data=data,
                headers={"Content-Type": "application/json", **headers},
                timeout=(target.connect_timeout, target.read_timeout),
                allow_redirects=False,  # a redirect would send the token to any host
                stream=True,
            ) as response:
                body = b""
                for part in response.iter_content(65_536):
                    body += part
                    if len(body) > RESPONSE_LIMIT:
                        return f"a response of more than {RESPONSE_LIMIT} bytes"
                announced = response.headers.get("Content-Length", "")
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

        timer = threading.Timer(self._target.connect_timeout + self._target.read_timeout, cut)
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
