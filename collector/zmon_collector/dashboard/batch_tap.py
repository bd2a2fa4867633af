"""Headers of arriving batches for `zmon tap --batches`: bounded, recorded only while somebody reads. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any

from zmon._wire.frames import Message

RECORDING = 3.0  # seconds of recording after each read
KEPT = 256  # newest headers
A_SECOND = 100  # headers at most


class BatchTap:
    """The newest headers, numbered so that several readers can share it.

    It records nothing while nobody reads, and never copies, delays or consumes a message.
    """

    def __init__(self) -> None:
        self._until = self._second = 0.0
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._seen = self._recorded = 0

    def record(self, message: Message, wall: float, mono: float) -> None:
        """Record the header of a message that has arrived, whatever happens to it afterwards."""
        if mono > self._until or message.kind == "schema":
            return
        self._seen += 1
        if mono - self._second >= 1.0:
            self._second, self._recorded = mono, 0
        if self._recorded < A_SECOND:
            self._recorded += 1
            self._kept.append((self._seen, _header(message, wall)))

    def read(self, after: int, mono: float) -> dict[str, Any]:
        """Return headers after a number, oldest first, and the number of the newest message, recorded or not."""
        self._until = mono + RECORDING
        return {"batches": [header for number, header in self._kept if number > after], "seen": self._seen}


def _header(message: Message, wall: float) -> dict[str, Any]:
    inputs = message.columns.get("inputs")
    codes = message.columns.get("codes")
    scores = message.columns.get("probabilities", message.columns.get("predictions"))
    widths = [matrix.shape[1] for matrix in (inputs, codes) if matrix is not None]
    return {
        "time": wall,
        "model": message.topic.model,
        "version": message.topic.version,
        "agent": message.topic.agent_id,
        "stream": message.stream.hex()[:8],
        "kind": message.kind,
        "first": message.first,
        "rows": message.rows,
        "columns": {name: str(column.dtype) for name, column in message.columns.items()},
        "classes": scores.shape[1] if scores is not None and scores.ndim == 2 else 1,
        "features": sum(widths),
        "bytes": message.nbytes,
    }
