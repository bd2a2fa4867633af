"""The receiving thread: what it holds while the collector's thread takes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection, LimitsSection
from zmon_collector.ingest import receiver as receiving
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.telemetry import Telemetry

from tests.support.waiting import until

GREETINGS = 5000
LIMIT = 100_000  # bytes


def test_greetings_that_nobody_handles_are_bounded_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause may last as long as a disk is full, and every publisher greets once a second."""
    monkeypatch.setattr(receiving, "GREETING_BYTES", LIMIT)
    config = Config(
        collector=CollectorSection(
            bind=f"ipc://{tmp_path}/data", control=f"ipc://{tmp_path}/control", data_dir=tmp_path
        ),
        limits=LimitsSection(inflight_bytes=LIMIT),
    )
    receiver = Receiver(config, Telemetry(), lambda: None)
    receiver.start()
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as publisher:
            publisher.setsockopt(zmq.SNDHWM, 0)
            publisher.connect(receiver.control)
            for number in range(GREETINGS):
                publisher.send(b"%d" % number)
            until(lambda: receiver.inbox_bytes > 3 * LIMIT, what="a full inbox")
            seen = receiver.thread.beats
            until(lambda: receiver.thread.beats > seen + 3, what="further turns of the thread")
            assert receiver.inbox_bytes <= 3 * LIMIT + receiving.BURST * 2 * receiving.OVERHEAD
            came: list[int] = []

            def all_came() -> bool:
                while (received := receiver.next_message()) is not None:
                    came.append(int(received.frames[0]))
                return len(came) == GREETINGS

            until(all_came, what="all greetings")
            assert came == list(range(GREETINGS))
    finally:
        context.destroy(0)
        receiver.stop()
