"""Anodot's API: each report's points as 2.0 samples, in order, in chunks, each dealt with once.

Configured by ``[sinks.anodot]``: ``url``, ``token_env`` or ``token_file``, ``requests_per_second``,
``samples_per_second``, ``chunk``, ``connect_timeout``, ``read_timeout``, ``agents``, ``properties``, ``enabled``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmon.contract import Ledger, Point, Refused, Report, Sink, Value
from zmon.hooks import hookimpl
from zmon_plugins.anodot import Names, samples
from zmon_plugins.api.client import Client
from zmon_plugins.api.courier import Chunk, Courier, Sample, chunk_of
from zmon_plugins.api.table import Target, read, token_of

NAME = "anodot"


class Remembered:
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
    target : Target
    token : str
    preset_of : callable
        The smallest preset that emits a value.
    """

    name = NAME

    def __init__(self, target: Target, token: str, preset_of: Callable[[Value], str]) -> None:
        self._target = target
        self._token = token
        self._preset_of = preset_of
        self._names = Names()
        self._ledger: Ledger = Remembered()
        self._client: Client | None = None
        self._courier: Courier
        self._under_way: tuple[int, list[int], list[Sample], Chunk | None] | None = None
        self._again: Chunk | None = None

    def attach(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open(self) -> None:
        self._client = Client(self._target, self._token)
        self._courier = Courier(
            self._client, self._target, clock=time.monotonic, sleep=time.sleep, random=random.random
        )

    def write(self, report: Report) -> None:
        sequence, ends, chosen, chunk = self._resume(report)
        while ends:
            if chunk is None:
                chunk = chunk_of(chosen[: self._target.chunk], time.time())
            self._under_way = (sequence, ends, chosen, chunk)
            self._courier.send(chunk)
            size = len(chunk.samples)
            self._ledger.settle(sequence, ends[size - 1], chunk.set_aside())
            ends, chosen, chunk = ends[size:], chosen[size:], None
            self._under_way = (sequence, ends, chosen, None)
        self._under_way = None

    def _resume(self, report: Report) -> tuple[int, list[int], list[Sample], Chunk | None]:
        """Where an interrupted report goes on: of each sample left, the number of points up to it; and the samples."""
        if self._under_way is not None and self._under_way[0] == report.sequence:
            return self._under_way
        done = self._ledger.settled(report.sequence)
        ends = [i for i, point in enumerate(report.points, 1) if i > done and self._is_sent(point)]
        points = [report.points[end - 1] for end in ends]
        return report.sequence, ends, list(samples(report, self._names, points, self._target.properties)), None

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
            self._again = chunk_of(samples, time.time(), self._target.chunk)
        self._courier.send(self._again)
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


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get(NAME)
    target = read(table or {})
    token = token_of(target) if table is not None and target.enabled else ""
    register(Anodot(target, token, options.get("preset_of", lambda value: "minimal")))
