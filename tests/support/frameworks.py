"""Frameworks that a test needs: skipped when missing, unless ZMON_REQUIRE_ALL is set."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def require(name: str) -> Any:
    """A framework: imported, or the test is skipped, or fails where ZMON_REQUIRE_ALL is set."""
    if os.environ.get("ZMON_REQUIRE_ALL"):
        return importlib.import_module(name)
    return pytest.importorskip(name)
