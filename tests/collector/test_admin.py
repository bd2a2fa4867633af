"""Questions on the admin socket: answered whatever else there is to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector import pauses
from zmon_collector.config import Config
from zmon_collector.config.sections import LimitsSection, WebSection

from tests.support.collectors import answer
from tests.support.waiting import until


def test_an_operator_is_answered_while_nothing_is_taken_in(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "ENGINE_BYTES", -1)
    full = Config(web=WebSection(enabled=False), limits=LimitsSection(journal_bytes=1))
    collector = collect(config=full)
    publisher = collector.publisher(classes=2)
    publisher.publish(np.full((4, 2), 0.5))
    until(lambda: collector.service.receiver.inbox, what="a message that is not taken")
    health = answer(collector.folder)  # the question does not wait behind the message
    assert health["status"] == "degraded"
    assert any("limits.journal_bytes" in problem for problem in health["problems"])
    assert [(pause["by"], pause["ends"]) for pause in health["paused"]] == [
        ("metrics", "the metrics, which compute the rows that wait for them")
    ]
    assert not publisher.flush(0.1)
    publisher.close(0.1)


def test_connected_counts_who_was_heard_of(collect: Callable[..., Any]) -> None:
    collector = collect()
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
        health = answer(collector.folder)
        assert (health["streams"], health["connected"]) == (1, 1)
    until(lambda: answer(collector.folder)["connected"] == 0, what="the goodbye")
