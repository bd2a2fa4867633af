"""When something last came of each (model, version), also in earlier runs: one that is silent for long goes. Pure."""

from __future__ import annotations

from zmon_collector.storage.journal import ModelKey
from zmon_collector.windows.window import Now

NOTED_EVERY = 3600.0  # seconds between two notes in the journal


class ModelStates:
    """The times, by model."""

    def __init__(self) -> None:
        self._heard: dict[ModelKey, float] = {}
        self._noted: dict[ModelKey, float] = {}
        self._changes: dict[ModelKey, float] = {}  # what the journal does not know yet, by the wall clock

    def hear(self, model: ModelKey, now: Now) -> None:
        """Something has come: a greeting, rows, labels."""
        self._heard[model] = now.mono
        if now.mono - self._noted.get(model, float("-inf")) >= NOTED_EVERY:
            self._noted[model] = now.mono
            self._changes[model] = now.wall

    def restore(self, model: ModelKey, wall: float, now: Now) -> None:
        """What was noted in an earlier run. The time in which no collector ran counts as silence."""
        self._heard[model] = self._noted[model] = now.mono - max(0.0, now.wall - wall)

    def silent(self, after: float, now: Now) -> list[ModelKey]:
        """Those of which nothing has come for `after` seconds."""
        return [model for model, heard in self._heard.items() if now.mono - heard > after]

    def forget(self, model: ModelKey) -> None:
        for kept in (self._heard, self._noted, self._changes):
            kept.pop(model, None)

    def take_changes(self) -> list[tuple[str, str, float]]:
        """What is to be noted: model, version, epoch seconds."""
        changes, self._changes = self._changes, {}
        return [(*model, wall) for model, wall in changes.items()]
