"""A turn costs in proportion to what comes and what is due: the number of streams and models changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from zmon_collector.config import Config
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest.receiver import ReceivedMessage

from tests.support.unstarted import AB, Table
from zmon._wire import control
from zmon._wire import frames as wire

FEW, MANY = 20, 400  # models
AGENTS = 3
BODY = wire.encode_schema(AB)


def work(call: Callable[[], Any]) -> int:
    """Return how many instructions of the interpreter a call takes, whatever else the machine does."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


class Fleet:
    """A collector with many models, of which each has some agents and an open window."""

    def __init__(self, table: Table, models: int) -> None:
        self.table, self.models = table, models
        self.rows: dict[int, int] = {}
        service = table.service
        service.started -= 3600.0
        self.data(wire.encode_schema_message(self.topic(0), self.stream(0), BODY))
        for number in range(models * AGENTS):
            self.greet(number)
            self.send(number)
        self.turn()

    def topic(self, number: int) -> bytes:
        return wire.Topic(f"model{number // AGENTS}", "", f"agent{number % AGENTS}").encode()

    @staticmethod
    def stream(number: int) -> bytes:
        return number.to_bytes(16, "big")

    def data(self, frames: Any) -> None:
        self.table.data(frames)

    def greet(self, number: int, kind: str = "hello") -> None:
        rows = self.rows.get(number, 0)
        frame = control.encode_greeting(
            kind, topic=self.topic(number), stream=self.stream(number), base=rows + 1, acked=rows, issued=rows, clock=0,
            tally={},
        )  # fmt: skip
        self.table.service.message_handler.handle(ReceivedMessage("control", [frame], b"peer"), self.table.now)

    def send(self, number: int) -> None:
        first = self.rows.get(number, 0) + 1
        self.rows[number] = first + 9
        column = np.full((10, 2), 0.5)
        self.data(
            wire.encode_batch(
                self.topic(number), stream=self.stream(number), schema=wire.schema_hash(BODY), first=first, rows=10,
                base=first, ts=int(self.table.now.wall * 1e9), buffers=[column.tobytes()],
                arrays=[("probabilities", "<f8", [10, 2])],
            )
        )  # fmt: skip

    def turn(self) -> None:
        """Everything that a turn does for streams, models and windows, but for what the messages themselves take."""
        service, now = self.table.service, self.table.now
        service.pauses.look(now)
        service.close_due(now)
        turn, _, _ = service.ingestor.end_turn(now)
        service.checkpoint_policy.start_due(turn)
        service.engine.advance()


@pytest.fixture
def fleets(tmp_path: Path) -> Any:
    """A small and a large fleet."""
    made = []
    for models in (FEW, MANY):
        folder = tmp_path / str(models)
        folder.mkdir()
        made.append(Fleet(Table(folder, Config(limits=LimitsSection(streams=10**5, models=10**4))), models))
    yield made
    for fleet in made:
        fleet.table.end()


def nothing(fleet: Fleet) -> None:
    """Nothing comes."""


def rows(fleet: Fleet) -> None:
    fleet.send(7)
    fleet.send(11)


def ping(fleet: Fleet) -> None:
    fleet.greet(7, "ping")


def goodbye(fleet: Fleet) -> None:
    fleet.greet(7, "bye")


def new_model(fleet: Fleet) -> None:
    """A model that was not there, and its window."""
    number = len(fleet.rows) * AGENTS
    fleet.greet(number)
    fleet.send(number)


@pytest.mark.parametrize("event", [nothing, rows, ping, goodbye, new_model], ids=lambda event: event.__name__)
def test_a_turn_takes_the_same_work_however_many_streams_and_models_there_are(
    fleets: list[Fleet], event: Callable[[Fleet], None]
) -> None:
    found = []
    for fleet in fleets:
        for _ in range(2):  # the first time fills caches
            event(fleet)
            fleet.turn()
        found.append(work(lambda fleet=fleet: (event(fleet), fleet.turn())))  # type: ignore[misc]
    few, many = found
    assert many == pytest.approx(few, rel=0.02), f"{few} instructions with {FEW} models, {many} with {MANY}"
