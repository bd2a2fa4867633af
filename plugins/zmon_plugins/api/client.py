"""The requests of Anodot's API: samples with the token, others with a bearer token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zmon_plugins.api.target import ApiTarget
from zmon_plugins.http.client import HttpClient
from zmon_plugins.http.response import Response

RESPONSE_LIMIT = 4 * 2**20  # bytes; a thousand errors are some 100 kB


class Client:
    """HTTP client of one API, for one thread at a time. Its methods raise `Unreachable` without a complete response.

    Parameters
    ----------
    target : ApiTarget
    token : str
    protocol : str
        Protocol of the samples: ``"anodot20"`` or ``"anodot30"``.
    """

    def __init__(self, target: ApiTarget, token: str, protocol: str = "anodot20") -> None:
        self._url = target.url
        self._token = token
        self._protocol = protocol
        self._http = HttpClient(target.connect_timeout, target.connect_timeout + target.read_timeout)
        self._http.keep_secret("the token", token)

    def close(self) -> None:
        self._http.close()

    def send(self, samples: Sequence[Mapping[str, Any]]) -> Response:
        """Post samples."""
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
        self._http.keep_secret(kind, secret)

    def _exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> Response:
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        return self._http.exchange(method, self._url + path, data, query=query, headers=headers, limit=RESPONSE_LIMIT)
