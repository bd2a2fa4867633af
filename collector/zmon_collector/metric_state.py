"""A metric and what is wrong with it, model by model: when it rests, when it is tried again, when it is given up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from zmon.contract import Metric
from zmon_collector.windows.window import ModelKey

log = logging.getLogger("zmon.collector")

DISABLE_AFTER = 3  # windows in a row of one model in which a metric failed
PAUSE = 64  # windows that a disabled metric is left out of before it is tried again; twice as many each further time
LONGEST_PAUSE = 1024
STUCK_CALLS = 3  # threads that one metric may hold; after that it is not called for any model


@dataclass(slots=True)
class Fault:
    """What is wrong with a metric in one (model, version)."""

    error: str = ""
    failing: int = 0  # windows in a row
    resting: int = 0  # coming windows that it is left out of
    pause: int = PAUSE  # windows that it is left out of the next time
    stuck: bool = False

    @property
    def state(self) -> str:
        """``stuck``, ``disabled``, or ``ok`` while it may be given rows."""
        return "stuck" if self.stuck else "disabled" if self.failing >= DISABLE_AFTER else "ok"


@dataclass(slots=True)
class MetricState:
    """A registered metric, the plugin it belongs to, and what is wrong with it, model by model."""

    metric: Metric[Any]
    plugin: str
    error: str = ""  # the newest
    errors: int = 0
    seconds: float = 0.0
    faults: dict[ModelKey, Fault] = field(default_factory=dict)
    stuck_calls: int = 0

    @property
    def state(self) -> str:
        """``stuck`` or ``disabled`` if it is for any model, else ``ok``."""
        states = {fault.state for fault in list(self.faults.values())}
        if self.is_stuck_everywhere or "stuck" in states:
            return "stuck"
        return "disabled" if "disabled" in states else "ok"

    @property
    def reason(self) -> str:
        """Why it is stuck or disabled, whatever has failed since in other models; else the newest error."""
        state = self.state
        return next((fault.error for fault in list(self.faults.values()) if fault.state == state != "ok"), self.error)

    @property
    def is_stuck_everywhere(self) -> bool:
        """Whether it held so many threads that it is not called any more, whatever the model."""
        return self.stuck_calls >= STUCK_CALLS

    @property
    def models(self) -> list[str]:
        """Models for which it is stuck or disabled."""
        return sorted(" ".join(key).strip() for key, fault in list(self.faults.items()) if fault.state != "ok")

    def is_stuck(self, model: ModelKey) -> bool:
        """Return whether it must not be called for this model."""
        fault = self.faults.get(model)
        return self.is_stuck_everywhere or (fault is not None and fault.stuck)

    def admit(self, model: ModelKey) -> bool:
        """Return whether it runs in a window of this model that opens now.

        A disabled metric is left out of a number of windows, then tried in one.
        """
        if self.is_stuck(model):
            return False
        fault = self.faults.get(model)
        if fault is None or not fault.resting:
            return True
        fault.resting -= 1
        return False

    def record_failure(self, model: ModelKey, error: str) -> None:
        """Count a window in which it failed; log the first, disable it for this model after several in a row."""
        if not self.errors:
            log.error("metric %r of plugin %r failed; its values in this window are left out: %s",
                      self.metric.name, self.plugin, error)  # fmt: skip
        fault = self.faults.setdefault(model, Fault())
        self.errors += 1
        fault.failing += 1
        self.error = fault.error = error
        if fault.state == "disabled" and not fault.resting:
            fault.resting, fault.pause = fault.pause, min(2 * fault.pause, LONGEST_PAUSE)
            log.error("metric %r of plugin %r is disabled: it failed in %d windows in a row of model %r, and is tried "
                      "again after %d more; fix it and restart",
                      self.metric.name, self.plugin, fault.failing, model[0], fault.resting)  # fmt: skip

    def record_success(self, model: ModelKey) -> None:
        """Note a window in which it gave its values."""
        fault = self.faults.get(model)
        if fault is None or fault.stuck:
            return
        del self.faults[model]
        if fault.state == "disabled":
            log.info("metric %r of plugin %r gives values for model %r again", self.metric.name, self.plugin, model[0])

    def mark_stuck(self, model: ModelKey, seconds: float) -> None:
        """Disable it for a model until the next start, because its thread may never return; for all after several."""
        fault = self.faults.setdefault(model, Fault())
        fault.stuck = True
        self.stuck_calls += 1
        self.errors += 1
        self.error = fault.error = f"did not return within {seconds:g} s"
        where = "any model" if self.is_stuck_everywhere else f"model {model[0]!r}"
        log.error("metric %r of plugin %r is disabled: it %s; it is not called for %s any more; fix it and restart",
                  self.metric.name, self.plugin, self.error, where)  # fmt: skip

    def forget(self, model: ModelKey) -> None:
        """Drop what is known about it in a model that is gone."""
        self.faults.pop(model, None)
