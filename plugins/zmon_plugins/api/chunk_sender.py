"""Send chunks of samples to the API: within the account's quota, again after failures, each sample settled once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from zmon.backoff import Backoff
from zmon.contract import Refused
from zmon.errors import RetryLater
from zmon_plugins.anodot import refusal
from zmon_plugins.api import responses
from zmon_plugins.api.pace import Clock, TokenBucket
from zmon_plugins.api.responses import Outcome, ParsedResponse
from zmon_plugins.api.target import ApiTarget
from zmon_plugins.http.response import Response, Unreachable

if TYPE_CHECKING:  # it imports the HTTP library, which only a sink that is opened needs
    from zmon_plugins.api.client import Client

log = logging.getLogger("zmon.anodot")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds after failures, shortened at random
PAUSE = 60.0  # seconds between attempts while the API rejects the token

Sample = Mapping[str, Any]
Check = Callable[[Sample, float], Refused | None]  # of a sample at a time, in epoch seconds


class SendingPaused(RetryLater):
    """The API accepts nothing until an operator acts: a wrong or inactive token, or a wrong address."""


@dataclass(slots=True)
class Chunk:
    """Samples in delivery: `groups` of positions are still to be sent, `refused` ones are kept by position."""

    samples: Sequence[Sample]
    groups: list[list[int]] = field(default_factory=list)
    refused: dict[int, Refused] = field(default_factory=dict)
    stray: list[Refused] = field(default_factory=list)  # refusals that name no sample

    def set_aside(self) -> list[Refused]:
        """Return all refusals, in order."""
        return [*(self.refused[position] for position in sorted(self.refused)), *self.stray]


def chunk_of(samples: Sequence[Sample], now: float, size: int = 1000, refuses: Check = refusal) -> Chunk:
    """Return a chunk whose invalid samples are already refused; the others form requests of at most `size`."""
    verdicts = [refuses(sample, now) for sample in samples]
    valid = [position for position, refused in enumerate(verdicts) if refused is None]
    groups = [valid[start : start + size] for start in range(0, len(valid), size)]
    return Chunk(samples, groups, {position: refused for position, refused in enumerate(verdicts) if refused})


class ChunkSender:
    """Sends chunks.

    Parameters
    ----------
    client : Client
    target : ApiTarget
    clock : Clock
    random : callable
        Returns numbers in [0, 1), for the jitter of waits.
    """

    def __init__(
        self, client: Client, target: ApiTarget, clock: Clock = time, random: Callable[[], float] = random.random
    ) -> None:
        now = clock.monotonic
        self._client = client
        self._clock = clock
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT, jitter=1.0, chance=random)
        self._not_before = now()
        self._requests = TokenBucket(target.requests_per_second, 1.0, now)
        self._samples = TokenBucket(target.samples_per_second, min(target.chunk, target.samples_per_second), now)

    def send(self, chunk: Chunk) -> None:
        """Send the rest of the chunk.

        Raises
        ------
        RetryLater
            Call again with the same chunk: settled samples are not sent again. `SendingPaused` if only an operator
            can help.
        """
        while chunk.groups:
            group = chunk.groups[0]
            samples = [chunk.samples[position] for position in group]
            response = self._call(partial(self._client.send, samples), len(group))
            parsed = responses.read(response, len(group), time.time())
            if parsed.outcome is Outcome.SPLIT:
                half = len(group) // 2
                chunk.groups[:1] = [group[:half], group[half:]]
                continue
            if parsed.outcome is not Outcome.TAKEN:
                raise self._retry(parsed)
            self._settle(chunk, group, parsed)
            if parsed.again and parsed.why:
                raise self._retry(parsed)
            self._backoff.reset()

    def request(self, call: Callable[[], Response]) -> Response:
        """Make another request than samples, at the same pace; RetryLater or SendingPaused if it does not succeed."""
        response = self._call(call, 0)
        if not 200 <= response.status < 300:
            parsed = responses.read(response, 1, time.time())
            outcome = Outcome.LATER if parsed.outcome is Outcome.LATER else Outcome.PAUSE
            why = parsed.why or response.body[:200].decode(errors="replace")
            raise self._retry(ParsedResponse(outcome, f"status {response.status}: {why}", parsed.after))
        self._backoff.reset()
        return response

    def _call(self, call: Callable[[], Response], samples: int) -> Response:
        """Make one request within the quota; RetryLater before its time, or without a response."""
        wait = self._not_before - self._clock.monotonic()
        if wait > 0:
            raise RetryLater("waiting before the next attempt", after=wait)
        self._pace(samples)
        try:
            return call()
        except Unreachable as error:
            why = str(error)
        raise self._retry(ParsedResponse(Outcome.LATER, why))

    def _settle(self, chunk: Chunk, group: list[int], parsed: ParsedResponse) -> None:
        for index, (code, description) in parsed.refused.items():
            chunk.refused[group[index]] = Refused(chunk.samples[group[index]], code, description)
        for code, description in parsed.stray:
            where = {"one_of": len(group), "timestamp": chunk.samples[group[0]].get("timestamp")}
            chunk.stray.append(Refused(where, code, f"{description} (the API did not say of which sample)"))
        chunk.groups[:1] = [[group[index] for index in parsed.again]] if parsed.again else []

    def _retry(self, parsed: ParsedResponse) -> RetryLater:
        """Set the time of the next attempt, and return the exception that says so."""
        paused = parsed.outcome is Outcome.PAUSE
        wait = max(PAUSE, parsed.after) if paused else max(parsed.after, self._backoff.next())
        self._not_before = self._clock.monotonic() + wait
        if paused:
            return SendingPaused(f"the API accepts nothing: {parsed.why}; check the token and the address", after=wait)
        return RetryLater(f"the API did not accept the samples: {parsed.why}", after=wait)

    def _pace(self, samples: int) -> None:
        """Wait until the account's quota allows one more request with this number of samples."""
        while (missing := max(self._requests.wait(1.0), self._samples.wait(samples))) > 0:
            self._clock.sleep(missing)
        self._requests.take(1.0)
        self._samples.take(samples)
