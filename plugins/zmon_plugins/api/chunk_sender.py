"""Delivers chunks of samples to the API: at the account's pace, again after failures, each sample dealt with once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from zmon.backoff import Backoff
from zmon.contract import Refused
from zmon.errors import RetryLater
from zmon_plugins.anodot import refusal
from zmon_plugins.api import responses
from zmon_plugins.api.client import Response, Unreachable
from zmon_plugins.api.pace import TokenBucket
from zmon_plugins.api.responses import Outcome, ParsedResponse
from zmon_plugins.api.target import ApiTarget

log = logging.getLogger("zmon.anodot")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds after failures, shortened at random
PAUSE = 60.0  # seconds between tries while the API does not take the token

Sample = Mapping[str, Any]


class SendingPaused(RetryLater):
    """The API takes nothing until somebody looks: a wrong or inactive token, a wrong address."""


class SampleClient(Protocol):
    """What the courier needs of `client.Client`."""

    def send(self, samples: Sequence[Sample]) -> Response: ...


@dataclass(slots=True)
class Chunk:
    """Samples on their way: `groups` of positions are still to be sent, `refused` are set aside by position."""

    samples: Sequence[Sample]
    groups: list[list[int]] = field(default_factory=list)
    refused: dict[int, Refused] = field(default_factory=dict)
    stray: list[Refused] = field(default_factory=list)  # refused without saying which sample it was

    def set_aside(self) -> list[Refused]:
        """All that was refused, in order."""
        return [*(self.refused[position] for position in sorted(self.refused)), *self.stray]


def chunk_of(
    samples: Sequence[Sample],
    now: float,
    size: int = 1000,
    refuses: Callable[[Sample, float], Refused | None] = refusal,
) -> Chunk:
    """A chunk whose invalid samples are already refused; the others go in requests of at most `size`."""
    chunk = Chunk(samples)
    valid = []
    for position, sample in enumerate(samples):
        refused = refuses(sample, now)
        if refused is None:
            valid.append(position)
        else:
            chunk.refused[position] = refused
    chunk.groups = [valid[start : start + size] for start in range(0, len(valid), size)]
    return chunk


class ChunkSender:
    """Sends chunks.

    Parameters
    ----------
    client : SampleClient
    target : ApiTarget
    clock, sleep, random : callable
        Monotonic seconds; waiting; numbers in [0, 1).
    """

    def __init__(
        self,
        client: SampleClient,
        target: ApiTarget,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT, jitter=1.0, chance=random)
        self._not_before = clock()
        self._requests = TokenBucket(target.requests_per_second, 1.0, clock)
        self._samples = TokenBucket(target.samples_per_second, min(target.chunk, target.samples_per_second), clock)

    def send(self, chunk: Chunk) -> None:
        """Send what is left of the chunk.

        Raises
        ------
        RetryLater
            Call again with the same chunk: what has been dealt with is not sent again. `SendingPaused` when only an
            operator can help.
        """
        while chunk.groups:
            group = chunk.groups[0]
            samples = [chunk.samples[position] for position in group]
            answer = self._call(partial(self._client.send, samples), len(group))
            verdict = responses.read(answer.status, answer.headers, answer.body, len(group), time.time())
            if verdict.outcome is Outcome.SPLIT:
                half = len(group) // 2
                chunk.groups[:1] = [group[:half], group[half:]]
                continue
            if verdict.outcome is not Outcome.TAKEN:
                raise self._later(verdict)
            self._note(chunk, group, verdict)
            if verdict.again and verdict.why:
                raise self._later(verdict)
            self._backoff.reset()

    def ask(self, call: Callable[[], Response]) -> Response:
        """The answer to another request than samples, at the same pace; RetryLater or Paused when it is no success."""
        answer = self._call(call, 0)
        if not 200 <= answer.status < 300:
            verdict = responses.read(answer.status, answer.headers, answer.body, 1, time.time())
            outcome = Outcome.LATER if verdict.outcome is Outcome.LATER else Outcome.PAUSE
            why = verdict.why or answer.body[:200].decode(errors="replace")
            raise self._later(ParsedResponse(outcome, f"status {answer.status}: {why}", verdict.after))
        self._backoff.reset()
        return answer

    def _call(self, call: Callable[[], Response], samples: int) -> Response:
        """One request, when its time has come; RetryLater when there is no answer."""
        wait = self._not_before - self._clock()
        if wait > 0:
            raise RetryLater("waiting before the next try", after=wait)
        self._pace(samples)
        try:
            return call()
        except Unreachable as error:
            why = str(error)
        raise self._later(ParsedResponse(Outcome.LATER, why))

    def _note(self, chunk: Chunk, group: list[int], verdict: ParsedResponse) -> None:
        for index, (code, description) in verdict.refused.items():
            chunk.refused[group[index]] = Refused(chunk.samples[group[index]], code, description)
        for code, description in verdict.stray:
            where = {"one_of": len(group), "timestamp": chunk.samples[group[0]].get("timestamp")}
            chunk.stray.append(Refused(where, code, f"{description} (the API did not say of which sample)"))
        chunk.groups[:1] = [[group[index] for index in verdict.again]] if verdict.again else []

    def _later(self, verdict: ParsedResponse) -> RetryLater:
        if verdict.outcome is Outcome.PAUSE:
            wait = max(PAUSE, verdict.after)
            self._not_before = self._clock() + wait
            return SendingPaused(f"the API takes nothing: {verdict.why}; check the token and the address", after=wait)
        wait = max(verdict.after, self._backoff.next())
        self._not_before = self._clock() + wait
        return RetryLater(f"the API did not take the samples: {verdict.why}", after=wait)

    def _pace(self, samples: int) -> None:
        """Wait until the account's quota allows so many more."""
        while (missing := max(self._requests.wait(1.0), self._samples.wait(samples))) > 0:
            self._sleep(missing)
        self._requests.take(1.0)
        self._samples.take(samples)
