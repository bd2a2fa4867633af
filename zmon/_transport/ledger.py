"""Where every row of a publisher is. The engine writes, and each commit is one immutable snapshot that adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from zmon._transport.conversion import Conversion, Loss
from zmon._transport.intake import REFUSED, Intake
from zmon._transport.notices import RateLimit, say
from zmon._wire.checks import short_detail
from zmon._wire.tally import REASONS

Counts = Mapping[str, int]
_NONE: Counts = MappingProxyType({})
DETAILS = 32  # reasons whose latest detail is kept; those of a greeting fit into its header


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of a publisher's counters, in rows.

    It adds up at any moment: every row that was passed to `publish` or `publish_labels` is queued, under way,
    acknowledged, dropped, rejected or sampled out. `published` are all but those rejected here and those sampled out.

    Attributes
    ----------
    published : int
        Rows accepted, including those of `publish_labels`. Rows count from the call on; those that turn out to be bad
        a moment later move to `rejected`.
    acknowledged : int
        Rows that every collector has acknowledged, and none refused.
    queued_bytes : int
        Bytes held in memory, bounded by ``buffer_bytes``. Frames are estimated until converted: of many strings or
        objects, a few stand for the others.
    connected : bool
        Whether a collector is connected and answers.
    sampled_out : int
        Rows left out because of ``sample_rate``.
    dropped : mapping of str to int
        Rows accepted and then discarded, by reason: ``buffer_full``, ``closed``. An upper bound: their
        acknowledgement may have been under way. The collector's count of lost rows is exact.
    rejected : mapping of str to int
        Rows refused here or by a collector, by reason; docs/publisher.md lists the reasons.
    labels : int
        How many of the published rows came from `publish_labels`.
    queued : int
        Rows that wait in this process.
    underway : int
        Rows sent and not acknowledged yet.
    degraded : mapping of str to int
        Rows published without a part that was bad (a label, an id, a column), by reason.
    failed : str
        Why nothing can be sent at the moment; empty if nothing is wrong.
    """

    published: int
    acknowledged: int
    queued_bytes: int
    connected: bool
    sampled_out: int
    dropped: Counts
    rejected: Counts
    labels: int = 0
    queued: int = 0
    underway: int = 0
    degraded: Counts = field(default_factory=dict)
    failed: str = ""


class Entry(NamedTuple):
    """The state of all rows that the engine has settled."""

    ordinal: int = 0  # of the last snapshot settled
    issued: int = 0  # rows with a number
    delivered: int = 0
    underway: int = 0
    pushed_out: int = 0  # of the ring by newer rows
    abandoned: int = 0  # left in the queue when the publisher was closed, so they have no number
    labels: int = 0
    sampled_out: int = 0
    rejected: Counts = _NONE  # here
    refused: Counts = _NONE  # by collectors
    degraded: Counts = _NONE  # here
    degraded_there: Counts = _NONE  # by collectors


