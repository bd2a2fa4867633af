"""The memory of metrics: values kept from one window to the next, by model, as the bytes that are journaled."""

from __future__ import annotations

from collections.abc import Sequence

from zmon_collector.windows.window import ModelKey

Memory = dict[tuple[str, str | None], bytes]  # by (metric, agent), None for the rollup


class MetricMemory:
    """The memory of all metrics. It changes when a window is finished, and is journaled with the window's report.

    Metrics get it unpacked, and what they leave is packed, on their executors: so a metric sees after a restart what it
    would have seen without one, and what has not changed is recognised and not written again.
    """

    def __init__(self) -> None:
        self._models: dict[ModelKey, Memory] = {}

    def of(self, model: ModelKey) -> Memory:
        """Return what the metrics keep of a model."""
        return self._models.setdefault(model, {})

    def update(self, model: ModelKey, memory: Memory, changes: Memory) -> bool:
        """Change what a model's metrics keep; return False, and do nothing, if `memory`, which `of` returned, belongs
        to a model that was forgotten since, even if it has been met again."""
        if self._models.get(model) is not memory:
            return False
        memory.update(changes)
        return True

    def restore(self, model: ModelKey, metric: str, agent: str | None, kept: bytes) -> None:
        """Bring back what a metric kept in an earlier run."""
        self.of(model)[metric, agent] = kept

    def forget_agents(self, model: ModelKey, agents: Sequence[str]) -> None:
        """Drop what is kept for agents that are gone."""
        memory = self.of(model)
        for key in [key for key in memory if key[1] in agents]:
            del memory[key]

    def forget(self, model: ModelKey) -> None:
        """Drop everything that is kept of a model."""
        self._models.pop(model, None)
