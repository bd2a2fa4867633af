"""One HTTP session to Anodot's API: bounded in time and size, and no text that leaves it holds the token."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import requests
import urllib3
from requests.adapters import HTTPAdapter

from zmon.errors import ZmonError
from zmon_plugins.api.target import ApiTarget

ANSWER_LIMIT = 4 * 2**20  # bytes; a thousand errors are some 100 kB
LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry", "urllib3.connection")  # at DEBUG they log addresses


class Unreachable(ZmonError):  # noqa: N818 - a state of the world, not a fault
    """There was no whole answer; the text says why and holds no address."""


class Response(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Redact(logging.Filter):
    """Takes the token out of log records."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._forms = {form: form for form in (token, quote(token, safe=""), quote_plus(token))}

    def add(self, what: str, secret: str) -> None:
        """One more to take out, in the place of the last of its kind."""
        self._forms = {**self._forms, what: secret}

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
    """An adapter that knows the socket in use, so that a watchdog can end a request whatever it waits for."""

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

        class Plain(urllib3.connection.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                adapter.socket = self.sock

        class Secure(urllib3.connection.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                adapter.socket = self.sock

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
        return manager

    def interrupt(self) -> None:
        used = self.socket
        if used is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(used, socket.SHUT_RDWR)  # not an SSL goodbye: that would wait, too


class Client:
    """Posts to one API. For one thread at a time.

    Parameters
    ----------
    target : ApiTarget
    token : str
    protocol : str
        Of the samples: ``"anodot20"`` or ``"anodot30"``.
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
        """Post samples; Unreachable when there is no whole answer in time."""
        return self.post("/api/v1/metrics", samples)

    def post(self, path: str, body: Any) -> Response:
        """Post JSON under the token."""
        return self._exchange("POST", path, {"token": self._token, "protocol": self._protocol}, body, {})

    def as_bearer(self, method: str, path: str, query: Mapping[str, str], body: Any, bearer: str) -> Response:
        """A request under a bearer token instead."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return self._exchange(method, path, query, body, headers)

    def keep_secret(self, what: str, secret: str) -> None:
        """Take this out of everything that is told, too; `what` names its kind."""
        self._redact.add(what, secret)

    def _exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> Response:
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        with self._deadline() as expired:
            answer = self._request(method, path, query, data, headers)
        if isinstance(answer, str):  # raised here: outside of the handler no exception that holds the address hangs on
            raise Unreachable(f"no answer within {self._target.read_timeout:g} s" if expired.is_set() else answer)
        return answer

    def _request(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, headers: Mapping[str, str]
    ) -> Response | str:
        """The answer, or why there is none."""
        target = self._target
        try:
            with self._session.request(
                method,
                target.url + path,
                params=query,
                data=data,
                headers={"Content-Type": "application/json", **headers},
                timeout=(target.connect_timeout, target.read_timeout),
                allow_redirects=False,  # the token would go wherever the answer points
                stream=True,
            ) as response:
                body = b""
                for part in response.iter_content(65_536):
                    body += part
                    if len(body) > ANSWER_LIMIT:
                        return f"an answer of more than {ANSWER_LIMIT} bytes"
                announced = response.headers.get("Content-Length", "")
                if announced.isdigit() and "Content-Encoding" not in response.headers and len(body) < int(announced):
                    return "the answer ended too early"
                return Response(
                    response.status_code, response.headers, self._redact.clean(body.decode("utf-8", "replace")).encode()
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return self._redact.clean(_reason(error))

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[threading.Event]:
        """Cut the connection when the answer is not there in time: a read timeout starts anew with every byte."""
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
    """Why, without the address that the texts of requests' exceptions hold."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror and not isinstance(seen, requests.RequestException):
            return seen.strerror
        inner = next((each for each in seen.args if isinstance(each, BaseException)), None)
        seen = inner or getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return type(error).__name__
