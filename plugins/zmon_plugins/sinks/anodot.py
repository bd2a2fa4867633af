"""Anodot's API: each report's points as samples, in order, in chunks, each dealt with once. Protocols 2.0 and 3.0.

Configured by ``[sinks.anodot]``: ``url``, ``token_env`` or ``token_file``, ``requests_per_second``,
``samples_per_second``, ``chunk``, ``connect_timeout``, ``read_timeout``, ``agents``, ``properties``, ``enabled``; with
``protocol = "3.0"`` also ``access_key_env`` or ``access_key_file``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmon.contract import Ledger, Point, Refused, Report, Sink, Value
from zmon.hooks import hookimpl
from zmon_plugins.anodot import LegalNames, samples
from zmon_plugins.api.chunk_sender import Chunk, ChunkSender, Sample, chunk_of
from zmon_plugins.api.client import Client
from zmon_plugins.api.protocol3 import StreamSchemas, refusal3, samples3
from zmon_plugins.api.target import ApiTarget, access_key_of, read, token_of

NAME = "anodot"


class MemoryLedger:
    """The ledger of a sink that nobody gave one: in memory, of the last report."""

    def __init__(self) -> None:
        self._last = (0, 0)

    def settled(self, sequence: int) -> int:
        return self._last[1] if self._last[0] == sequence else 0

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        self._last = (sequence, samples)


class Anodot:
    """Sends rollups, and per agent what the minimal preset has, unless told otherwise.

    The ledger counts points of the report, whether they are sent or not: so a changed choice does not shift what was
    settled before.

    Parameters
    ----------
    target : ApiTarget
    token : str
    preset_of : callable
        The smallest preset that emits a value.
    """

    name = NAME
    protocol = "anodot20"

    def __init__(self, target: ApiTarget, token: str, preset_of: Callable[[Value], str]) -> None:
        self._target = target
        self._token = token
        self._preset_of = preset_of
        self._names = LegalNames()
        self._ledger: Ledger = MemoryLedger()
        self._client: Client | None = None
        self._sender: ChunkSender
        self._under_way: tuple[int, list[int], list[Sample], Chunk | None] | None = None
        self._again: Chunk | None = None

    def attach(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open(self) -> None:
        self._client = Client(self._target, self._token, self.protocol)
        self._sender = ChunkSender(
            self._client, self._target, clock=time.monotonic, sleep=time.sleep, random=random.random
        )

    def write(self, report: Report) -> None:
        sequence, ends, chosen, chunk = self._resume(report)
        while ends:
            if chunk is None:
                chunk = self._chunk(chosen[: self._target.chunk])
            self._under_way = (sequence, ends, chosen, chunk)
            self._sender.send(chunk)
            size = len(chunk.samples)
            self._ledger.settle(sequence, ends[size - 1], chunk.set_aside())
            ends, chosen, chunk = ends[size:], chosen[size:], None
            self._under_way = (sequence, ends, chosen, None)
        self._finish(report)
        self._under_way = None

    def _made(self, report: Report, points: Sequence[Point]) -> list[Sample]:
        return list(samples(report, self._names, points, self._target.properties))

    def _chunk(self, chosen: Sequence[Sample]) -> Chunk:
        return chunk_of(chosen, time.time(), self._target.chunk)

    def _finish(self, report: Report) -> None:
        """Everything of the report is there."""

    def _resume(self, report: Report) -> tuple[int, list[int], list[Sample], Chunk | None]:
        """Where an interrupted report goes on: of each sample left, the number of points up to it; and the samples."""
        if self._under_way is not None and self._under_way[0] == report.sequence:
            return self._under_way
        done = self._ledger.settled(report.sequence)
        ends = [i for i, point in enumerate(report.points, 1) if i > done and self._is_sent(point)]
        points = [report.points[end - 1] for end in ends]
        return report.sequence, ends, self._made(report, points) if points else [], None

    def _is_sent(self, point: Point) -> bool:
        agents = self._target.agents
        return (
            point.agent_id is None
            or agents == "all"
            or (agents == "health" and self._preset_of(point.value) == "minimal")
        )

    def resend(self, samples: Sequence[Sample]) -> list[Refused | None]:
        """Send samples that were set aside; for each None, or why it is refused again."""
        if self._again is None or repr(self._again.samples) != repr(samples):  # a NaN does not equal itself
            self._again = self._chunk(samples)
        self._sender.send(self._again)
        chunk, self._again = self._again, None
        unsure = chunk.stray[0] if chunk.stray else None  # it may be any of them: they all stay
        return [
            chunk.refused.get(position) or (unsure and Refused(sample, unsure.code, unsure.description))
            for position, sample in enumerate(samples)
        ]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Anodot3(Anodot):
    """The same by protocol 3.0: a schema for each (model, version), and a watermark when a window is complete.

    Parameters
    ----------
    target : ApiTarget
    token, access_key : str
    preset_of : callable
    """

    protocol = "anodot30"

    def __init__(self, target: ApiTarget, token: str, access_key: str, preset_of: Callable[[Value], str]) -> None:
        super().__init__(target, token, preset_of)
        self._access_key = access_key
        self._schemas: StreamSchemas
        self._marks: dict[str, int] = {}

    def open(self) -> None:
        super().open()
        assert self._client is not None
        self._schemas = StreamSchemas(self._client, self._sender, self._access_key, time.time)

    def _schema(self, report: Report) -> str:
        return self._schemas.id_of(f"zmon {report.model} {report.version}".strip(), self._target.properties)

    def _made(self, report: Report, points: Sequence[Point]) -> list[Sample]:
        return list(samples3(report, self._names, points, self._target.properties, self._schema(report)))

    def _chunk(self, chosen: Sequence[Sample]) -> Chunk:
        return chunk_of(chosen, time.time(), self._target.chunk, refusal3)

    def _finish(self, report: Report) -> None:
        """Nothing before the next window's start will come of this model and version. A mark never goes back."""
        client = self._client
        assert client is not None
        schema_id = self._schema(report)
        if self._marks.get(schema_id, 0) < report.window.end:
            mark = {"schemaId": schema_id, "watermark": report.window.end}
            self._sender.ask(lambda: client.post("/api/v1/metrics/watermark", mark))
            self._marks[schema_id] = report.window.end


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get(NAME)
    target = read(table or {})
    used = table is not None and target.enabled
    token = token_of(target) if used else ""
    preset_of = options.get("preset_of", lambda value: "minimal")
    if target.protocol == "3.0":
        register(Anodot3(target, token, access_key_of(target) if used else "", preset_of))
    else:
        register(Anodot(target, token, preset_of))
