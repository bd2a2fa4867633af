"""The console sink: a line a point, chosen by globs."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from zmon_plugins.sinks.console import Console, register_sinks

from zmon.errors import ConfigurationError
from zmon.testing import check_sink, example_report


def test_the_sink_keeps_the_contract() -> None:
    check_sink(Console(stream=io.StringIO()))


def test_the_sink_of_the_example_keeps_it_too(tmp_path: Path) -> None:
    """One file of a third party; that it is picked up once installed: tests/e2e/test_processes.py."""
    path = Path(__file__).parents[2] / "examples/plugin/zmon_unsure.py"
    spec = importlib.util.spec_from_file_location("zmon_unsure", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check_sink(module.Lines(tmp_path / "lines.txt"))
    assert len((tmp_path / "lines.txt").read_text().splitlines()) == 2


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
