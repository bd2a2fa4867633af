"""What one collector answered about rows that it refused or degraded: cumulative counts, counted once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from zmon._wire.checks import short_detail
from zmon._wire.control import Ack
from zmon._wire.tally import REASONS

New = tuple[str, int, str]  # reason, rows, detail


class Answers:
    """Counts of one collector for one stream.

    A collector that lost its store counts from zero again; what it had counted before stays counted. No collector has
    more than REASONS reasons: further ones are ignored.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()  # rows by reason
        self.degraded: Counter[str] = Counter()
        self._last: tuple[dict[str, int], dict[str, int]] = {}, {}

    def follow(self, other: Answers) -> None:
        """Take over what another collector answered about rows that this one does not get."""
        self.refused |= other.refused
        self.degraded |= other.degraded

    def add(self, ack: Ack) -> list[New]:
        """Count what an acknowledgement adds, and return it for the log."""
        news = []
        for totals, last, answers in zip(
            (self.refused, self.degraded), self._last, (ack.refused, ack.degraded), strict=True
        ):
            for reason, rows, detail in _added(last, answers):
                totals[reason] += rows
                news.append((reason, rows, detail))
        return news


def _added(before: dict[str, int], answers: Mapping[str, tuple[int, str]]) -> Iterator[New]:
    for name, (rows, detail) in answers.items():
        reason = short_detail(name)
        if reason not in before and len(before) >= REASONS:
            continue
        known = before.get(reason, 0)
        before[reason] = rows
        added = rows - known if rows >= known else rows
        if added:
            yield reason, added, detail
