"""Connections that say nothing, do not read or do not end: each kind is closed, and counted by why."""

from __future__ import annotations

import errno
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from zmon_collector.dashboard.web import connections
from zmon_collector.dashboard.web.connections import descriptor_share
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.telemetry import Telemetry

from tests.support.waiting import until

LARGE = 8 * 2**20


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with as many bytes as the path says, after the whole request."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    left = int(scope["path"].strip("/") or 0)
    while left > 0:
        await send({"type": "http.response.body", "body": bytes(min(left, 65_536)), "more_body": True})
        left -= 65_536
    await send({"type": "http.response.body", "body": b"", "more_body": False})


Serve = Callable[..., tuple[WebServer, Telemetry]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[WebServer] = []

    def start(most: int = 64) -> tuple[WebServer, Telemetry]:
        telemetry = Telemetry()
        servers.append(WebServer(application, "127.0.0.1:0", "web", telemetry, most))
        servers[-1].start()
        return servers[-1], telemetry

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    opened: list[socket.socket] = []

    def make(server: WebServer, sent: bytes = b"") -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(60)
        one.connect((server.host, server.port))
        one.sendall(sent)
        opened.append(one)
        return one

    yield make
    for each in opened:
        each.close()


def request(path: str = "/", more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode()


def closed(telemetry: Telemetry, why: str) -> int:
    return telemetry.get("web_connections_closed", why)


def ended(one: socket.socket) -> bool:
    """Whether the server has closed a connection, after whatever it has sent."""
    try:
        return one.recv(65_536) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n",
    ],
    ids=["nothing", "half a header", "half a body", "a body without end"],
)
def test_a_request_that_does_not_end_ends_its_connection(
    sent: bytes, serve: Serve, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_LIMIT", 0.5)
    server, telemetry = serve()
    one = connect(server, sent)
    assert ended(one)
    assert closed(telemetry, "no_request") == 1


def test_a_peer_that_reads_nothing_is_closed_and_one_that_reads_slowly_is_not(
    serve: Serve, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_LIMIT", 1.0)
    server, telemetry = serve()
    connect(server, request(f"/{LARGE}"))
    slow = connect(server, request(f"/{LARGE}", "Connection: close\r\n"))
    read = 0
    while part := slow.recv(65_536):
        read += len(part)
        time.sleep(0.002)  # what a slow reader does
    assert read > LARGE
    until(lambda: closed(telemetry, "stalled") == 1, "the other to be closed")


def test_one_more_connection_than_there_are_places_closes_the_oldest_that_waits(
    serve: Serve, connect: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    server, telemetry = serve(4)
    idle = [connect(server) for _ in range(4)]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/").status_code == 200
        assert ended(idle[0])
        assert closed(telemetry, "crowded") == 1
        assert client.get("/").status_code == 200, "the newest are left"
    assert [record.getMessage() for record in caplog.records if "[web]" in record.getMessage()] == [
        "[web] all 4 connections are taken: those that send no request are closed"
    ]


def test_those_that_read_slowly_make_room_for_those_that_have_just_come(
    serve: Serve, connect: Callable[..., socket.socket]
) -> None:
    server, telemetry = serve(4)
    stalled = [connect(server, request(f"/{LARGE}")) for _ in range(4)]
    for each in stalled:
        each.recv(1)
    for _ in range(4):
        assert httpx.get(server.url, timeout=60).status_code == 200
    assert closed(telemetry, "crowded") == 1


def test_bytes_that_are_not_read_are_bounded_over_all_connections(
    serve: Serve, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_BYTES", 200_000)
    server, telemetry = serve()
    for _ in range(8):
        connect(server, request(f"/{LARGE}")).recv(1)
    until(lambda: closed(telemetry, "unread") >= 4, "those that have not read for longest to be closed")
    assert httpx.get(server.url, timeout=60).status_code == 200


def test_more_header_lines_than_anybody_sends_are_refused(serve: Serve, connect: Callable[..., socket.socket]) -> None:
    server, _ = serve()
    one = connect(server, request(more="a: b\r\n" * 190))
    assert one.recv(100).startswith(b"HTTP/1.1 200")
    one.sendall(request(more="a: b\r\n" * 190))
    assert one.recv(100), "it counts from request to request"
    other = connect(server, request(more="a: b\r\n" * 300))
    assert other.recv(100).startswith(b"HTTP/1.1 400")


def test_what_is_no_http_is_refused_also_in_the_middle_of_a_response(
    serve: Serve, connect: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    server, _ = serve()
    assert connect(server, b"\x16\x03\x01\x02\x00 no http\r\n\r\n").recv(100).startswith(b"HTTP/1.1 400")
    begun = connect(server, b"POST /100000000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    begun.recv(1)
    begun.sendall(b"no http\r\n\r\n" * 100)
    assert httpx.get(server.url, timeout=60).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_without_descriptors_there_is_one_line_and_connections_wait(
    serve: Serve, connect: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    server, telemetry = serve()
    waiting = socket.socket()
    waiting.settimeout(60)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as error:
            socket.socket()
        assert error.value.errno == errno.EMFILE
        waiting.connect((server.host, server.port))
        waiting.sendall(request())
        until(lambda: telemetry.get("web_errors", "OSError") > 1, "errors")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    lowest.close()
    assert waiting.recv(100).startswith(b"HTTP/1.1 200"), "it was accepted once there was a descriptor"
    waiting.close()
    lines = [record.getMessage() for record in caplog.records if "[web]" in record.getMessage()]
    assert lines == ["[web] connections wait: Too many open files; raise the limit of open files (ulimit -n)"]
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_the_share_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert descriptor_share(4) == 256
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptor_share(4) > 10_000
