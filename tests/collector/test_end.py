"""The last answers of a collector that is stopped: who does not read them sends the same rows to whoever takes over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import until
from zmon import transport


def test_what_was_taken_is_known_to_be_taken(collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BUSY_POLL", 0.15)  # a publisher looks at its answers later than it usually does
    collector = collect()
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(5)
        before = collector.service.telemetry.snapshot()["rows"]
        while collector.service.telemetry.snapshot()["rows"] == before:  # the thread is awake, and naps
            publisher.publish(np.full((4, 2), 0.5))
            time.sleep(0.01)
        collector.stop()
        taken = collector.counts("buffer_count", agent_id=None)
        until(lambda: not publisher.stats.connected, 10, "the end of the connection")
        assert publisher.stats.acknowledged == taken
        publisher.close(0)
