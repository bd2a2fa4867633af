"""What the collector refused or degraded of a stream, for its publisher; and the newest details, for operators."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zmon._wire.checks import short_detail
from zmon._wire.tally import MAX_NUMBER

REASONS = 32  # of one stream and kind; further ones are answered as OTHER
OTHER = "other"
DETAILS = 256  # of one model, while there are few models
OF_ONE_AGENT = 64  # of these
ALL_DETAILS, LEAST_DETAILS = 20_000, 16  # of all models together, and of each however many there are

Counts = Mapping[str, tuple[int, str]]  # rows and the newest detail, by reason
NOTHING: Counts = {}


class Answers:
    """Rows of one stream that the collector refused or degraded: by reason, with the newest detail; cumulative.

    They are journaled with the stream's position, in the turn that settles the rows.
    """

    __slots__ = ("degraded", "refused")

    def __init__(self, plain: Mapping[str, Any] | None = None) -> None:
        self.refused: dict[str, tuple[int, str]] = {}
        self.degraded: dict[str, tuple[int, str]] = {}
        if plain:
            self.refused = {why: tuple(each) for why, each in plain.get("refused", {}).items()}
            self.degraded = {why: tuple(each) for why, each in plain.get("degraded", {}).items()}

    def add(self, kind: str, rows: int, reason: str, detail: str) -> None:
        """Count rows; `kind` is ``"rejected"`` or ``"degraded"``."""
        counts = self.refused if kind == "rejected" else self.degraded
        if reason not in counts and len(counts) >= REASONS:
            reason = OTHER
        counts[reason] = min(counts.get(reason, (0, ""))[0] + rows, MAX_NUMBER), short_detail(detail)

    def copied(self) -> tuple[Counts, Counts]:
        """Return what was refused and what was degraded, as it is now."""
        return (dict(self.refused), dict(self.degraded)) if self.refused or self.degraded else (NOTHING, NOTHING)

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain data, for the journal; empty if there are none."""
        return {"refused": self.refused, "degraded": self.degraded} if self.refused or self.degraded else {}


class Detail(NamedTuple):
    """Why rows of an agent were rejected or degraded, the newest time."""

    kind: str  # "rejected" or "degraded"
    reason: str
    agent: str
    detail: str
    time: float  # epoch seconds


class Details:
    """The newest detail of a model's rejected and degraded rows, by kind, reason and agent; the oldest are dropped,
    those of an agent with many of its own first.

    The collector's thread writes, and the page's threads read. `models` returns how many share the room.
    """

    def __init__(self, models: Callable[[], int] = lambda: 1) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._details: OrderedDict[tuple[str, str, str], Detail] = OrderedDict()

    def note(self, detail: Detail) -> bool:
        """Keep a detail; return whether it is the first of its kind, reason and agent."""
        key = detail[:3]
        shown = detail._replace(reason=short_detail(detail.reason), detail=short_detail(detail.detail))
        with self._lock:
            first = key not in self._details
            self._details[key] = shown
            self._details.move_to_end(key)
            own = [other for other in self._details if other[2] == detail.agent] if first else []
            if len(own) > OF_ONE_AGENT:
                del self._details[own[0]]
            most = max(LEAST_DETAILS, min(DETAILS, ALL_DETAILS // max(1, self._models())))
            while len(self._details) > most:
                self._details.popitem(last=False)
        return first

    def newest(self) -> list[Detail]:
        """Return the details, newest first."""
        with self._lock:
            return list(reversed(self._details.values()))
