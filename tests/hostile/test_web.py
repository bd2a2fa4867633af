"""Attacks on the page and on the probes: connections that take places, and requests that take time or memory."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import httpx
import pytest

import zmon
from tests.hostile.scene import ANSWER, Scene
from tests.support.ports import free_port
from tests.support.waiting import busy, until

FILES = 1024
IDLE = 1200
ATTACKERS = 400
MEMORY = 128 * 2**20  # bytes of what is not read of responses, twice; docs/operations.md has it


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Let the attacker have the sockets that it needs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Attack:
    """Many connections to one address, each of which sends the same bytes; those that are closed are made again.

    Parameters
    ----------
    url : str
    number : int
    first : bytes
        Sent by each connection at once.
    drip : bytes
        Sent by each connection now and again.
    """

    def __init__(self, url: str, number: int, first: bytes = b"", drip: bytes = b"") -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 0))
        self._number, self._first, self._drip = number, first, drip
        self._sockets: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.made = self.closed = 0

    def __enter__(self) -> Attack:
        self._thread.start()
        until(lambda: self.made >= self._number, "the connections of the attack")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for _ in range(min(100, self._number - len(self._sockets))):
                self._connect()
            for each in list(self._sockets):
                if not self._is_open(each):
                    each.close()
                    self._sockets.remove(each)
                    self.closed += 1

    def _connect(self) -> None:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(5.0)
        try:
            one.connect(self._address)
            one.sendall(self._first)
        except OSError:
            one.close()
            self.closed += 1
        else:
            one.setblocking(False)
            self._sockets.append(one)
        self.made += 1

    def _is_open(self, one: socket.socket) -> bool:
        if self._drip:
            with contextlib.suppress(OSError):
                one.send(self._drip)
        look = select.poll()
        look.register(one, select.POLLRDHUP)  # without reading what has come
        return not look.poll(0)


def answered(url: str, times: int = 20) -> None:
    """Assert that the page answers a new client in time, again and again; it may ask the client to come again."""
    slowest = 0.0
    for _ in range(times):
        began = time.monotonic()
        until(lambda: answers(url), f"an answer of {url}")
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < ANSWER * busy(), slowest


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def page_of(scene: Scene, path: str = "") -> str:
    return f"{scene.health['web']}{path}"


def scene_with_a_page(folder: Path) -> Scene:
    return Scene(folder, web=f'bind = "127.0.0.1:{free_port()}"', files=FILES)


def closed(scene: Scene, section: str) -> int:
    """Connections that the server of a section has closed."""
    counters = scene.health["counters"]
    return sum(count for name, count in counters.items() if name.startswith(f"{section}_connections_closed"))


def test_idle_connections_leave_descriptors_to_publishers_and_places_to_the_page(tmp_path: Path) -> None:
    with scene_with_a_page(tmp_path) as scene:
        scene.wait_for(lambda health: health["web"], "the page")
        with Attack(page_of(scene), IDLE) as page, Attack(scene.probe, IDLE) as probe:
            until(lambda: page.closed > IDLE // 2 and probe.closed > IDLE // 2, "closed connections")
            publishers = [
                zmon.Publisher("late", classes=2, collector=scene.collector.endpoint, agent_id=f"a{i}")
                for i in range(20)
            ]
            for publisher in publishers:
                publisher.publish([[0.5, 0.5]])
            assert all(publisher.flush(30 * busy()) for publisher in publishers)
            for publisher in publishers:
                publisher.close()
            answered(page_of(scene))
            answered(page_of(scene, "api/v1/models"))
            scene.wait_for(lambda _: closed(scene, "web") and closed(scene, "health"), "closed connections")
        lines = len(scene.collector.said().splitlines())
        assert lines < 60, f"{lines} lines"
    assert scene.grown < MEMORY, scene.grown


ENDLESS = {
    "headers without end": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X: y\r\n"),
    "an address without end": (b"GET /" + b"a" * 100_000, b"a"),
    "a body that drips": (b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000\r\n\r\n", b"x"),
    "large files that are not read": (b"GET /static/plotly.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b""),
    "many header lines": (b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 20_000 + b"\r\n", b""),
    "many requests in one piece": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3000, b""),
}


def test_requests_that_do_not_end_take_no_place(tmp_path: Path) -> None:
    with scene_with_a_page(tmp_path) as scene:
        scene.wait_for(lambda health: health["web"], "the page")
        for what, (first, drip) in ENDLESS.items():
            with Attack(page_of(scene), ATTACKERS, first, drip) as attack:
                until(lambda attack=attack: attack.closed > 100, f"closed connections: {what}")
                answered(page_of(scene), 5)
                answered(page_of(scene, "api/v1/models"), 5)
        scene.wait_for(lambda _: closed(scene, "web"), "closed connections")
    assert scene.grown < MEMORY, scene.grown


def test_views_that_others_pages_request_cost_nothing_and_single_views_are_bounded(tmp_path: Path) -> None:
    statuses: Counter[int] = Counter()
    with scene_with_a_page(tmp_path) as scene:
        scene.wait_for(lambda health: health["web"], "the page")
        url = page_of(scene, "api/v1/view?view=model&model=steady&to=")

        def ask(number: int, **headers: str) -> None:
            with contextlib.suppress(httpx.TransportError):
                statuses[httpx.get(f"{url}{number}", headers=headers, timeout=60).status_code] += 1

        with ThreadPoolExecutor(32) as browsers:
            list(browsers.map(lambda number: ask(number, **{"sec-fetch-site": "cross-site"}), range(60)))
        assert set(statuses) == {403}, statuses
        with ThreadPoolExecutor(32) as browsers:  # a browser that is too old to say whose page it shows
            asked = [browsers.submit(ask, 1_700_000_000 + number) for number in range(200)]
            answered(page_of(scene, "api/v1/health"), 5)
            for each in asked:
                each.result()
        assert statuses[200] and statuses[503], statuses
    assert scene.grown < MEMORY, scene.grown


def test_malformed_requests_get_a_sentence(tmp_path: Path) -> None:
    odd = [
        b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /api/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
        b"GET /api/v1/view?view=model&model=m&to=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (b"9" * 6000),
        b"GET /api/v1/points?model=m&what=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (b"a," * 50_000),
        b"GET /%00%ff%ed%a0%80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/models HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /api/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: zmon=\xff; \x01\r\n\r\n",
        b"GET /api/v1/models HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ]
    with scene_with_a_page(tmp_path) as scene:
        scene.wait_for(lambda health: health["web"], "the page")
        for port in (urlsplit(page_of(scene)).port, urlsplit(scene.probe).port):
            for request in odd:
                with socket.create_connection(("127.0.0.1", int(port or 0)), timeout=1) as one:
                    one.sendall(request)
                    status = b""
                    with contextlib.suppress(OSError):  # not a whole request, or one that is too long to be read
                        status = one.recv(100)
                    assert status == b"" or 200 <= int(status.split()[1]) < 500, (request[:80], status)
        events = b"GET /api/v1/events?view=overview HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: %s\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(urlsplit(page_of(scene)).port or 0)), timeout=60) as one:
            one.sendall(events % (b"9" * 6000))
            assert one.recv(100).startswith(b"HTTP/1.1 200")
        answered(page_of(scene), 3)
    assert "Traceback" not in scene.collector.said()
