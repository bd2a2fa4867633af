"""Collectors with a live page, what they answer, and viewers of their events."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.support.collectors import Collector
from zmon import Report

Start = Callable[..., Collector]


def open_window() -> tuple[int, int]:
    """Start and length of a window that has begun and does not end during a test, at whatever minute it runs."""
    now = time.time()
    return next((int(now // length) * length, length) for length in range(3600, 86_400) if 600 < now % length < 3000)


def get(url: str, **options: Any) -> httpx.Response:
    """An answer of the page, which may take its time."""
    return httpx.get(url, timeout=60, **options)


def shown(collector: Collector, *reports: Report) -> None:
    """Let the page have these reports, as if their windows had closed now."""
    for report in reports:
        collector.service.live.record(report)


class Viewer:
    """One who looks, over a socket of its own; reads only when told to."""

    def __init__(self, collector: Collector, query: str, last: int | None = None, receive_buffer: int = 0) -> None:
        page = collector.service.site.page
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((page.host, page.port))
        resume = f"Last-Event-ID: {last}\r\n" if last is not None else ""
        self.socket.sendall(f"GET /api/v1/events?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{resume}\r\n".encode())
        self.socket.settimeout(60)
        self._buffer = b""

    def events(self) -> Iterator[tuple[int, dict[str, Any]]]:
        while True:
            while b"\n\n" not in self._buffer:
                read = self.socket.recv(65536)
                if not read:
                    return
                self._buffer += read
            event, _, self._buffer = self._buffer.partition(b"\n\n")
            if b"event: view" in event:
                number = int(event.partition(b"id: ")[2].split(b"\n")[0])
                # Chunked transfer puts lengths between events, not within one.
                yield number, json.loads(event.partition(b"data: ")[2])

    def next(self) -> tuple[int, dict[str, Any]]:
        return next(self.events())

    def silent(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.next()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(60)
        return False


Look = Callable[..., Viewer]
