"""Targets of notifications that misbehave: each is a server on loopback that treats every connection alike."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

OK = b"HTTP/1.1 200 OK\r\n"
GIGABYTES = 10 * 2**30


def read_request(one: socket.socket) -> bytes:
    """Read a request with its body."""
    read = b""
    while b"\r\n\r\n" not in read:
        part = one.recv(65_536)
        if not part:
            return read
        read += part
    head, _, body = read.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        part = one.recv(65_536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body


def drips(first: bytes, then: bytes = b"x", every: float = 0.3) -> Callable[[Target, socket.socket], None]:
    """Send something, and then a little now and again."""

    def serve(target: Target, one: socket.socket) -> None:
        one.sendall(first)
        while not target.stopped.wait(every):
            one.sendall(then)

    return serve


def floods(first: bytes, piece: bytes) -> Callable[[Target, socket.socket], None]:
    """Send something, and then without end."""

    def serve(target: Target, one: socket.socket) -> None:
        one.sendall(first)
        while not target.stopped.is_set():
            one.sendall(piece)

    return serve


def answers(head: bytes) -> Callable[[Target, socket.socket], None]:
    """Send one response and end."""

    def serve(target: Target, one: socket.socket) -> None:
        one.sendall(head + b"Content-Length: 0\r\nConnection: close\r\n\r\n")

    return serve


def is_silent(target: Target, one: socket.socket) -> None:
    """Send nothing."""
    target.stopped.wait()


class Target:
    """A server of one behaviour, from construction to `close`; a context manager.

    Attributes
    ----------
    url : str
    requests : list of bytes
        What came, whole.
    """

    def __init__(self, serve: Callable[[Target, socket.socket], None], *, reads: bool = True) -> None:
        self._serve, self._reads = serve, reads
        self.stopped = threading.Event()
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hooks/s3cret-{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._handle, args=(one,), daemon=True).start()

    def _handle(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            if self._reads:
                self.requests.append(read_request(one))
            self._serve(self, one)


MISBEHAVING = {
    "drips a body": drips(OK + b"Content-Length: 1000000\r\n\r\n"),
    "floods a body": floods(OK + b"Content-Length: %d\r\n\r\n" % GIGABYTES, bytes(2**20)),
    "drips a header": drips(OK + b"X-a: "),
    "has headers without end": floods(OK, b"X-a: b\r\n"),
    "has a header without end": floods(OK + b"X-a: ", b"b" * 65_536),
    "goes on being informal": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "is silent": is_silent,
    "is no HTTP": answers(b"220 mail.example ESMTP\r\n"),
    "redirects to a file": answers(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"),
}
DELIVERED = {"drips a body", "floods a body"}  # the status is there


@contextlib.contextmanager
def misbehaving(kinds: dict[str, Callable[[Target, socket.socket], None]]) -> Iterator[dict[str, Target]]:
    """Serve each kind."""
    with contextlib.ExitStack() as stack:
        yield {kind: stack.enter_context(Target(serve)) for kind, serve in kinds.items()}
