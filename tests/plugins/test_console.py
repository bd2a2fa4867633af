"""The console sink: a line a point, chosen by globs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from zmon_plugins.sinks.console import Console, register_sinks

from zmon.errors import ConfigurationError
from zmon.testing import check_sink, example_report


def test_the_sink_keeps_the_contract() -> None:
    check_sink(Console(stream=io.StringIO()))


def test_a_line_a_point() -> None:
    stream = io.StringIO()
    Console(["acc*", "buffer_count"], stream=stream).write(example_report())
    assert stream.getvalue().splitlines() == [
        "2023-11-14T22:14:00Z buffer_count                 40           model=model model_version=1.0",
        "2023-11-14T22:14:00Z accuracy                     0.925        model=model model_version=1.0",
    ]
    stream = io.StringIO()
    Console(agents=True, stream=stream).write(example_report())
    assert stream.getvalue().count("agent_id=pod-1") == 5


@pytest.mark.parametrize("table", [{"what": "accuracy"}, {"agents": "all"}, {"wat": []}])
def test_a_wrong_table_refuses_the_start(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[sinks.console\]"):
        register_sinks(lambda sink: None, {"sinks": {"console": table}})
