"""Agents and models of which nothing has come for long are forgotten, with all that is kept of them."""

from __future__ import annotations

import logging

from zmon_collector.compute.engine import Engine
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage.journal import ModelKey
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")

FORGET_AGENT = 3600.0  # seconds without rows
FORGET_MODEL = 7 * 86400.0  # seconds without anything; `label_horizon` when that is longer
EVERY = 10.0  # seconds between two looks


class Retention:
    """Looks now and again who is to be forgotten. Runs on the collector's thread."""

    def __init__(self, ingestor: Ingestor, engine: Engine, telemetry: Telemetry) -> None:
        self._ingestor = ingestor
        self._engine = engine
        self._telemetry = telemetry
        self._next = float("-inf")

    def turn(self, now: Now) -> list[ModelKey]:
        """Forget who is silent; the models among them."""
        if now.mono < self._next:
            return []
        self._next = now.mono + EVERY
        unreported = self._unreported()
        for model, manager in self._ingestor.managers.items():
            gone = manager.forget_agents(now, FORGET_AGENT, unreported.get(model, ()))
            if gone:
                self._ingestor.forget_agents(model, gone)
        models = self._silent(unreported, now)
        for model in models:
            self._ingestor.forget(model)
            self._telemetry.count("models_forgotten")
            log.info("model %r, version %r is forgotten: nothing has come of it for long", *model)
        return models

    def _silent(self, unreported: dict[ModelKey, set[str]], now: Now) -> list[ModelKey]:
        after = max(FORGET_MODEL, self._ingestor.config.collector.label_horizon)
        silent = self._ingestor.shelf.silent(after, now)
        if not silent:
            return []
        topics = (stream.topic for stream in self._ingestor.sessions.streams.values())
        speaking = {(topic.model, topic.version) for topic in topics}
        return [
            model
            for model in silent
            if self._ingestor.managers[model].idle and model not in unreported and model not in speaking
        ]

    def _unreported(self) -> dict[ModelKey, set[str]]:
        """Agents in windows that are not reported yet: the report has their tags, and metrics may still keep things."""
        found: dict[ModelKey, set[str]] = {}
        for pending in self._ingestor.pending.values():
            found.setdefault(pending.model, set()).update(pending.window.tallies)
        for model, window in self._engine.unfinished():
            found.setdefault(model, set()).update(window.tallies)
        return found
