"""Log lines about a publisher's contact with its collectors: lost, found again, and what was dropped meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from zmon._transport.notices import RateLimit, say
from zmon._transport.settings import Endpoint

PATIENCE = 5.0  # seconds without a collector until a line says so


class Contact:
    """Whether some collector answers, since when, and which lines were logged about it."""

    def __init__(self, model: str, endpoints: Sequence[Endpoint]) -> None:
        self._model = model
        self._where = ", ".join(endpoint.data for endpoint in endpoints)
        self._limit = RateLimit()
        self._since: float | None = None  # without a collector; None while there is one
        self._dropped = 0  # before that
        self._reported = 0  # dropped rows that a line has counted
        self._said = False

    def note(self, now: float, *, connected: bool, waiting: int, dropped: int) -> None:
        """Note the state of a turn: rows that wait, and rows dropped in all."""
        if connected:
            if self._said:
                self._reported = dropped
                say("zmon: model %r reaches a collector at %s again after %.0f s; %d rows were dropped meanwhile",
                    self._model, self._where, now - (self._since or now), dropped - self._dropped)  # fmt: skip
            elif dropped > self._reported and self._limit.allows("dropped", now):
                say("zmon: %d rows of model %r dropped (buffer_full): the collector at %s or this process is too slow; "
                    "raise buffer_bytes, or lower sample_rate",
                    dropped - self._reported, self._model, self._where)  # fmt: skip
                self._reported = dropped
            self._since, self._said, self._dropped = None, False, dropped
            return
        if self._since is None:
            self._since = now
        lost = dropped - self._dropped
        if (lost or (waiting and now - self._since >= PATIENCE)) and self._limit.allows("unreachable", now):
            self._said = True
            say("zmon: model %r has reached no collector at %s for %.0f s; %d rows wait, %d were dropped since; "
                "is `zmon collect` running there, and is the address right?",
                self._model, self._where, now - self._since, waiting, lost)  # fmt: skip
