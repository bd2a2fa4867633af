"""Sends the samples of files that no earlier run has dealt with, in order, and notes each answer down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zmon_plugins.anodot import refusal
from zmon_plugins.api.chunk_sender import Chunk, ChunkSender, Paused, chunk_of
from zmon_plugins.api.client import Client
from zmon_plugins.api.target import ApiTarget

from zmon.errors import RetryLater, ZmonError
from zmon_collector.jobs.push.files import read
from zmon_collector.jobs.push.ledger import PushLedger, Reason
from zmon_collector.jobs.push.plan import PlannedReport, Span, entries, groups

PATIENCE = 300.0  # seconds in which no sample gets through; then it stops, to go on another time


class Stopped(ZmonError):  # noqa: N818 - the run ends early, by intent
    """The API takes nothing; the text says why. The same command goes on later."""


@dataclass(slots=True)
class Summary:
    """What became of the samples."""

    files: int = 0
    samples: int = 0
    dealt: int = 0  # accepted or refused
    earlier: int = 0  # of these, by earlier runs
    refused: int = 0
    reasons: list[Reason] = field(default_factory=list)
    names: dict[str, Path] = field(default_factory=dict)  # by digest


def check(paths: Sequence[Path], told: Callable[[int], None]) -> Summary:
    """Validate only."""
    summary = Summary()
    found: dict[str, Reason] = {}
    now = time.time()
    for path in paths:
        file = read(path)
        summary.files += 1
        summary.names[file.digest] = path
        for place, sample in enumerate(file.samples):
            summary.samples += 1
            refused = refusal(sample, now)
            if refused is not None:
                summary.refused += 1
                had = found.get(refused.code)
                found[refused.code] = (
                    Reason(refused.code, 1, refused.description, file.digest, place)
                    if had is None
                    else had._replace(samples=had.samples + 1)
                )
        told(1)
    summary.dealt = summary.samples
    summary.reasons = sorted(found.values(), key=lambda reason: -reason.samples)
    return summary


class Run:
    """One `zmon push`.

    Parameters
    ----------
    paths : sequence of Path
    target : ApiTarget
    token : str
    done : PushLedger
    """

    def __init__(self, paths: Sequence[Path], target: ApiTarget, token: str, done: PushLedger) -> None:
        self.summary = Summary()
        self._target = target
        self._done = done
        self._paths: dict[str, Path] = {}  # the same content twice is one file
        self._spans = []
        for path in paths:
            file = read(path)
            if file.digest not in self._paths:
                self._paths[file.digest] = path
                self._spans.append(Span(file.digest, file.first, file.last))
                self.summary.samples += len(file.samples)
                self.summary.earlier += done.places(file.digest).bit_count()
        self.summary.files = len(self._paths)
        self.summary.names = dict(self._paths)
        self.summary.dealt = self.summary.earlier
        self._client = Client(target, token)
        self._courier = ChunkSender(self._client, target, clock=time.monotonic, sleep=time.sleep, random=random.random)

    def send(self, told: Callable[[int, str], None]) -> None:
        """Send everything; `told` gets the number of samples dealt with, and why it waits, if it does.

        Raises
        ------
        Stopped
            When the API refuses the token, or nothing gets through for `PATIENCE` seconds.
        """
        try:
            for chunk in self._chunks():
                self._deliver(chunk, told)
        finally:
            self._client.close()
            self.summary.reasons = self._done.reasons(self._paths)
            self.summary.refused = sum(reason.samples for reason in self.summary.reasons)

    def _chunks(self) -> Iterator[list[PlannedReport]]:
        waiting: list[PlannedReport] = []
        for group in groups(self._spans):
            dealt = {digest: self._done.places(digest) for digest in group}
            files = [read(self._paths[digest]) for digest in group]
            waiting += [entry for entry in entries(files) if not dealt.get(entry.digest, 0) >> entry.place & 1]
            while len(waiting) >= self._target.chunk:
                yield waiting[: self._target.chunk]
                del waiting[: self._target.chunk]
        if waiting:
            yield waiting

    def _deliver(self, batch: list[PlannedReport], told: Callable[[int, str], None]) -> None:
        chunk = chunk_of([entry.sample for entry in batch], time.time(), self._target.chunk)
        noted: set[int] = set()
        since = time.monotonic()
        while True:
            failure: RetryLater | None = None
            try:
                self._courier.send(chunk)
            except RetryLater as error:
                failure = error
            news = self._note(batch, chunk, noted)
            if failure is None:
                told(news, "")
                return
            told(news, str(failure))
            since = time.monotonic() if news else since
            if isinstance(failure, Paused) or time.monotonic() - since > PATIENCE:
                raise Stopped(str(failure))
            time.sleep(min(failure.after, PATIENCE))

    def _note(self, batch: list[PlannedReport], chunk: Chunk, noted: set[int]) -> int:
        """Write down what the last answers have settled; how many samples that is."""
        left = {position for group in chunk.groups for position in group}
        news = [position for position in range(len(batch)) if position not in left and position not in noted]
        if news:
            refused = [
                (*batch[position][:2], chunk.refused[position].code, chunk.refused[position].description)
                for position in news
                if position in chunk.refused
            ]
            unsure = [position for position in news if position not in chunk.refused]
            refused += [  # the API did not say which: told under the first samples that it may be
                (*batch[position][:2], stray.code, stray.description)
                for position, stray in zip(unsure, chunk.stray, strict=False)
            ]
            chunk.stray.clear()
            self._done.settle([batch[position][:2] for position in news], refused)
            noted.update(news)
            self.summary.dealt += len(news)
        return len(news)
