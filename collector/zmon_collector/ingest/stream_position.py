"""What has arrived of each stream: position, duplicates, exact loss. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from zmon._wire.control import Greeting
from zmon._wire.frames import Message, Topic


class Verdict(NamedTuple):
    """What to do with a message: its rows from `skip` on are new (none when `skip` is its row count)."""

    skip: int
    lost: int


class StreamPosition:
    """One publisher incarnation: everything up to `row` has been settled.

    Rows that come too early (the publisher still holds what is missing before them) are not taken: they come again
    when the publisher goes back to the last acknowledgement. So a single number says what has arrived.
    """

    __slots__ = ("ends_at", "issued", "left", "row", "seed", "tally", "topic")

    def __init__(self, topic: Topic, row: int, seed: int) -> None:
        self.topic = topic
        self.row = row
        self.seed = seed
        self.issued = row
        self.left = False  # said goodbye
        self.ends_at: float | None = None  # after a goodbye: when what has not arrived counts as lost
        self.tally: Mapping[str, Any] = {}

    def offer(self, message: Message) -> Verdict:
        """Take a message in; moves the position over what is lost for good and over the message's rows."""
        lost = self.advance(message.base - 1)
        last = message.first + message.rows - 1
        if last <= self.row or message.first > self.row + 1:
            return Verdict(message.rows, lost)
        skip = self.row + 1 - message.first
        self.row = last
        self.issued = max(self.issued, last)
        return Verdict(skip, lost)

    def advance(self, row: int) -> int:
        """Everything up to `row` will never come if it has not by now; how many rows that loses."""
        lost = max(0, row - self.row)
        self.row += lost
        return lost

    def news(self, tally: Mapping[str, Any]) -> list[tuple[str, str, int]]:
        """What a cumulative tally adds to the last one: (kind, reason, rows)."""
        if not tally or tally == self.tally:
            return []
        known = self.tally
        news = [("sampled_out", "", tally.get("sampled_out", 0) - known.get("sampled_out", 0))]
        before = known.get("rejected", {})
        news += [("rejected", why, rows - before.get(why, 0)) for why, rows in tally.get("rejected", {}).items()]
        self.tally = tally
        return [each for each in news if each[2] > 0]


def first_contact(greeting: Greeting, seed: int, store: bytes) -> StreamPosition:
    """A stream met by its hello: a fresh collector begins where the stream's last one had acknowledged.

    If that was this collector's own `store`, which knows nothing of it any more, then the store has lost it: the rows
    that the publisher does not hold any more are lost.
    """
    stream = StreamPosition(greeting.topic, 0 if greeting.store == store else greeting.acked, seed)
    stream.issued = greeting.issued
    if greeting.acked:
        stream.tally = greeting.tally  # counted by the collector that acknowledged
    return stream
