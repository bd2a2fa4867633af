"""The position of a stream: which rows have arrived, which are duplicates, how many are lost. Pure.

Rows are settled exactly once, and one number is enough to know which:

- Rows are accepted in order only. Rows that come early, while the publisher still holds what is missing before them,
  are left: the publisher goes back to the last acknowledgement and sends them again. So no set of gaps is kept.
- Every message carries its `base`, the oldest row that the publisher still holds. Rows below it that have not arrived
  never will, so they are lost, exactly.
- Acknowledgements and tallies are cumulative: a lost one is covered by the next, and a repeated one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zmon._wire.control import Greeting
from zmon._wire.frames import Message
from zmon._wire.tally import FOLDED, REASONS, fold, merge_tallies
from zmon.names import OTHER_REASON

Place = Callable[[str], str | None]


class StreamPosition:
    """Position of one publisher incarnation: every row up to `row` has been settled."""

    __slots__ = ("issued", "row", "tally")

    def __init__(self, row: int) -> None:
        self.row = row
        self.issued = row
        self.tally: Mapping[str, Any] = {}

    def accept(self, message: Message) -> tuple[int, int]:
        """Move the position over rows that are lost for good, then over the message's rows if they are next.

        Return how many of the message's rows are not new (all of them if it is not next), and how many rows are lost.
        """
        lost = self.write_off(message.base - 1)
        last = message.first + message.rows - 1
        if last <= self.row or message.first > self.row + 1:
            return message.rows, lost
        skip = self.row + 1 - message.first
        self.row = last
        self.issued = max(self.issued, last)
        return skip, lost

    def write_off(self, row: int) -> int:
        """Give up rows up to `row` that have not arrived; return how many those are."""
        lost = max(0, row - self.row)
        self.row += lost
        return lost

    def update_tally(
        self, tally: Mapping[str, Any], place: Place = lambda reason: reason, most: int = REASONS
    ) -> list[tuple[str, str, int]]:
        """Raise the cumulative tally; return what it adds to the last one as (kind, reason, rows).

        At most `most` reasons of a kind are counted by name, those for which `place` returns one; see `fold`.

        A greeting overtakes batches that were sent before it, on another socket. Their older tallies change nothing: a
        tally that went back would be counted again when the next one comes.
        """
        last, now = dict(self.tally), dict(tally)
        for kind in ("rejected", "degraded"):
            if kind in last or kind in now:
                last[kind], now[kind] = fold(last.get(kind, {}), now.get(kind, {}), place, most)
        self.tally = merge_tallies(last, now)
        added = [(kind, "", self.tally.get(kind, 0) - last.get(kind, 0)) for kind in ("sampled_out", "lost")]
        for kind in ("rejected", "degraded"):
            before = last.get(kind, {})
            added += [
                (kind, OTHER_REASON if why == FOLDED else why, rows - before.get(why, 0))
                for why, rows in self.tally.get(kind, {}).items()
            ]
        return [count for count in added if count[2] > 0]

    def hand_over(self, greeting: Greeting, store_id: bytes) -> bool:
        """Take as settled what another collector has settled, by the publisher's account; return whether that is news.

        The stream has moved here, or come back: those rows and counts are with the other collector. A publisher of
        release 0.1 does not account for it.
        """
        if greeting.counted is None or greeting.store == store_id:
            return False
        before = self.row, self.tally
        self.row = max(self.row, greeting.acked)
        self.issued = max(self.issued, self.row)
        self.tally = merge_tallies(self.tally, greeting.counted)
        return before != (self.row, self.tally)


def first_contact(greeting: Greeting, store_id: bytes) -> StreamPosition:
    """Return where a stream begins that is known only by its greeting: after what was settled of it elsewhere.

    If the store of this `store_id` acknowledged it and does not know it any more, its rows are lost there: the stream
    begins at 0, so the rows that the publisher no longer holds are counted as lost.
    """
    position = StreamPosition(0 if greeting.store == store_id else greeting.acked)
    position.issued = greeting.issued
    if greeting.counted is not None:
        position.tally = greeting.counted
    elif greeting.acked:  # release 0.1: about what the collector that acknowledged has counted
        position.tally = greeting.tally
    return position
