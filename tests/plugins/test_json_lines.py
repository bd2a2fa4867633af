"""Lines put together from parts are those that the encoder makes of each sample, and what is refused is the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from zmon_plugins import json_lines as module
from zmon_plugins.anodot import LegalNames, refusal, samples
from zmon_plugins.json_lines import lines

from zmon.contract import Point, Report, Value, Window
from zmon.testing import example_report

NAMES = ["", "a", "a.b", "a=b", "a_b", "x" * 149 + "ü", "x" * 160, '","ver":"1', "\ud800", "\\", "ver", "0}"]
NUMBERS: list[Any] = [0, 3, True, -1.5, 1e300, 5e-324, np.float32(0.1), np.int64(7), np.float64(2.0)]
WRONG: list[Any] = [float("nan"), float("inf"), 10**400, -(10**400)]
NOW = 1000.0

texts = st.sampled_from(NAMES)
named = texts.filter(bool)
values = st.builds(
    Value,
    what=named,
    value=st.sampled_from(NUMBERS) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(WRONG),
    class_name=texts,
    feat_name=texts,
    stat=texts,
    reason=texts,
    target_type=st.sampled_from(["", "gauge", "counter", "other"]),
)


def one_by_one(report: Report, fixed: dict[str, str]) -> tuple[list[str], list[Any]]:
    """The oracle: each sample made, checked and encoded by itself."""
    good, refused = [], []
    for sample in samples(report, LegalNames(), fixed=fixed):
        found = refusal(sample, NOW)
        if found is None:
            good.append(json.dumps(sample, separators=(",", ":"), allow_nan=False))
        else:
            refused.append(found)
    return good, refused


@given(
    points=st.lists(st.builds(Point, agent_id=st.none() | named, value=values), max_size=8),
    start=st.sampled_from([0, 60, 9000]),
    version=texts,
    tags=st.dictionaries(named, st.dictionaries(texts, texts, max_size=2), max_size=2),
    fixed=st.sampled_from([{}, {"env": "prod"}, {"stat": "taken"}, {f"k{i}": "v" for i in range(9)}]),
)
@example([Point(None, Value("accuracy", float("nan"))), Point("a", Value("accuracy", 1.0))], 0, "", {}, {})
def test_parts_make_the_same_lines(
    points: list[Point], start: int, version: str, tags: dict[str, dict[str, str]], fixed: dict[str, str]
) -> None:
    report = Report(1, "m=1", version, Window(start, start + 60), points, tags=tags)
    found = lines(report, LegalNames(), NOW, fixed)
    good, refused = one_by_one(report, fixed)
    assert found.good == good
    assert [(each.code, each.sample["properties"]) for each in found.refused] == [
        (each.code, each.sample["properties"]) for each in refused
    ]


def test_a_sound_report_is_put_together_from_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_one_by_one", None)  # the long way is not taken
    report = example_report()
    assert len(lines(report, LegalNames(), 1e12).good) == len(report.points)


def test_a_name_that_two_names_become_stays_apart_from_one_window_to_the_next() -> None:
    names = LegalNames()
    first, second = (
        Report(1, "m", "", Window(0, 60), [Point(None, Value("mean", 1.0, feat_name=name))]) for name in ("a.b", "a_b")
    )
    assert '"feat_name":"a_b"' in lines(first, names, NOW).good[0]
    assert '"feat_name":"a_b"' in lines(second, names, NOW).good[0]
    assert '"feat_name":"a_b_' in lines(first, names, NOW).good[0]
