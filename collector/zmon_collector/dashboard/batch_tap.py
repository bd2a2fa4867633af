"""Headers of batches as they pass, for `zmon tap --batches`: noted only while somebody asks, a bounded number. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any

from zmon._wire.frames import Message

ASKED = 3.0  # seconds for which a question keeps it noting
KEPT = 256  # newest headers
A_SECOND = 100  # headers at most


class BatchTap:
    """The newest headers, numbered, so that several may ask.

    Nothing is done when nobody asks; no message is copied, held up or taken away.
    """

    def __init__(self) -> None:
        self._until = self._second = 0.0
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._seen = self._noted = 0

    def record(self, message: Message, wall: float, mono: float) -> None:
        """A message has come, whatever becomes of it."""
        if mono > self._until or message.kind == "schema":
            return
        self._seen += 1
        if mono - self._second >= 1.0:
            self._second, self._noted = mono, 0
        if self._noted < A_SECOND:
            self._noted += 1
            self._kept.append((self._seen, _header(message, wall)))

    def read(self, after: int, mono: float) -> dict[str, Any]:
        """Headers beyond a number, oldest first, and the number of the newest message, noted or not."""
        self._until = mono + ASKED
        return {"batches": [header for number, header in self._kept if number > after], "seen": self._seen}


def _header(message: Message, wall: float) -> dict[str, Any]:
    inputs = message.columns.get("inputs")
    codes = message.columns.get("codes")
    scores = message.columns.get("probabilities", message.columns.get("predictions"))
    widths = [each.shape[1] for each in (inputs, codes) if each is not None]
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
