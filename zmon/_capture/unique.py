"""Tells categorical columns from those in which nearly every row has a value of its own. Pure.

Such a column (an id of a customer, say) has no categories to count; their names would fill series and files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._capture.kinds import Coded
from zmon._capture.values import is_missing
from zmon.batch import Array
from zmon.categories import MISSING

DISTINCT = 1000  # names; a column with more is near unique if more than SHARE of its values differ
SHARE = 0.5
STAND_IN = "__other__"  # the category of all values of a near unique column, as of categories beyond a metric's limit


class Uniqueness:
    """The distinct names of a column, until it is decided whether they are categories."""

    __slots__ = ("_names", "_rows", "near_unique")

    def __init__(self) -> None:
        self._names: set[str] | None = set()
        self._rows = 0
        self.near_unique = False

    def add(self, names: set[str], rows: int) -> bool:
        """Add the names of so many values; return whether the column is near unique."""
        if self._names is not None:
            self._names |= names
            self._rows += rows
            if len(self._names) > DISTINCT:
                self.near_unique = len(self._names) > SHARE * self._rows
                self._names = None
        return self.near_unique

    @staticmethod
    def stand_in(values: Array | list[Any]) -> Coded:
        """Return a column in which every value has the same name."""
        codes = [MISSING if is_missing(value) else 0 for value in values]
        return Coded(np.array(codes, dtype=np.int8), (STAND_IN,))
