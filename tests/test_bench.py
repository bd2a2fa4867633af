"""The committed figures are those of the page, and bench-check tells better from worse."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.bench import check, performance, suite, targets


@pytest.fixture
def old() -> dict[str, Any]:
    return {
        "capture": [{"what": "publish", "shape": "1×(2+10)", "of_raw": 0.7, "of_memcpy": 40.0}],
        "collector": [{"features": 20, "rows_a_message": 32, "journal": "on", "of_numpy": 0.3}],
        "scaling": [{"units": "spans", "growth": 1.1}],
    }


def test_the_page_holds_the_committed_figures() -> None:
    text = performance.PAGE.read_text()
    assert text == performance.page(text, suite.kept()), "docs/performance.md differs from the figures: make docs"


def test_nothing_is_worse_than_itself(old: dict[str, Any]) -> None:
    assert not check.worse(old, old)
    assert len(list(check.ratios(old))) == 4


def test_what_got_worse_is_named_and_noise_is_not(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    new["capture"][0]["of_raw"] *= 1.5
    new["collector"][0]["of_numpy"] /= 1.5
    assert not check.worse(old, new)
    new["capture"][0]["of_raw"] *= 1.2
    new["collector"][0]["of_numpy"] /= 1.2
    found = check.worse(old, new)
    assert [each.measurement for each, _, _ in found] == ["capture", "collector"]
    assert all(factor == pytest.approx(1.8) for _, _, factor in found)


def test_what_got_better_is_not_worse(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    new["capture"][0]["of_raw"] /= 3
    new["collector"][0]["of_numpy"] *= 3
    assert not check.worse(old, new)


def test_a_target_is_reached_or_not() -> None:
    (start,) = (each for each in targets.TARGETS if each.text.startswith("import"))
    assert start.reached({"start": {"zmon_ms": 29.0}})
    assert not start.reached({"start": {"zmon_ms": 31.0}})
    (rows,) = (each for each in targets.TARGETS if "1,000 rows a message" in each.text)
    case = {"features": 20, "rows_a_message": 1000, "journal": "on", "rows_per_second": 9e5}
    assert not rows.reached({"collector": [case]})
    assert rows.reached({"collector": [case | {"rows_per_second": 1.1e6}]})
