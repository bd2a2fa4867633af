"""The collector's own counters, for the admin socket, the page, /metrics and the log at the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from zmon._wire.tally import KNOWN

LABELS = 500  # of one counter, with room for the reasons of this release; further ones are counted together, as OTHER
OTHER = "other"
LOG_LINES = 20  # about rows that were refused, in LOG_SECONDS
LOG_SECONDS = 60.0
MAX_COUNT = 2**63 - 1  # the largest integer of an answer: a hostile stream may claim to have lost any number of rows


class Telemetry:
    """Counters by name and label, for instance ``rejected`` by reason. Any thread may use them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._labels: Counter[str] = Counter()  # by name
        self._log_since, self._logged = float("-inf"), 0

    def count(self, name: str, label: str = "", by: int = 1) -> None:
        """Add to a counter, which begins at 0."""
        key = name, label
        with self._lock:
            count = self._counts.get(key)
            if count is None:
                if label not in KNOWN and self._labels[name] >= LABELS - len(KNOWN):  # publishers choose their reasons
                    key = name, OTHER
                else:
                    self._labels[name] += 1
                count = self._counts[key]
            self._counts[key] = min(count + by, MAX_COUNT)

    def may_log(self, mono: float) -> bool:
        """Return whether one more line about refused rows may be logged at this time of the monotonic clock."""
        with self._lock:
            if mono - self._log_since >= LOG_SECONDS:
                self._log_since, self._logged = mono, 0
            self._logged += 1
            return self._logged <= LOG_LINES

    def get(self, name: str, label: str | None = None) -> int:
        """Return one count, or without a label the sum over all labels."""
        with self._lock:
            if label is not None:
                return self._counts[name, label]
            return sum(count for (counter, _), count in self._counts.items() if counter == name)

    def snapshot(self) -> Mapping[str, int]:
        """Return all counts, as ``name`` or ``name{label}``."""
        with self._lock:
            return {f"{name}{{{label}}}" if label else name: n for (name, label), n in sorted(self._counts.items())}
