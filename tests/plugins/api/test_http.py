"""The HTTP client: a whole exchange is bounded, nothing is followed, nothing leaks."""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest
from zmon_plugins.http.client import HttpClient, Redact
from zmon_plugins.http.response import Unreachable, retry_after

from tests.support.targets import DELIVERED, MISBEHAVING, OK, Target, answers, drips, floods, read_request
from tests.support.waiting import busy

TIMEOUT = 1.0


def exchange(url: str, limit: int = 0, timeout: float = TIMEOUT) -> int:
    http = HttpClient(timeout, timeout)
    http.keep_secret("the address", url)
    try:
        return http.exchange("POST", url, b"{}", limit=limit).status
    finally:
        http.close()


@pytest.mark.parametrize("kind", MISBEHAVING)
def test_an_exchange_ends_in_time_whatever_the_server_does(kind: str) -> None:
    with Target(MISBEHAVING[kind]) as target:
        began = time.monotonic()
        if kind in DELIVERED:
            assert exchange(target.url) == 200
        elif kind == "redirects to a file":
            assert exchange(target.url) == 302
        else:
            with pytest.raises(Unreachable) as error:
                exchange(target.url)
            assert target.url not in str(error.value)
        assert time.monotonic() - began < (TIMEOUT + 2.0) * busy()


def test_a_tls_handshake_that_drips_ends_in_time() -> None:
    hello = b"\x16\x03\x03\x40\x00"  # a record of 16 KiB, of which little comes
    with Target(drips(hello, b"\x00", 0.1), reads=False) as target:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no response within 1 s"):
            exchange(target.url.replace("http:", "https:"))
        assert time.monotonic() - began < (TIMEOUT + 2.0) * busy()


def test_a_body_is_bounded_in_time_and_size() -> None:
    with (
        Target(drips(OK + b"Content-Length: 1000000\r\n\r\n")) as target,
        pytest.raises(Unreachable, match="within 1 s"),
    ):
        exchange(target.url, limit=2**20)
    large = floods(OK + b"Content-Length: 1000000000\r\n\r\n", bytes(2**16))
    with Target(large) as target, pytest.raises(Unreachable, match="more than 1048576 bytes"):
        exchange(target.url, limit=2**20, timeout=60.0)


def test_a_redirect_is_not_followed() -> None:
    with Target(answers(OK)) as other:
        with Target(answers(b"HTTP/1.1 307 Moved\r\nLocation: %s\r\n" % other.url.encode())) as target:
            assert exchange(target.url) == 307
        assert not other.requests


def test_proxies_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Target(answers(OK)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert exchange("http://hooks.invalid/a") == 200
        assert proxy.requests[0].startswith(b"POST http://hooks.invalid/a HTTP/1.1\r\n")


def test_nothing_of_an_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Target(answers(OK)) as target:
        http = HttpClient(TIMEOUT, TIMEOUT)
        http.keep_secret("the path", f"hooks/s3cret-{target.port}")
        http.exchange("POST", target.url, b"{}")
        http.close()
    assert "s3cret" not in caplog.text
    assert "POST /*** HTTP/1.1" in caplog.text, "the library does log"


def test_secrets_are_removed_in_every_form() -> None:
    redact = Redact()
    redact.register("a", "x y/z")
    redact.register("nothing", "")
    assert redact.clean("x y/z, x%20y%2Fz, x+y%2Fz") == "***, ***, ***"


def test_a_connection_is_kept_and_leaves_no_descriptor() -> None:
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def serve(target: Target, one: socket.socket) -> None:
        one.sendall(kept)
        while read_request(one):
            one.sendall(kept)

    with Target(serve) as target:
        http = HttpClient(TIMEOUT, 60.0)
        for _ in range(3):
            assert http.exchange("POST", target.url, b"{}", limit=100).status == 200
        assert target.connections == 1
        http.close()


def test_one_client_ends_while_others_are_at_work() -> None:
    """Their log records are still cleaned: the filter is shared."""
    with Target(answers(OK)) as target:
        done: list[int] = []
        threads = [threading.Thread(target=lambda: done.append(exchange(target.url, timeout=60.0))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [200] * 8


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), (" 7 ", 7.0), ("9" * 5000, 86_400.0), ("٧", 0.0), ("-1", 0.0), ("", 0.0), (None, 0.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0), ("Thu, 01 Jan 99999 00:01:00 GMT", 0.0), ("nan", 0.0),
    ],
    ids=range(10),
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float) -> None:
    assert retry_after(value, 0.0) == seconds
