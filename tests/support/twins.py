"""Two publishers at one collector: what a watched model publishes gives the points of publishing by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.collectors import Collector
from tests.support.points import by_names

COSTS: list[str] = []  # what watching added to a call, by integration
OLD = 1_700_000_040.0  # rows of one long past minute: the same window for both, whenever the test runs


class Twins:
    """`watched` is for the stand-in, `hand` for calls of publish; `same` compares what became of them."""

    def __init__(self, collector: Collector, options: dict[str, Any]) -> None:
        self.collector = collector
        self.watched = collector.publisher("watched", agent_id="a", **options)
        self.hand = collector.publisher("hand", agent_id="a", **options)

    def by_hand(self, probabilities: Any = None, inputs: Any = None, labels: Any = None, **more: Any) -> None:
        self.hand.publish(probabilities, inputs, labels, timestamps=OLD, **more)

    def at_once(self) -> Any:
        """Gives the rows of watched calls their time."""
        return self.watched.context(timestamps=OLD)

    def same(self, *expected: str) -> dict[Any, float]:
        """Ends both, and compares all points; the series named must be among them."""
        for publisher in (self.watched, self.hand):
            assert publisher.flush(60), publisher.stats
            publisher.close()
        assert not self.watched.stats.rejected, self.watched.stats
        assert self.watched.stats.published == self.hand.stats.published > 0
        self.collector.stop()
        found = [
            by_names([point for point in self.collector.points() if point["properties"]["model"] == model])
            for model in ("watched", "hand")
        ]
        ours, theirs = (
            {names: value for names, value in points.items() if "transport_delay" not in str(names)} for points in found
        )
        # Rows are added up in another order. Pytest's own explanation of a difference takes minutes.
        differ = {name for name in {*ours, *theirs} if ours.get(name) != pytest.approx(theirs.get(name), 1e-9, 1e-12)}
        assert not differ, [(name, ours.get(name), theirs.get(name)) for name in sorted(differ)[:5]]
        whats = {dict(names)["what"] for names in ours}
        assert set(expected) <= whats, whats
        return ours


def overhead(name: str, bare: Callable[[], Any], watched: Callable[[], Any], rounds: int = 200) -> None:
    """Measure what watching adds to a call, the median of alternating pairs; it is printed at the end of the run."""
    pairs: list[Sequence[float]] = []
    for _ in range(rounds):
        start = time.perf_counter()
        bare()
        middle = time.perf_counter()
        watched()
        pairs.append((middle - start, time.perf_counter() - middle))
    plain, both = (sorted(column)[rounds // 2] * 1e6 for column in zip(*pairs, strict=True))
    COSTS.append(
        f"{name}: {plain:.1f} µs bare, {both:.1f} µs watched, {both - plain:+.1f} µs, {both / plain:.2f} times"
    )
