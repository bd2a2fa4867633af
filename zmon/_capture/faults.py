"""Records which rows of a batch have something wrong, by reason. Pure."""

from __future__ import annotations

import numpy as np

from zmon._transport.conversion import Loss
from zmon.batch import Array


class Faults:
    """Rows by reason. A row counts once a reason, however many of its cells are affected."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._masks: dict[str, Array] = {}
        self._details: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._masks)

    def add(self, reason: str, detail: str, mask: Array | None = None) -> None:
        """Add the rows of a mask, or all rows; the first detail of a reason is kept."""
        if mask is None:
            mask = np.ones(self.rows, dtype=bool)
        elif not mask.any():
            return
        before = self._masks.get(reason)
        self._masks[reason] = mask if before is None else before | mask
        self._details.setdefault(reason, detail)

    def rows_affected(self) -> Array:
        """Return a mask of the rows with any fault."""
        affected = np.zeros(self.rows, dtype=bool)
        for mask in self._masks.values():
            affected |= mask
        return affected

    def losses(self, among: Array | None = None) -> list[Loss]:
        """Return the number of rows by reason, among all rows or those of a mask."""
        counts = {
            reason: int(np.count_nonzero(mask if among is None else mask & among))
            for reason, mask in self._masks.items()
        }
        return [Loss(reason, rows, self._details[reason]) for reason, rows in counts.items() if rows]

    def first_losses(self) -> list[Loss]:
        """Return the rows by reason so that no row counts twice: each under the reason that was added first."""
        losses, seen = [], np.zeros(self.rows, dtype=bool)
        for reason, mask in self._masks.items():
            rows = int(np.count_nonzero(mask & ~seen))
            if rows:
                losses.append(Loss(reason, rows, self._details[reason]))
            seen |= mask
        return losses
