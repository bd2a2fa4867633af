"""Access to the page: checks of Host and Origin, a token beyond loopback, and headers that confine the page."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zmon._files import read_bounded
from zmon.errors import ConfigurationError
from zmon_collector.config.sections import WebSection

COOKIE = "zmon"
DEFAULT_BIND = "127.0.0.1:8787"
SHORTEST_TOKEN = 16
LONGEST_FILE = 16 * 2**10  # bytes of a file that holds a token
OPEN_PATHS = {"/", "/healthz", "/readyz", "/login"}  # without a token: the bare page contains no data
EMPTY = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # hash of a style element that a script fills
FOREIGN = "requests from other pages are refused"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def content_security_policy(script: str) -> str:
    """Return the Content-Security-Policy: own scripts and styles, and the style elements that plotly.js creates."""
    texts = re.findall(r"""createElement\("style"\)[^']{0,200}textContent='((?:[^'\\]|\\.)*)'""", script)
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]
    return (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        f"style-src 'self' '{EMPTY}' {' '.join(hashes)}; style-src-attr 'unsafe-inline'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def split_bind(bind: str) -> tuple[str, int]:
    """Split ``HOST:PORT``."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return whether a browser says that another site's page has made a request, which it cannot read but repeat."""
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _bytes(text: str) -> bytes:
    """Return the bytes of any string; JSON may hold halves of characters."""
    return text.encode("utf-8", "surrogatepass")


def _split(address: str) -> SplitResult:
    """Split an address; one that is none is empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_token(section: WebSection, environment: Mapping[str, str] = os.environ) -> str | None:
    """Read the token that viewers need, if any.

    Raises
    ------
    ConfigurationError
        The token is required and missing, cannot be read, or is too short to be a secret.
    """
    token = None
    if section.token_file is not None:
        try:
            token = read_bounded(section.token_file, LONGEST_FILE, secret=True).decode().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not a text file of at most 16 KiB"
            raise ConfigurationError(f"[web] token_file {section.token_file} cannot be read: {why}") from None
    elif section.token_env is not None:
        token = environment.get(section.token_env, "").strip()
        if not token:
            raise ConfigurationError(
                f"[web] token_env: the environment has no {section.token_env}; set it to the token"
            )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(
            f"[web] the token has {len(token)} characters; give at least {SHORTEST_TOKEN}, for instance from "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    host, _ = split_bind(section.bind or DEFAULT_BIND)
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"[web] bind = {section.bind!r} is open to the network: set token_file or token_env, or bind to 127.0.0.1"
        )
    return token


class Access(NamedTuple):
    """Access rules of the page: with a token or for everybody who can connect, under these host names.

    Any other host name is refused, so that a foreign name that resolves to this machine (DNS rebinding) gets nothing.
    """

    token: str | None
    hosts: set[str]


class Guard:
    """An ASGI layer in front of the application.

    Parameters
    ----------
    app : ASGI application
    access : Access
    policy : str
        The Content-Security-Policy.
    """

    def __init__(self, app: ASGIApp, access: Access, policy: str) -> None:
        self.app = app
        self._headers = {**HEADERS, "content-security-policy": policy}
        self._token, self._hosts = access
        self._session = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refuse(scope)
        await (refused or self.app)(scope, receive, sent)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        name = _split(f"//{host}").hostname or ""
        if name not in self._hosts and not is_loopback(name):
            return _no(403, f"this page is not served as {name!r:.80}; add the name to [web] hosts")
        origin, path = headers.get("origin"), scope["path"]
        if (origin is not None and _split(origin).netloc != host) or (path != "/" and is_foreign(headers)):
            return _no(403, FOREIGN)
        if path in OPEN_PATHS or path.startswith("/static/") or self.allows(headers):
            return None
        return _no(401, "a token is needed: Authorization: Bearer …, or log in on the page")

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token, or the cookie of a login."""
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.matches(given):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(_bytes(cookie.value), _bytes(self.cookie))

    def matches(self, given: str) -> bool:
        """Compare with the token in constant time."""
        return self._token is None or hmac.compare_digest(_bytes(given.strip()), _bytes(self._token))

    @property
    def cookie(self) -> str:
        """The cookie of a login: it does not reveal the token, and is void once the process ends."""
        return hmac.new(self._session, (self._token or "").encode(), sha256).hexdigest()


def refuse_foreign(app: ASGIApp) -> ASGIApp:
    """Return an application that answers no requests of other sites' pages."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        is_refused = scope["type"] == "http" and is_foreign(Headers(scope=scope))
        await (_no(403, FOREIGN) if is_refused else app)(scope, receive, send)

    return guarded


def _no(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status)
