"""What a publisher counts, in rows: the snapshot users read, and the rate-limited log lines that go with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from zmon._transport import threads
from zmon._wire.frames import TALLY_REASONS

log = logging.getLogger("zmon")

LOG_EVERY = 300.0  # seconds between two log lines of one reason


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of what a publisher has done, in rows.

    Attributes
    ----------
    published : int
        Rows taken in and numbered, those of `publish_labels` included.
    acknowledged : int
        Rows that every collector has acknowledged.
    queued_bytes : int
        Bytes held in memory, bounded by ``buffer_bytes``.
    connected : bool
        A collector listens and answers.
    sampled_out : int
        Rows left out because of ``sample_rate``.
    dropped : mapping of str to int
        Rows taken in and given up, by reason: ``buffer_full``, ``closed``. An upper bound: an acknowledgement may
        have been under way. The collector's own count of lost rows is exact.
    rejected : mapping of str to int
        Rows refused, by reason; docs/publisher.md lists the reasons.
    labels : int
        How many of the published rows came by `publish_labels`.
    """

    published: int
    acknowledged: int
    queued_bytes: int
    connected: bool
    sampled_out: int
    dropped: Mapping[str, int]
    rejected: Mapping[str, int]
    labels: int = 0


class Counters:
    """Counts of rows that were not published, by reason. Safe from many threads."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threads.lock()
        self._rejected: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._sampled_out = 0
        self._logged: dict[str, float] = {}

    def reject(self, reason: str, detail: str, rows: int) -> None:
        self._count(self._rejected, reason, rows)
        self._log(reason, "zmon: %s rows of model %r rejected (%s): %s", rows, self._model, reason, detail)

    def drop(self, reason: str, rows: int) -> None:
        self._count(self._dropped, reason, rows)
        self._log(reason, "zmon: %s rows of model %r dropped (%s)", rows, self._model, reason)

    def sample_out(self, rows: int) -> None:
        with self._lock:
            self._sampled_out += rows

    def tally(self) -> Mapping[str, Any]:
        """Cumulative counts for the collector: rows of this stream that will never come."""
        if not self._sampled_out and not self._rejected:
            return {}
        with self._lock:
            return {"sampled_out": self._sampled_out, "rejected": dict(self._rejected)}

    def stats(
        self, *, published: int, labels: int, delivered: int, queued: int, overflowed: int, connected: bool
    ) -> Stats:
        """The snapshot, completed by what the ring and the transport know."""
        with self._lock:
            dropped = dict(self._dropped)
            rejected = dict(self._rejected)
        if overflowed:
            dropped["buffer_full"] = overflowed
        return Stats(
            published=published,
            acknowledged=delivered,
            queued_bytes=queued,
            connected=connected,
            sampled_out=self._sampled_out,
            dropped=MappingProxyType(dropped),
            rejected=MappingProxyType(rejected),
            labels=labels,
        )

    def _count(self, counts: dict[str, int], reason: str, rows: int) -> None:
        with self._lock:
            if reason not in counts and len(counts) >= TALLY_REASONS - 1:
                reason = "other"
            counts[reason] = counts.get(reason, 0) + rows

    def _log(self, reason: str, text: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._logged.get(reason, -LOG_EVERY) >= LOG_EVERY:
            self._logged[reason] = now
            log.warning(text, *args)
