"""The readers of options: one spelling of durations and sizes, and errors that say what, got and fix."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmon import options
from zmon.errors import ConfigurationError

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@given(st.integers(0, 36_500), st.sampled_from(sorted(SECONDS)))
def test_a_duration_is_a_number_and_a_unit(amount: int, unit: str) -> None:
    assert options.duration(f"{amount}{unit}") == amount * SECONDS[unit]


@given(st.text(max_size=8) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.text()))
def test_whatever_is_given_is_read_or_refused_with_its_value(value: Any) -> None:
    for reader in (options.duration, options.positive_duration, options.positive, options.whole, options.size,
                   options.number, options.flag, options.text, options.texts, options.one_of("a", "b")):  # fmt: skip
        try:
            reader(value)
        except ValueError as error:
            assert repr(value)[:60] in str(error)


@pytest.mark.parametrize("value", ["5", "m", "5 m", "-5m", "5M", "1h30m", "", 5, 5.0, None, True, ["5m"]])
def test_anything_else_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it as"):
        options.duration(value)


@pytest.mark.parametrize("value", ["36501d", "1000000h", f"{'9' * 400}s"])
def test_a_duration_is_no_longer_than_dates_can_hold(value: str) -> None:
    assert options.duration("36500d") == 36_500 * 86_400
    with pytest.raises(ValueError, match="is longer than a hundred years; write at most"):
        options.duration(value)


@pytest.mark.parametrize("reader", [options.positive, options.whole, options.size])
def test_a_number_is_no_larger_than_files_can_hold(reader: Any) -> None:
    assert reader(2**53) == 2**53
    for value in (2**53 + 1, 2**64, 10**4000):
        with pytest.raises(ValueError, match="is above 9,007,199,254,740,992; write a smaller number"):
            reader(value)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_a_size_is_a_whole_number_of_bytes(value: Any) -> None:
    assert options.size(2**40) == 2**40
    with pytest.raises(ValueError, match="is not a size; write bytes"):
        options.size(value)


def test_a_table_is_read_by_its_declared_keys() -> None:
    readers = {"keep": options.duration, "agents": options.flag}
    assert options.read_options({}, readers, "[sinks.mine]") == {}
    assert options.read_options({"keep": "1h"}, readers, "[sinks.mine]") == {"keep": 3600.0}
    for table, says in (
        ({"agent": True}, "[sinks.mine] has an unknown key 'agent'; did you mean 'agents'?"),
        ({"x": 1}, "[sinks.mine] has an unknown key 'x'; use one of agents, keep"),
        ({"agents": 1}, "[sinks.mine] agents: 1 is neither true nor false"),
        ("keep", "[sinks.mine] is not a table"),
    ):
        with pytest.raises(ConfigurationError) as error:
            options.read_options(table, readers, "[sinks.mine]")
        assert str(error.value) == says
