"""Tells categorical columns from those in which nearly every row has a value of its own. Pure.

Such a column (an id of a customer, say) has no categories to count; their names would fill series and files.
"""

from __future__ import annotations

import numpy as np

from zmon._capture.kinds import Coded

FEW, REPEATED = 100, 0.01  # values that differ, and the share of repeated ones, after which a column seems near unique
DISTINCT, SHARE = 1000, 0.5  # values that differ, and their share of all, after which it is so for good


class Uniqueness:
    """The distinct names of a column, until it is decided whether they are categories."""

    __slots__ = ("_names", "_rows", "near_unique")

    def __init__(self) -> None:
        self._names: set[str] | None = set()
        self._rows = 0
        self.near_unique = False

    def add(self, column: Coded) -> bool:
        """Add the values of rows; return whether the column is near unique, as far as it is known by now.

        A column of 150 shops, of which each has one row a day, seems near unique on the first day only.
        """
        if self._names is not None:
            self._names.update(column.names)
            self._rows += int(np.count_nonzero(column.codes >= 0))
            distinct = len(self._names)
            differ = distinct > SHARE * self._rows
            if distinct > DISTINCT or (self.near_unique and not differ):
                self.near_unique, self._names = differ, None
            elif distinct >= FEW and self._rows - distinct <= REPEATED * self._rows:
                self.near_unique = True
        return self.near_unique
