"""The settings of a window, kept and read again."""

from __future__ import annotations

import tomllib
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.config import parse
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.window_policy import WindowPolicy, unpack

OPTIONS = """
[plugins.p]
whole = 123456789012345678901234567890
number = 1e300
text = "é\\n\\u0000"
since = 2026-01-02T03:04:05.000006+02:00
local = 2026-01-02T03:04:05
day = 2026-01-02
at = 03:04:05
nested = { list = [1, [2.5, true], { day = 2026-01-02 }] }
"""
POLICY = PolicyStore(parse(tomllib.loads(OPTIONS))).of("m").for_windows({"one": "a 1.0"}, {"one": "p"})


def test_every_value_of_toml_survives() -> None:
    again = unpack(POLICY.packed, {})
    assert again == POLICY
    assert again.digest == POLICY.digest
    options = again.options["one"]
    assert options["since"] == datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=2)))
    assert (options["day"], options["at"]) == (date(2026, 1, 2), time(3, 4, 5))
    assert options["nested"]["list"][2] == {"day": date(2026, 1, 2)}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_options_survive(options: dict[str, Any]) -> None:
    policy = WindowPolicy(metrics={"m": "1"}, options={"m": options})
    assert unpack(policy.packed, {}) == policy


def test_what_no_file_can_give_is_not_kept() -> None:
    policy = WindowPolicy(options={"m": {"call": print}})
    assert (policy.packed, policy.digest) == (b"", b"")
