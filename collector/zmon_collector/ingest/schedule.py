"""When to look at which model next, so that a turn costs in proportion to what is due. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from zmon_collector.windows.window import ModelKey


class Schedule:
    """Models by the time of the next look at them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, ModelKey]] = []
        self._next: dict[ModelKey, float] = {}  # entries of the heap with another time are out of date

    def note(self, model: ModelKey, time: float) -> None:
        """Have a model looked at by `time`, or sooner if that was noted before; never for an infinite time."""
        if time < self._next.get(model, inf):
            self._next[model] = time
            heappush(self._heap, (time, model))

    def due(self, time: float) -> Iterator[ModelKey]:
        """Remove and yield the models that are due by `time`. They may be noted again meanwhile, and come next time."""
        found = []
        while self._heap and self._heap[0][0] <= time:
            at, model = heappop(self._heap)
            if self._next.get(model) == at:
                del self._next[model]
                found.append(model)
        yield from found
