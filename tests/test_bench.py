"""The committed figures are those of the page, and bench-check tells better from worse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import check, forms, measure, peers, performance, rate, suite, targets
from tests.bench.given import FORMS


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


def test_a_target_without_its_measurement_is_not_measured() -> None:
    assert {row[-1] for row in targets.show({}).rows} == {"not measured"}


def test_a_median_has_an_interval() -> None:
    found = [measure.interval(np.random.default_rng(seed).normal(size=60)) for seed in range(400)]
    assert 0.93 <= np.mean([low <= 0.0 <= high for low, high in found]) <= 0.99


def test_each_contender_has_its_calls_and_the_wait_is_not_in_its_times() -> None:
    calls: list[str] = []
    found = measure.costs(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, {"a": 3, "b": 1},
        lambda: calls.append("wait"),
    )  # fmt: skip
    assert calls == ["a", "a", "a", "wait", "b", "wait"] * 3
    assert [len(found[name].times) for name in "ab"] == [6, 2]


@pytest.mark.integration
def test_capture_by_form_measures_every_form(tmp_path: Path) -> None:
    found = forms.run(tmp_path, quick=True)
    assert {row["form"] for row in found["calls"]} == {row["form"] for row in found["watch"]} == set(FORMS)
    assert all(row["p50_us"] > 0 and row["cold_p50_us"] > 0 and row["of_raw"] > 0 for row in found["calls"])
    for table in forms.show(found):
        assert all(len(row) == len(table.head) for row in table.rows)


@pytest.mark.integration
def test_the_rate_measures_another_checkout_in_turn(tmp_path: Path) -> None:
    here = Path(__file__).parents[1]
    found = rate.run(tmp_path, quick=True, checkouts={"this": here, "the other": here})
    assert [row["zmon"] for row in found] == ["this", "the other"]
    assert all(len(row) == 3 for row in rate.show(found)[0].rows)


def test_figures_of_the_peers_have_both_parts() -> None:
    assert peers.PARTS.keys() == peers.kept().keys()
