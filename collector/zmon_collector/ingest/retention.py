"""Forget agents and models that have been silent for long, with everything that is kept of them."""

from __future__ import annotations

import logging
from collections import deque

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.windows.window import ModelKey, Now, OpenWindow

log = logging.getLogger("zmon.collector")

FORGET_AGENT = 3600.0  # seconds without rows
FORGET_MODEL = 7 * 86400.0  # seconds without anything; `label_horizon` if that is longer
EVERY = 10.0  # seconds between two looks at a model, which are spread over the turns


class Retention:
    """Decides from time to time which agents and models to forget. Runs on the collector's thread."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self._models: deque[ModelKey] = deque()  # in the order in which they are looked at
        self._looked = float("-inf")  # when

    def forget_silent(self, now: Now) -> None:
        """Forget agents and models that have been silent for long, unless a report or a stream still needs them."""
        models = self._due(now)
        with_silent_agents = [model for model in models if model.windows.has_silent_agents(now, FORGET_AGENT)]
        after = max(FORGET_MODEL, self._ingestor.config.collector.label_horizon)
        silent = [model for model in models if now.mono - model.last_seen > after]
        if not with_silent_agents and not silent:  # nearly always
            return
        unreported = self._unreported()
        for model in with_silent_agents:
            # Tags and memory of an agent are needed until its windows are reported.
            needed = set[str]().union(*(window.tallies for window in unreported.get(model.key, ())))
            gone = model.windows.forget_agents(now, FORGET_AGENT, needed)
            if gone:
                self._ingestor.forget_agents(model, gone)
        topics = (session.topic for session in self._ingestor.sessions) if silent else ()
        kept = unreported.keys() | {(topic.model, topic.version) for topic in topics}
        for model in silent:
            if model.windows.idle and model.key not in kept:
                self._ingestor.forget(model.key)
                self._ingestor.telemetry.count("models_forgotten")
                log.info("forgetting model %r, version %r: nothing was received for a long time", *model.key)

    def _due(self, now: Now) -> list[ModelState]:
        """Return the models to look at now: all of them in EVERY seconds, so a turn looks at few."""
        known = self._ingestor.models
        share = min(1.0, (now.mono - self._looked) / EVERY) if EVERY else 1.0
        count = int(share * len(known))
        if not count:  # the time adds up until one is due
            return []
        self._looked = now.mono
        due: dict[ModelKey, ModelState] = {}
        while len(due) < count:
            if not self._models:
                self._models.extend(known)
            key = self._models.popleft()
            if key in due:
                break
            if key in known:
                due[key] = known[key]
        return list(due.values())

    def _unreported(self) -> dict[ModelKey, list[OpenWindow]]:
        """Return the unreported windows of each model."""
        windows: dict[ModelKey, list[OpenWindow]] = {}
        for unreported in self._ingestor.unreported.values():
            windows.setdefault(unreported.model, []).append(unreported.window)
        for model, window in self._ingestor.engine.unfinished():
            windows.setdefault(model, []).append(window)
        return windows