class Ledger:
    """Counts by reason, and log lines for them. Only the engine's thread writes."""

    def __init__(self, model: str, intake: Intake) -> None:
        self._intake = intake
        self.entry = Entry()
        self.details: dict[str, str] = {}  # of rows rejected and degraded here, the latest by reason
        self._model = model
        self._limit = RateLimit()
        self._tally: tuple[object, ...] = ()
        self._told: Mapping[str, Any] = {}

    def add(self, conversion: Conversion, ordinal: int, *, issued: int, labels: bool) -> None:
        """Enter a conversion of all snapshots up to `ordinal`, whose rows end with number `issued`."""
        entry = self.entry
        self.entry = entry._replace(
            ordinal=ordinal,
            labels=entry.labels + (issued - entry.issued if labels else 0),
            issued=issued,
            sampled_out=entry.sampled_out + conversion.sampled_out,
            rejected=self._added(entry.rejected, conversion.rejected, "rejected"),
            degraded=self._added(entry.degraded, conversion.degraded, "degraded"),
        )

    def answer(self, refused: Counts, degraded: Counts, news: Iterable[tuple[str, int, str]]) -> None:
        """Enter the totals of what collectors refused or degraded; `news` are the rows that were added.

        A hostile collector may claim any numbers: no more rows count than there are.
        """
        issued = self.entry.issued
        degraded = {reason: min(rows, issued) for reason, rows in degraded.items()}
        self.entry = self.entry._replace(refused=_within(issued, refused), degraded_there=degraded)
        for reason, rows, detail in news:
            kinds = [kind for kind, counts in (("rejected", refused), ("degraded", degraded)) if reason in counts]
            self.say(reason, rows, f"{' or '.join(kinds)} by the collector", detail)

    def move(self, *, delivered: int, underway: int, pushed_out: int) -> None:
        """Enter how far the rows are."""
        self.entry = self.entry._replace(delivered=delivered, underway=underway, pushed_out=pushed_out)

    def abandon(self, rows: int, ordinal: int, *, labels: bool) -> None:
        """Enter rows of all snapshots up to `ordinal`, which are not converted any more."""
        entry = self.entry
        self.entry = entry._replace(
            ordinal=ordinal, labels=entry.labels + (rows if labels else 0), abandoned=entry.abandoned + rows
        )

    def tally(self) -> Mapping[str, Any]:
        """Return cumulative counts for collectors: rows of this stream that never arrive whole, or at all."""
        entry = self.entry
        state = (entry.sampled_out, entry.rejected, entry.degraded, self._intake.overflowed + entry.abandoned)
        if state != self._tally:
            self._tally = state
            names = ("sampled_out", "rejected", "degraded", "lost")
            self._told = {
                name: dict(value) if isinstance(value, Mapping) else value
                for name, value in zip(names, state, strict=True)
                if value
            }
        return self._told

    def stats(self, *, connected: bool, failed: str, after_close: int, ended: bool) -> Stats:
        """Return a snapshot of all rows. Callable from any thread, also in a signal handler or a finalizer."""
        waiting = self._intake.waiting()
        # Read after the queue: whatever has left the queue was entered before, and what was entered and is still in
        # the queue has a place up to this entry's.
        entry, overflowed = self.entry, self._intake.overflowed
        queued: Counter[str] = Counter()
        rejected = Counter(entry.rejected) + Counter(entry.refused)
        for snapshot in waiting:
            if not 0 < snapshot.ordinal <= entry.ordinal:
                queued[snapshot.kind] += snapshot.rows
                if snapshot.kind == REFUSED:
                    rejected[snapshot.arguments.reason] += snapshot.rows
        del queued[REFUSED]
        refused = sum(entry.refused.values())
        # Refused rows that other collectors have not acknowledged are held, or were pushed out; they count as refused.
        held = entry.issued - entry.delivered - entry.pushed_out
        early = max(0, refused - entry.delivered)
        pushed_out = entry.pushed_out - max(0, early - held)
        held -= min(early, held)
        underway = 0 if ended else max(0, min(entry.underway - early, held))
        left = held + queued.total()
        dropped = {
            "buffer_full": pushed_out + overflowed,
            "closed": entry.abandoned + after_close + (left if ended else 0),
        }
        return Stats(
            published=entry.issued + entry.abandoned + queued.total() + overflowed + after_close,
            acknowledged=max(0, entry.delivered - refused),
            queued_bytes=self._intake.nbytes + self._intake.ring_bytes,
            connected=connected,
            sampled_out=entry.sampled_out,
            dropped=MappingProxyType({reason: rows for reason, rows in dropped.items() if rows}),
            rejected=MappingProxyType(dict(rejected)),
            labels=entry.labels + queued["labels"],
            queued=0 if ended else left - underway,
            underway=underway,
            degraded=MappingProxyType(dict(Counter(entry.degraded) + Counter(entry.degraded_there))),
            failed=failed,
        )

    def say(self, reason: str, rows: int, what: str, detail: str) -> None:
        """Log that rows were rejected or the like, at a bounded rate for each reason."""
        if self._limit.allows(f"{what} {reason}"):
            say("zmon: %s rows of model %r %s (%s): %s", rows, self._model, what, reason, short_detail(detail))

    def _added(self, counts: Counts, losses: Iterable[Loss], what: str) -> Counts:
        new = dict(counts)
        for reason, rows, detail in losses:
            if reason not in new and len(new) >= REASONS - 1:
                reason = "other"
            new[reason] = new.get(reason, 0) + rows
            self._keep(reason, detail)
            self.say(reason, rows, what, detail)
        return MappingProxyType(new) if new != counts else counts

    def _keep(self, reason: str, detail: str) -> None:
        """Keep a detail for greetings, in a form that can be sent: it may quote any value."""
        self.details.pop(reason, None)
        self.details[reason] = short_detail(detail)
        if len(self.details) > DETAILS:
            del self.details[next(iter(self.details))]


def _within(most: int, counts: Counts) -> Counts:
    """Return counts whose sum is at most `most`; the later ones are cut."""
    found = {}
    for reason, rows in counts.items():
        found[reason] = min(rows, most)
        most -= found[reason]
    return {reason: rows for reason, rows in found.items() if rows}
