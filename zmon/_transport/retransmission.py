"""When rows that a collector has not acknowledged are sent again, although its connection holds. Pure.

A connection delivers what it was given, so this is for rows that the collector had to pass over. A collector that has
much to do acknowledges late, and rows that are sent again then only add to what it has to do. So the wait follows the
time that acknowledgements take, and begins when the collector has said something: while it says nothing, it reads
nothing either.
"""

from __future__ import annotations

FIRST = 1.0  # seconds in which a collector says something and acknowledges nothing, at least
LONGEST = 30.0
MARGIN = 2.0  # times the latency of late
DECAY = 0.9  # of the latency, with each acknowledgement: after a jam the wait becomes short again


class Retransmission:
    """The retransmission timer of one collector. Its times are monotonic, in seconds.

    The wait doubles with each time in a row. As in TCP (RFC 6298), only rows that were sent once tell a latency and
    end the doubling: an acknowledgement of others may be of the first or of the second sending.

    Examples
    --------
    >>> timer = Retransmission()
    >>> timer.begin()
    >>> timer.is_due(5.0)
    False
    >>> timer.hear(5.0)
    >>> timer.is_due(5.9), timer.is_due(6.1)
    (False, True)
    >>> timer.advance(4.0)
    >>> timer.wait
    8.0
    """

    __slots__ = ("_heard", "_latency", "_times")

    def __init__(self) -> None:
        self._heard: float | None = None  # when the collector said something first, since sending or progress
        self._latency = 0.0
        self._times = 0

    @property
    def wait(self) -> float:
        """Seconds without progress after which rows are sent again."""
        return min(max(FIRST, MARGIN * self._latency) * 2.0 ** min(self._times, 16), LONGEST)

    def begin(self) -> None:
        """Note that the first row is under way, or all are once more."""
        self._heard = None

    def hear(self, now: float) -> None:
        """Note that the collector has said something."""
        if self._heard is None:
            self._heard = now

    def advance(self, latency: float | None) -> None:
        """Note that rows were acknowledged, so many seconds after they were sent; None if they were sent twice."""
        self._heard = None
        if latency is not None:
            self._times = 0
            self._latency = max(latency, DECAY * self._latency)

    def is_due(self, now: float) -> bool:
        """Return whether what is under way should be sent again."""
        return self._heard is not None and now - self._heard > self.wait

    def repeat(self) -> None:
        """Note that everything is sent again."""
        self._times += 1
        self.begin()
