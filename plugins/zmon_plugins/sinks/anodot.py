"""Send reports to Anodot's API as samples: in order, in chunks, each sample once. Protocols 2.0 and 3.0.

Configured by ``[sinks.anodot]``: ``url``, ``token_env`` or ``token_file``, ``requests_per_second``,
``samples_per_second``, ``chunk``, ``connect_timeout``, ``read_timeout``, ``agents``, ``properties``, ``enabled``; with
``protocol = "3.0"`` also ``access_key_env`` or ``access_key_file``.
"""

from __future__ import annotations

import random as generator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zmon.contract import Ledger, Point, Refused, Report, Sink, Value
from zmon.hooks import hookimpl
from zmon_plugins.anodot import LegalNames, samples
from zmon_plugins.api.chunk_sender import Chunk, ChunkSender, Sample, chunk_of
from zmon_plugins.api.pace import Clock
from zmon_plugins.api.protocol3 import StreamSchemas, refusal3, samples3
from zmon_plugins.api.target import ApiTarget, access_key_of, read, token_of

if TYPE_CHECKING:
    from zmon_plugins.api.client import Client


class MemoryLedger:
    """Ledger of a sink without an attached one: in memory, for the last report only."""

    def __init__(self) -> None:
        self._last = (0, 0)

    def settled(self, sequence: int) -> int:
        return self._last[1] if self._last[0] == sequence else 0

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        self._last = (sequence, samples)


class Anodot:
    """Sends rollups and, of each agent, the series of the minimal preset, unless configured otherwise.

    The ledger counts all points of a report, sent or not, so a change of the configuration between two attempts does
    not shift the points that are settled.

    Parameters
    ----------
    target : ApiTarget
    token : str
    preset_of : callable
        Returns the smallest preset that emits a value.
    clock : Clock, optional
    random : callable, optional
        Returns numbers in [0, 1), for the jitter of waits.
    """

    name = "anodot"
    protocol = "anodot20"

    def __init__(
        self,
        target: ApiTarget,
        token: str,
        preset_of: Callable[[Value], str],
        *,
        clock: Clock = time,
        random: Callable[[], float] = generator.random,
    ) -> None:
        self._target = target
        self._token = token
        self._preset_of = preset_of
        self._clock = clock
        self._random = random
        self._names = LegalNames()
        self._ledger: Ledger = MemoryLedger()
        self._client: Client | None = None
        self._sender: ChunkSender
        self._unfinished: tuple[int, list[int], list[Sample], Chunk | None] | None = None
        self._again: Chunk | None = None

    def attach(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open(self) -> None:
        from zmon_plugins.api.client import Client  # here: its HTTP library takes a third of a start to import

        self._client = Client(self._target, self._token, self.protocol)
        self._sender = ChunkSender(self._client, self._target, self._clock, self._random)

    def write(self, report: Report) -> None:
        sequence, ends, chosen, chunk = self._resume(report)
        while ends:
            if chunk is None:
                chunk = self._chunk(chosen[: self._target.chunk])
            self._unfinished = (sequence, ends, chosen, chunk)
            self._sender.send(chunk)
            size = len(chunk.samples)
            self._ledger.settle(sequence, ends[size - 1], chunk.set_aside())
            ends, chosen, chunk = ends[size:], chosen[size:], None
            self._unfinished = (sequence, ends, chosen, None)
        self._finish(report)
        self._unfinished = None

    def _encode(self, report: Report, points: Sequence[Point]) -> list[Sample]:
        return list(samples(report, self._names, points, self._target.properties))

    def _chunk(self, chosen: Sequence[Sample]) -> Chunk:
        return chunk_of(chosen, _time_of(chosen), self._target.chunk)

    def _finish(self, report: Report) -> None:
        """React to the end of a report, whose samples are all settled."""

    def _resume(self, report: Report) -> tuple[int, list[int], list[Sample], Chunk | None]:
        """Return the rest of a report: the number of points up to each sample, the samples, and a chunk in delivery."""
        if self._unfinished is not None and self._unfinished[0] == report.sequence:
            return self._unfinished
        done = self._ledger.settled(report.sequence)
        ends = [i for i, point in enumerate(report.points, 1) if i > done and self._is_sent(point)]
        points = [report.points[end - 1] for end in ends]
        return report.sequence, ends, self._encode(report, points) if points else [], None

    def _is_sent(self, point: Point) -> bool:
        agents = self._target.agents
        if point.agent_id is None or agents == "all":
            return True
        return agents == "health" and self._preset_of(point.value) == "minimal"

    def resend(self, samples: Sequence[Sample]) -> list[Refused | None]:
        """Send refused samples again, and return None for each, or the reason of a new refusal."""
        if self._again is None or repr(self._again.samples) != repr(samples):  # a NaN does not equal itself
            self._again = self._chunk(samples)
        self._sender.send(self._again)
        chunk, self._again = self._again, None
        unsure = chunk.stray[0] if chunk.stray else None  # it may concern any of them, so they all stay
        return [
            chunk.refused.get(position) or (unsure and Refused(sample, unsure.code, unsure.description))
            for position, sample in enumerate(samples)
        ]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _time_of(chosen: Sequence[Sample]) -> float:
    """Return a time at which no sample is too far ahead: windows have closed by the collector's clock, not this one.

    That of the system may have been set back since. What is really ahead is refused by the API, by its own clock.
    """
    times = [at for sample in chosen if type(at := sample.get("timestamp")) is int]
    return max([time.time(), *times])


class Anodot3(Anodot):
    """Sends the same by protocol 3.0: a schema for each (model, version), and a watermark after each window.

    Parameters
    ----------
    target : ApiTarget
    token, access_key : str
    preset_of : callable
    **options
        As for `Anodot`.
    """

    protocol = "anodot30"

    def __init__(
        self, target: ApiTarget, token: str, access_key: str, preset_of: Callable[[Value], str], **options: Any
    ) -> None:
        super().__init__(target, token, preset_of, **options)
        self._access_key = access_key
        self._schemas: StreamSchemas
        self._marks: dict[str, int] = {}

    def open(self) -> None:
        super().open()
        assert self._client is not None
        self._schemas = StreamSchemas(self._client, self._sender, self._access_key, time.time)

    def _schema(self, report: Report) -> str:
        return self._schemas.id_of(f"zmon {report.model} {report.version}".strip(), self._target.properties)

    def _encode(self, report: Report, points: Sequence[Point]) -> list[Sample]:
        return list(samples3(report, self._names, points, self._target.properties, self._schema(report)))

    def _chunk(self, chosen: Sequence[Sample]) -> Chunk:
        return chunk_of(chosen, _time_of(chosen), self._target.chunk, refusal3)

    def _finish(self, report: Report) -> None:
        """Post the watermark: no earlier sample of this model and version follows. It never goes back."""
        client = self._client
        assert client is not None
        schema_id = self._schema(report)
        if self._marks.get(schema_id, 0) < report.window.end:
            mark = {"schemaId": schema_id, "watermark": report.window.end}
            self._sender.request(lambda: client.post("/api/v1/metrics/watermark", mark))
            self._marks[schema_id] = report.window.end


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get(Anodot.name)
    target = read(table or {})
    used = table is not None and target.enabled
    token = token_of(target) if used else ""
    preset_of = options.get("preset_of", lambda value: "minimal")
    if target.protocol == "3.0":
        register(Anodot3(target, token, access_key_of(target) if used else "", preset_of))
    else:
        register(Anodot(target, token, preset_of))
