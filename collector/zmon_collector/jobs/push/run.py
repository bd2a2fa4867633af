"""Send the samples that no earlier run has settled, in order, and record every answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zmon_plugins.anodot import refusal
from zmon_plugins.api.chunk_sender import Chunk, ChunkSender, SendingPaused, chunk_of
from zmon_plugins.api.client import Client
from zmon_plugins.api.target import ApiTarget

from zmon.errors import RetryLater, ZmonError
from zmon_collector.jobs.push.files import read_file
from zmon_collector.jobs.push.ledger import PushLedger, RefusalReason
from zmon_collector.jobs.push.plan import FileSpan, PlannedSample, overlapping_files, samples_in_order

PATIENCE = 300.0  # seconds without progress after which the run stops


class PushStopped(ZmonError):  # noqa: N818 - the run ends early, by intent
    """The API accepts nothing at the moment; the message says why. The same command resumes later."""


@dataclass(slots=True)
class PushSummary:
    """Outcome of a run: numbers of samples, and the reasons of refusals."""

    files: int = 0
    samples: int = 0
    settled: int = 0  # accepted or refused
    earlier: int = 0  # settled by earlier runs
    refused: int = 0
    reasons: list[RefusalReason] = field(default_factory=list)
    names: dict[str, Path] = field(default_factory=dict)  # by digest


def validate_files(paths: Sequence[Path], advance: Callable[[int], None]) -> PushSummary:
    """Check the samples of files against Anodot's rules, and send nothing."""
    summary = PushSummary()
    reasons: dict[str, RefusalReason] = {}
    now = time.time()
    for path in paths:
        file = read_file(path)
        summary.files += 1
        summary.names[file.digest] = path
        for place, sample in enumerate(file.samples):
            summary.samples += 1
            refused = refusal(sample, now)
            if refused is not None:
                summary.refused += 1
                first = RefusalReason(refused.code, 0, refused.description, file.digest, place)
                reason = reasons.get(refused.code, first)
                reasons[refused.code] = reason._replace(samples=reason.samples + 1)
        advance(1)
    summary.settled = summary.samples
    summary.reasons = sorted(reasons.values(), key=lambda reason: -reason.samples)
    return summary


class PushRun:
    """One `zmon push`.

    Parameters
    ----------
    paths : sequence of Path
    target : ApiTarget
    token : str
    ledger : PushLedger
    """

    def __init__(self, paths: Sequence[Path], target: ApiTarget, token: str, ledger: PushLedger) -> None:
        self.summary = PushSummary()
        self._target = target
        self._ledger = ledger
        self._paths: dict[str, Path] = {}  # by digest: two files of the same content are one
        self._spans = []
        for path in paths:
            file = read_file(path)
            if file.digest not in self._paths:
                self._paths[file.digest] = path
                self._spans.append(FileSpan(file.digest, file.first, file.last))
                self.summary.samples += len(file.samples)
                self.summary.earlier += ledger.places(file.digest).bit_count()
        self.summary.files = len(self._paths)
        self.summary.names = dict(self._paths)
        self.summary.settled = self.summary.earlier
        self._client = Client(target, token)
        self._sender = ChunkSender(self._client, target)

    def send(self, advance: Callable[[int, str], None]) -> None:
        """Send everything; call `advance` with the number of samples settled, and why the run waits, if it does.

        Raises
        ------
        Stopped
            When the API refuses the token, or nothing gets through for `PATIENCE` seconds.
        """
        try:
            for chunk in self._chunks():
                self._deliver(chunk, advance)
        finally:
            self._client.close()
            self.summary.reasons = self._ledger.reasons(self._paths)
            self.summary.refused = sum(reason.samples for reason in self.summary.reasons)

    def _chunks(self) -> Iterator[list[PlannedSample]]:
        waiting: list[PlannedSample] = []
        for group in overlapping_files(self._spans):
            settled = {digest: self._ledger.places(digest) for digest in group}
            files = [read_file(self._paths[digest]) for digest in group]
            waiting += [
                entry for entry in samples_in_order(files) if not settled.get(entry.digest, 0) >> entry.place & 1
            ]
            while len(waiting) >= self._target.chunk:
                yield waiting[: self._target.chunk]
                del waiting[: self._target.chunk]
        if waiting:
            yield waiting

    def _deliver(self, batch: list[PlannedSample], advance: Callable[[int, str], None]) -> None:
        chunk = chunk_of([entry.sample for entry in batch], time.time(), self._target.chunk)
        noted: set[int] = set()
        since = time.monotonic()
        while True:
            failure: RetryLater | None = None
            try:
                self._sender.send(chunk)
            except RetryLater as error:
                failure = error
            settled = self._settle(batch, chunk, noted)
            if failure is None:
                advance(settled, "")
                return
            advance(settled, str(failure))
            since = time.monotonic() if settled else since
            if isinstance(failure, SendingPaused) or time.monotonic() - since > PATIENCE:
                raise PushStopped(str(failure))
            time.sleep(min(failure.after, PATIENCE))

    def _settle(self, batch: list[PlannedSample], chunk: Chunk, noted: set[int]) -> int:
        """Record the samples that the last answers have settled, and return their number."""
        left = {position for group in chunk.groups for position in group}
        news = [position for position in range(len(batch)) if position not in left and position not in noted]
        if news:
            refused = [
                (*batch[position][:2], chunk.refused[position].code, chunk.refused[position].description)
                for position in news
                if position in chunk.refused
            ]
            unsure = [position for position in news if position not in chunk.refused]
            refused += [  # the API did not say which sample: recorded for the first ones that it may be
                (*batch[position][:2], stray.code, stray.description)
                for position, stray in zip(unsure, chunk.stray, strict=False)
            ]
            chunk.stray.clear()
            self._ledger.settle([batch[position][:2] for position in news], refused)
            noted.update(news)
            self.summary.settled += len(news)
        return len(news)
