"""Which reasons of publishers are counted by name: bounded for each model, and for all of them together. Pure.

Reasons become keys of row counts, series of reports, names in the history and labels of counters. A publisher may make
up any, so those that no release of zmon uses itself have places, and the rows of further ones are counted as ``other``.
"""

from __future__ import annotations

from zmon._wire.tally import KNOWN
from zmon_collector.windows.window import ModelKey

OF_MODEL = 32  # reasons of one model, besides the known ones
IN_ALL = 2_000  # of all models together
_KNOWN = {reason: reason for reason in KNOWN}


def known_reason(reason: str) -> str | None:
    """Return a reason that this release knows, as it is kept; None for any other."""
    return _KNOWN.get(reason)


class ReasonNames:
    """The reasons that have places, by model, until the model is forgotten."""

    def __init__(self) -> None:
        self._names: dict[ModelKey, dict[str, str]] = {}
        self._taken = 0

    def place(self, model: ModelKey, reason: str) -> str | None:
        """Return the reason, as it is kept for all streams of the model; None if there is no place for it."""
        known = _KNOWN.get(reason)
        if known is not None:
            return known
        names = self._names.get(model, {})
        kept = names.get(reason)
        if kept is None and len(names) < OF_MODEL and self._taken < IN_ALL:
            self._names.setdefault(model, names)[reason] = kept = reason
            self._taken += 1
        return kept

    def forget(self, model: ModelKey) -> None:
        """Free the places of a model."""
        self._taken -= len(self._names.pop(model, ()))
