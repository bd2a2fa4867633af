"""A publisher's counters, in rows: the snapshot that users read, and rate-limited log lines for rows not published."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from zmon._transport import threads
from zmon._transport.ring import Ring
from zmon._wire.frames import TALLY_REASONS

log = logging.getLogger("zmon")

LOG_EVERY = 300.0  # seconds between two log lines of one reason


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of a publisher's counters, in rows.

    Attributes
    ----------
    published : int
        Rows accepted and numbered, including those of `publish_labels`.
    acknowledged : int
        Rows that every collector has acknowledged.
    queued_bytes : int
        Bytes held in memory, bounded by ``buffer_bytes``.
    connected : bool
        Whether a collector is connected and answers.
    sampled_out : int
        Rows left out because of ``sample_rate``.
    dropped : mapping of str to int
        Rows accepted and then discarded, by reason: ``buffer_full``, ``closed``. An upper bound: their
        acknowledgement may have been under way. The collector's count of lost rows is exact.
    rejected : mapping of str to int
        Rows refused, by reason; docs/publisher.md lists the reasons.
    labels : int
        How many of the published rows came from `publish_labels`.
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
    """Counts of rows that were not published, by reason. Safe to use from many threads."""

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
        """Return cumulative counts for the collector: rows of this stream that will never arrive."""
        if not self._sampled_out and not self._rejected:
            return {}
        with self._lock:
            return {"sampled_out": self._sampled_out, "rejected": dict(self._rejected)}

    def stats(self, ring: Ring, *, connected: bool, labels: int) -> Stats:
        """Return a snapshot that combines these counts with those of the ring and the publisher."""
        with self._lock:
            dropped, rejected = dict(self._dropped), dict(self._rejected)
        if ring.dropped:
            dropped["buffer_full"] = ring.dropped
        return Stats(
            published=ring.issued,
            acknowledged=ring.delivered,
            queued_bytes=ring.nbytes,
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

    def _log(self, reason: str, line: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._logged.get(reason, -LOG_EVERY) >= LOG_EVERY:
            self._logged[reason] = now
            log.warning(line, *args)
