"""Messages above `limits.message_bytes`: the publisher knows the limit, and its rows are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from zmon_collector.config import Config
from zmon_collector.config.sections import LimitsSection

from tests.support.collectors import Collector
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.errors import WireError

LIMIT = 20_000
P = np.array([[0.9, 0.1]])


@pytest.mark.parametrize(
    "inputs", [np.zeros((1, 2000)), np.zeros((1, 2000), np.int8)], ids=["a large row", "a large schema"]
)
def test_rows_that_are_too_large_are_refused_and_answered(
    inputs: np.ndarray, collect: Callable[..., Collector]
) -> None:
    collector = collect(config=Config(limits=LimitsSection(message_bytes=LIMIT)))
    with collector.publisher(classes=2, agent_id="a") as publisher:
        publisher.publish(P)
        assert publisher.flush(60)
        publisher.publish(P, inputs=inputs)
        assert publisher.flush(60), "it would connect and be disconnected again and again"
        assert publisher.stats.rejected == {"message_bytes": 1}
        assert publisher.stats.dropped == {}
    with collector.publisher(classes=2, agent_id="b") as publisher:
        publisher.publish(P)
        assert publisher.flush(60)
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 2
    assert collector.counts("rows_rejected", agent_id="a") == 1


def test_an_answer_says_how_large_a_message_may_be() -> None:
    assert control.decode_ack(control.encode_ack(b"s" * 16, 1, 2, message_bytes=77)).message_bytes == 77
    assert control.decode_ack(control.encode_ack(b"s" * 16, 1, 2)).message_bytes == 0
    wrong = wire.pack({**wire.unpack(control.encode_ack(b"s" * 16, 1, 2), "x"), "message_bytes": -1})
    with pytest.raises(WireError):
        control.decode_ack(wrong)
