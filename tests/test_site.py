"""The pages of docs/: what they say to type is typed, their links lead somewhere, the site holds all of them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.frameworks import require

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
ELSEWHERE = {"wire"}  # its client is run by tests/client/wire/test_wire_page.py, without zmon
NEEDS = {"watching": ("pandas", "tensorflow", "torch"), "servers": ("tensorflow",)}


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.stem not in ELSEWHERE], ids=lambda page: page.stem
)
@pytest.mark.filterwarnings("ignore")
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the page's order, later blocks after earlier ones; no collector is there, and nobody cares."""
    for name in NEEDS.get(page.stem, ()):
        require(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZMON_COLLECTOR", "ipc:///nonexistent/zmon")
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if page.stem == "servers":
        asyncio.run(_in_lifespan(names))
    publishers = [each for each in names.values() if type(each).__name__ == "Publisher"]
    agents = [each._publisher for each in names.values() if type(each).__name__ == "MonitoringAgent"]
    for publisher in publishers + agents:
        assert not publisher.stats.rejected, (page.stem, publisher.stats)
        assert publisher.stats.published or publisher.stats.dropped
        publisher.close(0)


async def _in_lifespan(names: dict[str, Any]) -> None:
    import numpy as np

    async with names["lifespan"](None):
        names["served"]["digits"](np.ones((2, 64), np.float32))


def test_every_code_block_says_what_it_is() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.M)
        assert set(fences[::2]) <= {"python", "sh", "text", "toml"}, page.name


@pytest.mark.system  # it uses the ports that the page names
def test_the_quick_start_does_what_it_says() -> None:
    script = ROOT / "tests/wheel/quickstart.py"
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "docs/quickstart.md")],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Links(HTMLParser):
    """What a page refers to, and the places it offers to be referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)
                if tag in ("script", "link", "img"):
                    self.loaded.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Links]:
    require("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {}
    for path in folder.rglob("*.html"):
        pages[str(path.relative_to(folder))] = links = Links()
        links.feed(path.read_text())
    pages |= {str(path.relative_to(folder)): Links() for path in folder.rglob("*") if path.suffix != ".html"}
    return pages


def test_the_site_holds_every_page(site: dict[str, Links]) -> None:
    assert {f"{page.stem}.html" for page in PAGES} <= site.keys()


def test_links_of_the_site_lead_somewhere(site: dict[str, Links]) -> None:
    checked = 0
    for name, page in site.items():
        if name == "404.html":  # its links are absolute, from the site's root
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            path = unquote(parts.path)
            found = str(Path(name).parent / path) if path else name
            assert found in site or found == ".", f"{name} links to {target}"
            if parts.fragment and found.endswith(".html"):
                assert unquote(parts.fragment) in site[found].ids, f"{name} links to {target}"
            checked += 1
    assert checked > 200


def test_the_site_loads_nothing_from_elsewhere(site: dict[str, Links]) -> None:
    for name, page in site.items():
        assert not [each for each in page.loaded if urlsplit(each).netloc], name


def test_the_threat_model_names_tests_that_there_are() -> None:
    section = (ROOT / "SECURITY.md").read_text().partition("## Threat model")[2].partition("\n## ")[0]
    table = re.findall(r"^\|.*\|$", section, re.M)[2:]
    named = [re.findall(r"`(tests/[^`]+)`", row) for row in table]
    assert named and all(named), "every surface is held by a test"
    assert [path for paths in named for path in paths if not (ROOT / path).exists()] == []
