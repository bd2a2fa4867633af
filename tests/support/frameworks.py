"""Frameworks that a test needs: skipped when missing, unless ZMON_REQUIRE_ALL is set."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import pytest


def require(name: str) -> Any:
    """A framework: imported, or the test is skipped, or fails where ZMON_REQUIRE_ALL is set."""
    if os.environ.get("ZMON_REQUIRE_ALL"):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def require_in_child(name: str) -> None:
    """Skip or fail in the same way without importing a framework, which would change this process for other tests."""
    if importlib.util.find_spec(name) is None:
        assert not os.environ.get("ZMON_REQUIRE_ALL"), f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
