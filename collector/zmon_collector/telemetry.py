"""The collector's own counters, for `zmon plugins`, the log at the end and, later, /metrics. Safe from many threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

MOST = 2**63 - 1  # what an answer can hold, whatever hostile streams say they have lost


class Telemetry:
    """Counts by name and label, for instance ``rejected`` by reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, label: str = "", by: int = 1) -> None:
        with self._lock:
            self._counts[name, label] = min(self._counts[name, label] + by, MOST)

    def get(self, name: str, label: str | None = None) -> int:
        """One count, or the sum over all labels."""
        with self._lock:
            if label is not None:
                return self._counts[name, label]
            return sum(count for (each, _), count in self._counts.items() if each == name)

    def snapshot(self) -> Mapping[str, int]:
        """All counts, as ``name`` or ``name{label}``."""
        with self._lock:
            return {f"{name}{{{label}}}" if label else name: n for (name, label), n in sorted(self._counts.items())}
