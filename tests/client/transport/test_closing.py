"""What close() does by its deadline: it ends, and the collector learns what was left behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.collectors import Collector, received
from tests.support.peer import Peer
from tests.support.waiting import settled, stream_of, until
from zmon._capture.assembler import Assembler
from zmon._transport.delivery import Delivery
from zmon._transport.engine import GOODBYE

ROW = np.full((1, 2), 0.5)


def lost(collector: Collector) -> int:
    return collector.service.telemetry.get("lost")


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = Assembler.convert

    def slowly(self: Assembler, snapshots: Any) -> Any:
        time.sleep(0.3)
        return convert(self, snapshots)

    monkeypatch.setattr(Assembler, "convert", slowly)


@pytest.mark.parametrize("kind", ["batches", "labels", "both"])
def test_rows_that_were_not_converted_are_told_as_lost(
    kind: str, collect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = collect()
    publisher = collector.publisher("m", classes=2)
    publisher.publish(ROW)
    assert publisher.flush(60)
    slow(monkeypatch)
    for number in range(400):
        if kind == "batches" or (kind == "both" and number % 2):
            publisher.publish(np.repeat(ROW, 3, axis=0))
        else:
            publisher.publish_labels([1, 2, 3], [1, 1, 1])
    publisher.reject("mine", "an adapter's", 7)
    publisher.close(timeout=0.1)
    stats = publisher.stats
    assert stats.acknowledged + stats.dropped["closed"] == stats.published == 1201
    assert stats.labels == {"batches": 0, "labels": 1200, "both": 600}[kind]
    assert dict(stats.rejected) == {"mine": 7}
    telemetry = collector.service.telemetry
    until(lambda: received(collector) + telemetry.get("labels") + lost(collector) == 1201, what="every row")
    until(lambda: telemetry.get("rejected", "mine") == 7, what="what was rejected")
    collector.stop()
    assert received(collector) + telemetry.get("labels") + lost(collector) == 1201
    assert lost(collector) >= 1201 - 600, "the most of them"


def test_the_goodbye_says_what_had_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(str(tmp_path / "z"))
    with zmon.Publisher("m", classes=2, collector=peer.endpoint) as publisher:
        publisher.publish(ROW)
        stream = peer.greeting("hello").stream
        peer.ack(stream, 1)
        assert publisher.flush(60)
        slow(monkeypatch)
        for _ in range(400):
            publisher.publish(ROW)
        publisher.close(timeout=0)
        bye = peer.greeting("bye")
    assert bye.issued + bye.tally["lost"] == 401
    assert dict(publisher.stats.dropped) == {"closed": 400}
    peer.close()
    peer.context.term()


def test_messages_that_take_long_do_not_delay_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where other threads leave the engine little of the interpreter."""
    encoded, sent = Delivery._encoded, []

    def slowly(self: Delivery, entry: Any) -> Any:
        sent.append(entry)
        time.sleep(0.1)
        return encoded(self, entry)

    monkeypatch.setattr(Delivery, "_encoded", slowly)
    peer = Peer(str(tmp_path / "z"))
    with zmon.Publisher("m", classes=2, collector=peer.endpoint) as publisher:
        for _ in range(200):
            publisher.publish(np.full((600, 2), 0.5))  # too many rows to be joined
        settled(publisher)
        peer.ack(peer.greeting("hello").stream, 0, window=2**26)
        until(lambda: sent, what="the first message")
        began = time.monotonic()
        publisher.close(timeout=0.1)
        took = time.monotonic() - began
        assert stream_of(publisher).ended
    assert took < 0.1 + GOODBYE
    peer.close()
    peer.context.term()
