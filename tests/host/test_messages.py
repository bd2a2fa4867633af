"""How many messages single rows become: their number must not depend on how long their texts are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.peer import Peer
from tests.support.waiting import until
from zmon._wire import frames

ROWS = 20_000
ONE = np.full(1, 0.9)


class Counting(threading.Thread):
    """A collector that counts messages, and acknowledges all of them."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.peer = Peer(str(path))
        self.messages = self.rows = 0
        self.ended = False
        self.start()

    def run(self) -> None:
        stream, row = self.peer.greeting("hello").stream, 0
        self.peer.ack(stream, row, 2**26)
        while not self.ended:
            if self.peer.sub.poll(20):
                message = frames.decode(self.peer.sub.recv_multipart())
                if message.kind != "schema":
                    self.messages += 1
                    row = self.rows = max(row, message.first + message.rows - 1)
            self.peer.ack(stream, row, 2**26)
        self.peer.close()
        self.peer.context.term()


@contextmanager
def counting(path: Path) -> Iterator[Counting]:
    peer = Counting(path)
    try:
        yield peer
    finally:
        peer.ended = True
        peer.join()


FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "ids of one length": lambda number: {"ids": [f"{number:08}"]},
    "ids of varying length": lambda number: {"ids": ["x" * (number * 7 % 40 + 1)]},
    "ids, numbers and texts": lambda number: {"ids": [number if number < ROWS // 2 else f"order-{number}"]},
    "segments of varying length": lambda number: {"segments": {"country": ["d" * (number * 5 % 20 + 1)]}},
    "mappings with words": lambda number: {"inputs": [{"age": number, "word": "w" * (number * 3 % 30)}]},
    "labels now and then": lambda number: {"labels": [1 if number % 3 else None]},
    "integers and floats": lambda number: {"inputs": [{"age": number if number % 2 else float(number)}]},
    "keys in another order": lambda number: {
        "inputs": [dict(sorted({"a": 1, "b": 2}.items(), reverse=number % 2 == 0))]
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_single_rows_travel_together(form: str, tmp_path: Path) -> None:
    with (
        counting(tmp_path / "z") as peer,
        zmon.Publisher("m", classes=2, collector=peer.peer.endpoint, agent_id="a") as one,
    ):
        one.publish(ONE, **FORMS[form](0))
        until(lambda: one.stats.connected, what="the connection")
        for number in range(1, ROWS):
            one.publish(ONE, **FORMS[form](number))
        assert one.flush(100), one.stats
        assert one.stats.acknowledged == ROWS, one.stats
        until(lambda: peer.rows >= ROWS, what="all rows")
        assert peer.rows == ROWS
        assert peer.messages <= 400, f"{peer.messages} messages"
