"""Which features are captured: globs over their names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


class Selection:
    """The features that match one of `include`, if there are any, and none of `exclude`."""

    def __init__(self, include: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
        self.include = include
        self.exclude = exclude

    def __bool__(self) -> bool:
        """Return whether features may be left out."""
        return bool(self.include or self.exclude)

    def places(self, names: Sequence[str]) -> list[int]:
        """Return the indices of the features to capture."""
        return [
            i
            for i, feature in enumerate(names)
            if (not self.include or any(fnmatchcase(feature, glob) for glob in self.include))
            and not any(fnmatchcase(feature, glob) for glob in self.exclude or ())
        ]
