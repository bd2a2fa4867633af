"""The page's own files, held in memory: none is looked up by what a request names, and sending one takes no thread."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

PIECE = 65_536  # bytes that are written at a time
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset:
    """One file. An ASGI application.

    Parameters
    ----------
    path : Path
    cache : str
        The header Cache-Control. By default browsers must revalidate: the page's files change with the release.
    """

    def __init__(self, path: Path, cache: str = "no-cache") -> None:
        self.content = path.read_bytes()
        self._tag = f'"{sha256(self.content).hexdigest()[:32]}"'
        headers = {
            "content-type": MEDIA_TYPES[path.suffix],
            "content-length": str(len(self.content)),
            "cache-control": cache,
            "etag": self._tag,
        }
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._tag in Headers(scope=scope).get("if-none-match", "")
        headers = [pair for pair in self._headers if not known or pair[0] in (b"etag", b"cache-control")]
        await send({"type": "http.response.start", "status": 304 if known else 200, "headers": headers})
        for start in range(0, 0 if known else len(self.content), PIECE):
            await send({"type": "http.response.body", "body": self.content[start : start + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
