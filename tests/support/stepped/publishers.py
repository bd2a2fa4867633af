"""Publishers as the collector sees them: numbered rows and labels in a ring, a position, and a goodbye."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from tests.support.stepped.clock import NANO
from zmon._wire import control, frames
from zmon.batch import Schema

P = ("number",)
SCHEMAS = (
    Schema(classes=("no", "yes"), features=P, kinds=("numeric",)),
    Schema(classes=("no", "yes"), features=("extra", *P), kinds=("numeric",) * 2),
    Schema(task="regression", features=P, kinds=("numeric",)),  # conflicts with the others
)
LABELS = Schema(classes=("yes", "no"))  # labels are matched by name
BODIES = {id(schema): frames.encode_schema(schema) for schema in (*SCHEMAS, LABELS)}
SCALE = 2**20  # of a row's number as a probability: exact


@dataclass
class Piece:
    """A message of a publisher: its rows are numbered, and each has its own time. Or labels of the rows so numbered."""

    first: int
    numbers: list[int]
    times: list[float]
    schema: Schema
    labels: list[int] | None = None  # 1: yes
    ids: bool = False  # whether rows have ids, by which late labels find them

    @property
    def last(self) -> int:
        return self.first + len(self.numbers) - 1

    def joins(self, later: Piece) -> bool:
        return (self.schema, self.ids, self.labels is None) == (later.schema, later.ids, later.labels is None)

    def joined(self, later: Piece) -> Piece:
        labels = None if self.labels is None or later.labels is None else self.labels + later.labels
        return Piece(self.first, self.numbers + later.numbers, self.times + later.times, self.schema, labels, self.ids)

    def _columns(self) -> dict[str, Any]:
        numbers = np.array(self.numbers)
        columns = {"timestamps": np.array([int(time * NANO) for time in self.times], np.int64)}
        if self.labels is not None:
            places = [LABELS.classes.index("yes" if label else "no") for label in self.labels]
            return columns | {"ids": numbers, "labels": np.array(places)}
        columns["inputs"] = np.column_stack([numbers.astype(float)] * len(self.schema.features))
        if self.ids:
            columns["ids"] = numbers
        if self.schema.classes:
            yes = numbers / SCALE
            columns["probabilities"] = np.column_stack([1 - yes, yes])
        else:
            columns["predictions"] = np.full(len(numbers), 0.5)
        return columns

    def frames(self, topic: bytes, stream: bytes, base: int, tally: Mapping[str, Any]) -> list[list[bytes]]:
        columns, body = self._columns(), BODIES[id(self.schema)]
        batch = frames.encode_batch(
            topic,
            stream=stream,
            schema=frames.schema_hash(body),
            first=self.first,
            rows=len(self.numbers),
            base=min(base, self.first),
            ts=0,
            arrays=[(name, column.dtype.str, list(column.shape)) for name, column in columns.items()],
            buffers=[column.tobytes() for column in columns.values()],
            tally=tally,
            kind="batch" if self.labels is None else "labels",
        )
        return [frames.encode_schema_message(topic, stream, body), [bytes(each) for each in batch]]


@dataclass
class Sender:
    """What the collector sees of a publisher: a ring of messages, a position, and a goodbye."""

    model: str
    agent: str
    stream: bytes
    ring: deque[Piece] = field(default_factory=deque)
    issued: int = 0
    sent: int = 0  # of the rows on their way
    acked: int = 0
    store: bytes = b""
    tally: dict[str, Any] = field(default_factory=dict)
    closing: bool = False  # it publishes no more
    leaving: bool = False  # it has said goodbye, and sends no more unless that was lost in a kill
    gone: bool = False  # and the collector has that on disk
    schemas: list[Schema] = field(default_factory=list)  # sent on this connection

    @property
    def topic(self) -> bytes:
        return frames.Topic(self.model, "", self.agent).encode()

    @property
    def base(self) -> int:
        return self.ring[0].first if self.ring else self.issued + 1

    def publish(self, numbers: list[int], times: list[float], schema: Schema, ids: bool = False) -> None:
        self.ring.append(Piece(self.issued + 1, numbers, times, schema, None, ids))
        self.issued += len(numbers)

    def publish_labels(self, numbers: list[int], labels: list[int], time: float) -> None:
        self.ring.append(Piece(self.issued + 1, numbers, [time] * len(numbers), LABELS, labels))
        self.issued += len(numbers)

    def next_piece(self) -> Piece | None:
        return next((piece for piece in self.ring if piece.last > self.sent), None)

    def join_messages(self) -> None:
        """Make one message of neighbours that fit: what is sent again may begin before the collector's position."""
        for earlier, later in pairwise(list(self.ring)):
            if earlier.joins(later) and self.ring[0] is earlier:
                self.ring.popleft()
                self.ring[0] = earlier.joined(later)
                return

    def greeting(self, kind: str) -> bytes:
        return control.encode_greeting(
            kind,
            topic=self.topic,
            stream=self.stream,
            base=self.base,
            acked=self.acked,
            issued=self.issued,
            clock=0,
            tally=self.tally,
            store=self.store,
        )

    def acknowledge(self, ack: control.Ack) -> None:
        self.store = ack.store
        self.acked = min(max(self.acked, ack.row), self.issued)
        while self.ring and self.ring[0].last <= self.acked:
            self.ring.popleft()
        if ack.need:
            self.schemas.clear()
            self.sent = self.acked

    def connect(self) -> None:
        """A connection begins, or the last one ended with all that was under way."""
        self.sent = self.acked
        self.schemas.clear()
