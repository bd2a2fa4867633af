"""Nobody looks who should not: host names, origins, tokens, headers."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from zmon_collector.config.sections import WebSection
from zmon_collector.dashboard.web import servers
from zmon_collector.dashboard.web.security import content_security_policy, is_loopback, load_token
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.telemetry import Telemetry

from tests.support.pages import Start, get
from zmon import ConfigurationError

TOKEN = "a-token-of-some-length"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:80"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "page.example"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": "http://["}, 403),
        ({"host": "["}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "[evil]:1"}, 403),
        ({"host": "127.0.0.1:99999999999999999999"}, 200),
    ],
)
def test_host_and_origin(paged: Start, headers: dict[str, str], status: int) -> None:
    url = paged(hosts=("page.example",)).service.site.url
    for path in ("", "api/v1/models", "healthz"):
        assert get(url + path, headers=headers).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_pages_may_link_to_the_page_and_nothing_else(paged: Start, site: str) -> None:
    collector = paged(health="127.0.0.1:0")
    url, probes = collector.service.site.url, collector.service.site.probes.url
    foreign = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    for path in ("api/v1/models", "api/v1/view?view=overview", "api/v1/events", "static/main.js", "metrics", "healthz"):
        answer = get(url + path, headers=foreign)
        assert (answer.status_code, "other pages" in answer.json()["error"]) == (403, True)
    assert get(f"{probes}metrics", headers=foreign).status_code == 403
    assert get(url, headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200
    for own in ("same-origin", "none"):
        assert get(f"{url}api/v1/models", headers={"sec-fetch-site": own}).status_code == 200


def test_the_pages_own_origin_is_allowed(paged: Start) -> None:
    url = paged().service.site.url
    assert get(f"{url}api/v1/models", headers={"origin": url.rstrip("/")}).status_code == 200


def test_a_token_is_required_for_everything_that_holds_data(paged: Start, secret: Path) -> None:
    url = paged(token_file=secret).service.site.url
    for path in ("api/v1/models", "api/v1/health", "api/v1/events?view=health", "openapi.json", "api/v1/unknown"):
        assert get(url + path).status_code == 401
        assert get(url + path, headers={"authorization": "Bearer wrong"}).status_code == 401
    for path in ("", "healthz", "static/main.js", "static/plotly.js"):
        assert get(url + path).status_code == 200
    good = {"authorization": f"Bearer {TOKEN}"}
    assert get(f"{url}api/v1/models", headers=good).status_code == 200
    assert TOKEN not in get(f"{url}api/v1/health", headers=good).text


def test_a_login_gives_a_cookie_that_is_not_the_token(paged: Start, secret: Path) -> None:
    with httpx.Client(base_url=paged(token_file=secret).service.site.url, timeout=30) as browser:
        assert browser.post("/login", json={"token": "wrong"}).status_code == 401
        assert browser.post("/login", content=b"{").status_code == 401
        assert browser.post("/login", content=b"x" * 5000).status_code == 413
        for odd in (b"[" * 4000, b"\xff", b"\x00", b'{"token": 1e999}', b'"token"', b'{"token": "\\ud800"}'):
            assert browser.post("/login", content=odd).status_code == 401
        assert browser.get("/api/v1/models").status_code == 401
        answer = browser.post("/login", json={"token": TOKEN})
        assert answer.status_code == 204
        assert all(part in answer.headers["set-cookie"] for part in ("HttpOnly", "SameSite=strict"))
        assert TOKEN not in answer.headers["set-cookie"]
        assert browser.get("/api/v1/models").status_code == 200


def test_headers_keep_the_page_in(paged: Start) -> None:
    url = paged().service.site.url
    for path in ("", "static/main.js", "api/v1/models", "api/v1/points"):
        headers = get(url + path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in headers["content-security-policy"].replace("style-src-attr 'unsafe-inline'", "")


@pytest.mark.parametrize(
    "path", ["static/../app.py", "static/%2e%2e/app.py", "static//etc/passwd", "static/..%2fapp.py"]
)
def test_only_the_pages_files_are_served(paged: Start, path: str) -> None:
    assert get(paged().service.site.url + path).status_code in (404, 405)


def test_style_elements_of_plotly_are_known_by_hash() -> None:
    made = content_security_policy("""e=document.createElement("style");e.id="x",e.textContent='a{b:c}';""")
    assert f"'sha256-{b64encode(sha256(b'a{b:c}').digest()).decode()}'" in made
    assert content_security_policy("").count("sha256-") == 1


@pytest.mark.parametrize(
    ("section", "environment", "says"),
    [
        (WebSection(bind="0.0.0.0:8787"), {}, "open to the network"),
        (WebSection(bind="[::]:8787"), {}, "open to the network"),
        (WebSection(token_env="T"), {}, "the environment has no T"),
        (WebSection(token_env="T"), {"T": "short"}, "5 characters"),
        (WebSection(token_file=Path("/nowhere")), {}, "cannot be read"),
    ],
)
def test_a_missing_or_weak_token_is_refused(section: WebSection, environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as error:
        load_token(section, environment)
    assert "short" not in str(error.value)


def test_beyond_loopback_with_a_token(secret: Path) -> None:
    assert load_token(WebSection(bind="0.0.0.0:8787", token_file=secret)) == TOKEN
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "localhost.evil", "0.0.0.0", "")))


def test_a_taken_port_is_reported(paged: Start) -> None:
    taken = paged().service.site.url.removeprefix("http://").rstrip("/")
    with pytest.raises(ConfigurationError, match=r"\[web\] bind = '127.*cannot bind.*--web"):
        WebServer(Starlette(), taken, "web", Telemetry())


def test_the_usual_port_gives_way_to_any_free_one(paged: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = paged(folder="first").service.site.url
    monkeypatch.setattr(servers, "DEFAULT_BIND", taken.removeprefix("http://").rstrip("/"))
    second = paged(folder="second", bind=None).service.site.url
    assert second != taken
    assert get(f"{second}healthz").status_code == 200
