"""Says what a user should know and no row is lost for: once each, as a log line."""

from __future__ import annotations

import difflib
import time

from zmon._capture.features import Features
from zmon._capture.selection import Selection
from zmon._transport.notices import say

MOST = 64  # notices of one publisher
NEAR = 60 * 10**9  # ns by which naive times may differ from local time to be taken for it


class Notices:
    """Log lines of one model, each once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._said: set[str] = set()

    def say(self, key: str, line: str) -> None:
        """Log a line unless one with this key was logged before."""
        if key not in self._said and len(self._said) < MOST:
            self._said.add(key)
            say("zmon: model %r: %s", self._model, line)

    def say_declared(self, selection: Selection, features: Features) -> None:
        """Log which names and globs of the publisher's arguments fit no column of the first table."""
        unmatched = [*selection.unmatched.items(), *((name, "kinds") for name in sorted(features.unmatched_kinds))]
        if unmatched:
            names = selection.names.union(features.all_names)
            for name, argument in unmatched:
                near = difflib.get_close_matches(name, names, 1, 0.0)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                brackets = " (write [[] for a bracket)" if "[" in name and argument != "kinds" else ""
                line = f"{argument} names {name!r}, which matches no column{hint}{brackets}"
                self.say(f"{argument} {name}", line)
            selection.unmatched.clear()
            features.unmatched_kinds.clear()

    def say_unique(self, features: Features) -> None:
        """Log which columns were found to have a value of their own in nearly every row, or not after all."""
        for name, near_unique in features.found_hashed:
            line = f"the values of {name!r} are repeated: they are sent as categories again"
            if near_unique:
                line = (
                    f"nearly every value of {name!r} is different: its values are counted without their names; "
                    f"declare kinds={{{name!r}: 'id'}} or 'categorical', or exclude it"
                )
            self.say(f"unique {name} {near_unique}", line)
        features.found_hashed.clear()

    def say_naive(self, nanos: int, now: int) -> None:
        """Log if a time without a zone differs from the clock as the local zone does."""
        offset = time.localtime(now / 1e9).tm_gmtoff
        if offset and abs(nanos - now - offset * 10**9) < NEAR:
            self.say(
                "naive",
                f"timestamps without a zone are read as UTC, and these look like local time, {offset / 3600:+g} h from "
                "UTC; pass times with a zone, such as datetime.now(timezone.utc)",
            )
