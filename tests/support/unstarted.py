"""A service that was not started, on a clock of the test's: messages are laid before it one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection, WebSection
from zmon_collector.ingest.receiver import ReceivedMessage
from zmon_collector.ingest.recovery import Recovery
from zmon_collector.service import Service
from zmon_collector.storage import journal, journal_state
from zmon_collector.windows.window import Now, Tally

from tests.support.databases import in_memory
from tests.support.waiting import until
from zmon import categories
from zmon._wire import control
from zmon._wire import frames as wire
from zmon._wire.control import Ack
from zmon.batch import Array, Schema

TOPIC = wire.Topic("m", "", "a").encode()
AB = Schema(classes=("a", "b"))
STREAM = b"s" * 16
T0 = 1_700_000_000 // 60 * 60


def topic_of(agent: str, version: str = "") -> bytes:
    return wire.Topic("m", version, agent).encode()


def stream_of(agent: str) -> bytes:
    return STREAM if agent == "a" else agent.encode().ljust(16, b"s")


def messages(
    schema: Schema,
    columns: Mapping[str, Array],
    dictionaries: Mapping[str, Sequence[Sequence[str]]] | None = None,
    *,
    agent: str = "a",
    version: str = "",
    **header: Any,
) -> list[list[bytes]]:
    """A schema message and a batch of an agent's stream, which begins with row `first`, by default 1."""
    topic, stream, body = topic_of(agent, version), stream_of(agent), wire.encode_schema(schema)
    rows, first = len(next(iter(columns.values()))), header.get("first", 1)
    arrays: list[Any] = [(name, column.dtype.str, list(column.shape)) for name, column in columns.items()]
    buffers = [np.ascontiguousarray(column).tobytes() for column in columns.values()]
    for blob, name in wire.BLOBS.items():
        if dictionaries and name in dictionaries:
            arrays.append((blob, "|u1", [1]))
            buffers.append(categories.encode(rows, tuple(map(tuple, dictionaries[name]))))
    described = {"first": first, "rows": rows, "base": first, "arrays": arrays, **header}
    batch = wire.encode_batch(topic, stream=stream, schema=wire.schema_hash(body), buffers=buffers, **described)
    return [wire.encode_schema_message(topic, stream, body), [bytes(frame) for frame in batch]]


class Direct:
    """The database of a run that was killed, read at once."""

    def __init__(self, killed: Table) -> None:
        self._disk = killed.disk

    def submit(self, work: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        done(work(self._disk))

    def delete_chunks(self, window: int, through: int) -> None:
        pass


def restarted(killed: Table, table: Table) -> Table:
    """Replay in `table` what another left."""
    database: Any = Direct(killed)
    table.disk = killed.disk
    state = journal_state.load(killed.disk)
    table.ingestor.store_id = state.store_id
    recovery = Recovery(state, table.ingestor, database, lambda: None)
    recovery.restore(table.now)
    while not recovery.finished:
        recovery.advance()
    return table


class Table:
    """A service that was not started: messages are laid before it one by one."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        section = CollectorSection(data_dir=folder, bind=f"ipc://{folder}/data", window=60, grace=0.0)
        self.service = Service(replace(config or Config(), web=WebSection(enabled=False), collector=section))
        self.now = Now(float(T0), 1000.0)
        self.disk = in_memory(check_same_thread=False)

    @property
    def ingestor(self) -> Any:
        return self.service.ingestor

    def goes(self, seconds: float) -> None:
        self.now = Now(self.now.wall + seconds, self.now.mono + seconds)

    def batch(self, first: int, rows: int, **header: Any) -> None:
        """Rows of the stream of agent a, with their schema."""
        self.send(AB, {"probabilities": np.full((rows, 2), 0.5)}, first=first, **header)

    def send(
        self,
        schema: Schema,
        columns: Mapping[str, Array],
        dictionaries: Mapping[str, Sequence[Sequence[str]]] | None = None,
        **header: Any,
    ) -> None:
        """A schema, and rows of an agent's stream."""
        for frames in messages(schema, columns, dictionaries, **{"ts": int(self.now.wall * 1e9), **header}):
            self.data(frames)

    def data(self, frames: Sequence[bytes | memoryview]) -> None:
        received = ReceivedMessage("data", [bytes(frame) for frame in frames])
        self.service.message_handler.handle(received, self.now)

    def answer(self, agent: str = "a") -> Ack:
        """The acknowledgement that an agent's stream gets with this turn."""
        self.greeting("ping", agent=agent)
        return self.answers()[stream_of(agent)]

    def answers(self) -> dict[bytes, Ack]:
        """End the turn; return the acknowledgements by stream."""
        turn, acks, _ = self.ingestor.end_turn(self.now)
        journal.write(turn, self.disk)
        sent: list[bytes] = []
        receiver = self.service.receiver
        receiver.reply, kept = lambda kind, peer, frame: sent.append(frame), receiver.reply  # type: ignore[method-assign]
        try:
            self.service._acknowledge(acks)
        finally:
            receiver.reply = kept  # type: ignore[method-assign]
        return {ack.stream: ack for ack in map(control.decode_ack, sent)}

    def tally(self, agent: str = "a", model: str = "m", version: str = "") -> Any:
        """The counts of an agent over all open windows, and those that have none."""
        manager = self.ingestor.models[model, version].windows
        whole = Tally()
        for tallies in (manager.unplaced, *(window.tallies for window in manager.open.values())):
            if agent in tallies:
                whole.absorb(tallies[agent])
        return whole

    def greeting(
        self,
        kind: str,
        base: int = 1,
        issued: int = 0,
        agent: str = "a",
        *,
        acked: int = 0,
        store: bytes = b"",
        counted: Mapping[str, Any] | None = None,
        **tally: Any,
    ) -> None:
        frame = control.encode_greeting(
            kind,
            topic=topic_of(agent),
            stream=stream_of(agent),
            base=base,
            acked=acked,
            issued=issued,
            clock=0,
            tally=tally,
            store=store,
            counted=counted,
        )
        self.service.message_handler.handle(ReceivedMessage("control", [frame], b"peer"), self.now)

    def end_turn(self) -> None:
        """Write what was decided to the disk, and take back what the join of labels has completed."""
        turn, _, waiting = self.ingestor.end_turn(self.now)
        joined = journal.write(turn, self.disk)
        self.ingestor.handle_joined(waiting, joined)

    def finished(self, count: int) -> list[ClosedWindow]:
        """The next windows that the engine has finished."""
        found: list[ClosedWindow] = []

        def enough() -> bool:
            found.extend(self.service.engine.advance())
            return len(found) >= count

        until(enough, what="the windows to be finished")
        for closed in found:
            self.ingestor.finish_window(closed)
        return found

    def later(self, seconds: float = 1.1) -> None:
        """Some time passes, and goodbyes are settled."""
        self.goes(seconds)
        self.ingestor.end_streams(self.now)

    def recovery(self, disk: sqlite3.Connection) -> Recovery:
        """What another run left behind."""
        service = self.service
        found = journal_state.load(disk)
        return Recovery(found, self.ingestor, service.database, lambda: None)

    def counts(self, kind: str) -> int:
        return self.service.telemetry.get(kind)

    def end(self) -> None:
        self.service.engine.shutdown()
        self.service.receiver.close()
        self.disk.close()
