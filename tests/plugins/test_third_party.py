"""The plugins of examples/ keep the contract. That they are picked up once installed: tests/e2e/test_processes.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from zmon.errors import ConfigurationError
from zmon.testing import check_metric, check_sink

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_metric() -> None:
    module = load("metric_plugin/zmon_unsure.py")
    check_metric(module.Unsure())
    with pytest.raises(ConfigurationError, match=r"\[plugins.unsure\] below"):
        module.register_metrics(lambda metric: None, {"below": 2.0})


def test_the_sink(tmp_path: Path) -> None:
    check_sink(load("sink_plugin/zmon_lines.py").Lines(tmp_path / "lines.txt"))
    assert len((tmp_path / "lines.txt").read_text().splitlines()) == 2
