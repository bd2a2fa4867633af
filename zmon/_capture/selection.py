"""Which features are captured: globs over their names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from zmon._wire.checks import MAX_NAME

MOST_SETS = 64  # sets of names whose places are remembered


class Selection:
    """The features that match one of `include`, if there are any, and none of `exclude`.

    Attributes
    ----------
    unmatched : dict of str to str
        Globs that no feature has matched so far, with the argument they came in.
    """

    def __init__(self, include: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
        self.include = include
        self.exclude = exclude
        self.unmatched = dict.fromkeys(include or (), "include") | dict.fromkeys(exclude or (), "exclude")
        self._places: dict[tuple[str, ...], list[int]] = {}

    def __bool__(self) -> bool:
        """Return whether features may be left out."""
        return bool(self.include or self.exclude)

    @property
    def names(self) -> set[str]:
        """The features of all tables so far, whether captured or not."""
        return set().union(*self._places)

    def places_as_named(self, names: tuple[Any, ...]) -> list[int] | None:
        """Return the indices of the columns to capture; None if features would have other names than these."""
        if names in self._places:
            return self._places[names]
        plain = all(type(name) is str and 0 < len(name) <= MAX_NAME for name in names)
        return self.places(names) if plain and len(set(names)) == len(names) else None

    def places(self, names: Sequence[str]) -> list[int]:
        """Return the indices of the features to capture."""
        if not self:
            return list(range(len(names)))
        key = tuple(names)
        places = self._places.get(key)
        if places is None:
            places = [i for i, name in enumerate(key) if self._takes(name)]
            if len(self._places) < MOST_SETS:
                self._places[key] = places
        return places

    def _takes(self, name: str) -> bool:
        # Every glob is tried, so that `unmatched` does not depend on their order.
        included = [glob for glob in self.include or () if fnmatchcase(name, glob)]
        excluded = [glob for glob in self.exclude or () if fnmatchcase(name, glob)]
        for glob in (*included, *excluded):
            self.unmatched.pop(glob, None)
        return (bool(included) or not self.include) and not excluded
