"""Forget agents and models that have been silent for long, with everything that is kept of them."""

from __future__ import annotations

import logging
from collections.abc import Set

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.windows.window import ModelKey, Now

log = logging.getLogger("zmon.collector")

FORGET_AGENT = 3600.0  # seconds without rows
FORGET_MODEL = 7 * 86400.0  # seconds without anything; `label_horizon` if that is longer
EVERY = 10.0  # seconds between two looks


class Retention:
    """Decides from time to time which agents and models to forget. Runs on the collector's thread."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self._next = float("-inf")

    def forget_silent(self, now: Now) -> None:
        """Forget agents and models that have been silent for long, unless a report or a stream still needs them."""
        if now.mono < self._next:
            return
        self._next = now.mono + EVERY
        unreported = self._unreported()
        for key, model in self._ingestor.models.items():
            gone = model.windows.forget_agents(now, FORGET_AGENT, unreported.get(key, ()))
            if gone:
                self._ingestor.forget_agents(model, gone)
        for key in self._silent(unreported.keys(), now):
            self._ingestor.forget(key)
            self._ingestor.telemetry.count("models_forgotten")
            log.info("forgetting model %r, version %r: nothing was received for a long time", *key)

    def _silent(self, unreported: Set[ModelKey], now: Now) -> list[ModelKey]:
        after = max(FORGET_MODEL, self._ingestor.config.collector.label_horizon)
        silent = [model for model in self._ingestor.models.values() if now.mono - model.last_seen > after]
        if not silent:
            return []
        topics = (session.topic for session in self._ingestor.sessions)
        kept = unreported | {(topic.model, topic.version) for topic in topics}
        return [model.key for model in silent if model.windows.idle and model.key not in kept]

    def _unreported(self) -> dict[ModelKey, set[str]]:
        """Return, by model, the agents of unreported windows: their tags and memory are still needed."""
        agents: dict[ModelKey, set[str]] = {}
        for unreported in self._ingestor.unreported.values():
            agents.setdefault(unreported.model, set()).update(unreported.window.tallies)
        for model, window in self._ingestor.engine.unfinished():
            agents.setdefault(model, set()).update(window.tallies)
        return agents
