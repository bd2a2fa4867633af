"""The three tiers of tests, by folder and file; and the guard that keeps unit tests what they are.

A test whose tier is not that of its place carries the mark itself: ``@pytest.mark.integration``.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zmq

TIERS = ("unit", "integration", "system")
PLACES = {  # the longest path that fits decides
    "client": "integration",
    "client/capture": "unit",
    "client/reference": "unit",
    "client/test_options.py": "unit",
    "client/transport/test_contact.py": "unit",
    "client/transport/test_retransmission.py": "unit",
    "client/transport/test_ring.py": "unit",
    "client/transport/test_intake.py": "unit",
    "client/transport/test_keys.py": "unit",
    "client/transport/test_ledger.py": "unit",
    "client/wire": "unit",
    "client/wire/test_wire_page.py": "integration",
    "collector": "integration",
    "collector/compute/test_sample.py": "unit",
    "collector/compute/test_segments.py": "unit",
    "collector/config": "unit",
    "collector/dashboard/test_accessible.py": "system",
    "collector/dashboard/test_demo.py": "system",
    "collector/dashboard/test_figures.py": "unit",
    "collector/dashboard/test_page.py": "system",
    "collector/ingest/test_stream_position.py": "unit",
    "collector/ingest/test_validation.py": "unit",
    "collector/jobs/test_dask.py": "system",
    "collector/jobs/test_tabular.py": "unit",
    "collector/windows": "unit",
    "e2e": "system",
    "e2e/test_series.py": "integration",
    "e2e/test_windows.py": "integration",
    "edge": "integration",
    "faults": "system",
    "faults/test_model.py": "unit",
    "faults/test_moves.py": "unit",
    "faults/test_progress_model.py": "integration",
    "frameworks": "system",
    "frameworks/test_callables.py": "integration",
    "frameworks/test_onnx.py": "integration",
    "frameworks/test_proxy.py": "integration",
    "frameworks/test_sklearn.py": "integration",
    "fuzz": "unit",
    "golden": "integration",
    "host": "system",
    "hostile": "system",
    "host/test_ends.py": "integration",
    "host/test_forks.py": "integration",
    "host/test_greenlets.py": "integration",
    "plugins": "unit",
    "plugins/api": "integration",
    "plugins/api/test_responses.py": "unit",
    "servers": "system",
    "test_bench.py": "unit",
    "test_deploy.py": "integration",
    "test_house.py": "unit",
    "test_site.py": "integration",
    "test_suite.py": "unit",
}
FORBIDDEN = {"socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "os.posix_spawn", "sqlite3.connect"}
COUNTS = pytest.StashKey[Counter[str]]()  # tests collected, by tier
SYSTEM_TIMEOUT = 600  # seconds


def of_place(path: Path) -> str | None:
    """The tier of a file, by its path below tests/; None if no place of the table holds it."""
    for place in (path, *path.parents):
        if place.as_posix() in PLACES:
            return PLACES[place.as_posix()]
    return None


def marks(item: pytest.Item) -> list[str]:
    """The tiers that a test has; it should be one."""
    return [mark.name for mark in item.iter_markers() if mark.name in TIERS]


def assign(items: list[pytest.Item], tests: Path) -> Counter[str]:
    """Give each test its tier, unless it carries one; how many each tier has. None or two tiers are an error."""
    wrong = []
    for item in items:
        if not marks(item) and (tier := of_place(item.path.relative_to(tests))):
            item.add_marker(tier)
        if len(marks(item)) != 1:
            wrong.append(f"{item.nodeid}: {marks(item) or 'no place in tests/support/tiers.py'}")
        if item.get_closest_marker("system") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SYSTEM_TIMEOUT))
    if wrong:
        raise pytest.UsageError("tests without exactly one tier:\n" + "\n".join(wrong))
    return Counter(marks(item)[0] for item in items)


class UnitGuard:
    """While a unit test runs, its thread may open no socket, start no process and open no database."""

    def __init__(self) -> None:
        self.test = ""
        socket = zmq.Context.socket

        def guarded(context: Any, *arguments: Any, **options: Any) -> Any:
            self._refuse("zmq.Context.socket")
            return socket(context, *arguments, **options)

        zmq.Context.socket = guarded  # type: ignore[method-assign]
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.test and event in FORBIDDEN:
            self._refuse(event)

    def _refuse(self, event: str) -> None:
        if self.test and threading.current_thread() is threading.main_thread():
            raise AssertionError(f"{event} in a unit test: mark {self.test} as integration")
