"""Every view, the report and the notebook's figures: they can be used without seeing them, and names are only text.

The rules are those of axe-core for the levels A and AA of WCAG.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from zmon_collector.cli.main import cli
from zmon_plugins.sinks.anodot_file import AnodotFile

import zmon
from tests.collector.dashboard.test_page import VIEWS, opened, served
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.reports import window
from zmon import notebook

__all__ = ["opened", "served"]  # fixtures of the page's tests
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
DID = "document.documentElement.dataset.evil='yes'"
NAMES = [
    f'<img src=x onerror="{DID}">',
    f"<svg/onload={DID}>",
    f"</script><script>{DID}</script>",
    f"</style><script>{DID}</script>",
    f"\"'><script>{DID}</script>",
    f'<a href="javascript:{DID}">a</a>',
    f"<!--<script>{DID}",
    f"%{{customdata}}<br>${{{DID}}}",
    "\u2028\u2029\u202e",
]


def violations(page: Any) -> list[str]:
    """What axe finds: the rule, and where."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run(document, {{runOnly: {json.dumps(LEVELS)}}})")["violations"]
    return [f"{each['id']}: {[node['target'] for node in each['nodes']][:3]}" for each in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view(
    served: Collector, opened: Callable[..., Any], view: str, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = {"state": "firing", "model": "m", "version": "", "text": "confidence fell", "since": 0, "value": 0.3}
    alert |= {"severity": "critical", "rule": "r", "until": None}
    monkeypatch.setattr(served.service.live, "alerts", lambda: [alert])
    page = opened(served, VIEWS[view].format(model="m", feature="age"), color_scheme=theme, bypass_csp=True)
    page.wait_for_selector(".main-svg" if view in ("model", "series") else "main table")
    assert violations(page) == []


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Files of a model whose names are all of those above."""
    require("pandas")
    sink = AnodotFile(tmp_path / "files", 1e9)
    sink.open()
    for i in range(6):
        sink.write(
            window(i + 1, 1_700_000_000 + 10 * i, model=NAMES[0], version=NAMES[1], features=tuple(NAMES),
                   classes=tuple(NAMES), agents=tuple(NAMES[:3]))
        )  # fmt: skip
    return tmp_path / "files"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_report(written: Path, tmp_path: Path, browser: Any, theme: str) -> None:
    out = tmp_path / "report.html"
    cli.main(["report", str(written), "--out", str(out), "--title", NAMES[2]], standalone_mode=False)
    page = browser.new_page(color_scheme=theme)
    page.goto(out.as_uri())
    page.wait_for_selector(".main-svg")
    assert page.evaluate("document.documentElement.dataset.evil") is None
    assert page.locator("body img, svg a").count() == 0
    assert violations(page) == []
    page.close()


def test_the_notebooks_figures(written: Path, browser: Any) -> None:
    view = notebook.ModelView(zmon.read_points(written))
    figures = [view.figure(name) for name in view] + [view.feature(name) for name, _ in view.movers()]
    page = browser.new_page()
    drawn = 0
    for figure in figures:
        if figure is not None:
            page.set_content(figure.to_html(include_plotlyjs=True))
            page.wait_for_selector(".main-svg")
            assert page.evaluate("document.documentElement.dataset.evil") is None
            assert page.locator("body img").count() == 0
            drawn += 1
    assert drawn > 6
    page.close()
