"""Collectors with a live page, clients and viewers of it, and a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from zmon_collector.config import Config
from zmon_collector.config.sections import HealthSection, WebSection

from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.pages import Look, Start, Viewer

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def paged(collect: Start) -> Start:
    """Start collectors with a page on a free port; further keyword arguments are those of [web]."""

    def start(*, folder: str = "data", health: str | None = None, window: int = 60, **web: Any) -> Collector:
        section = WebSection(**{"bind": "127.0.0.1:0", **web})
        return collect(config=Config(web=section, health=HealthSection(bind=health)), folder=folder, window=window)

    return start


@pytest.fixture
def client() -> Iterator[Callable[[Collector], httpx.Client]]:
    opened: list[httpx.Client] = []

    def connect(collector: Collector, **options: Any) -> httpx.Client:
        made = httpx.Client(base_url=collector.service.site.url, timeout=60, **options)
        opened.append(made)
        return made

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def look() -> Iterator[Look]:
    viewers: list[Viewer] = []

    def start(*given: Any, **options: Any) -> Viewer:
        viewers.append(Viewer(*given, **options))
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.socket.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = require("playwright.sync_api")
    if not Path(CHROMIUM).exists() and not os.environ.get("ZMON_REQUIRE_ALL"):
        pytest.skip(f"no {CHROMIUM}")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()
