"""Which pieces hold rows of which windows, and in what order that is worked through. Pure.

Pieces are taken in the order of their oldest rows, so of data in order of time few windows are open at once. Where too
many would be (rows in no order), the windows are gone through in rounds, each of which reads its pieces again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

CELL_BYTES = 2**16  # accumulators of an agent in a window, about


@dataclass(slots=True)
class Round:
    """Windows that are worked through together, and the places of the pieces that hold rows of them, in order."""

    windows: list[int]
    pieces: list[int] = field(default_factory=list)


@dataclass(slots=True)
class BackfillPlan:
    """What a survey of all pieces has found.

    Attributes
    ----------
    cells : dict
        Rows by (window start, agent).
    starts : list of list of int
        For each piece the windows that it has rows of, ascending.
    in_window : dict
        Rows by window start.
    """

    cells: dict[tuple[int, str], int] = field(default_factory=dict)
    starts: list[list[int]] = field(default_factory=list)
    in_window: dict[int, int] = field(default_factory=dict)

    def add(self, found: dict[tuple[int, str], int]) -> None:
        """What the next piece holds."""
        for key, rows in found.items():
            self.cells[key] = self.cells.get(key, 0) + rows
            self.in_window[key[0]] = self.in_window.get(key[0], 0) + rows
        self.starts.append(sorted({start for start, _ in found}))

    @property
    def windows(self) -> list[int]:
        """All windows with rows, in order of time."""
        return sorted(self.in_window)

    def beyond(self, most: int) -> frozenset[str]:
        """Agents beyond the first `most` that appear."""
        seen = dict.fromkeys(agent for _, agent in sorted(self.cells))
        return frozenset(list(seen)[most:])

    def rounds(self, done: int, first: int, sample_rows: int, row_bytes: int, budget: int) -> list[Round]:
        """The work that is left when `done` windows are written.

        Parameters
        ----------
        first : int
            So many windows come before the others begin, because the others are measured against them.
        sample_rows, row_bytes : int
            Rows of an agent's sample in a window, and the size of one.
        budget : int
            Bytes that open windows may take.
        """
        windows = self.windows
        nbytes = dict.fromkeys(windows, 0)
        for (start, _), rows in self.cells.items():
            nbytes[start] += CELL_BYTES + min(rows, sample_rows) * row_bytes
        rounds: list[Round] = []
        for part in (windows[done : max(done, first)], windows[max(done, first) :]):
            rounds += self._divided(part, nbytes, budget) if part else []
        return rounds

    def _divided(self, windows: Sequence[int], nbytes: dict[int, int], budget: int) -> list[Round]:
        whole = self._round(windows)
        if self._peak(whole, nbytes) <= budget:
            return [whole]
        parts: list[list[int]] = [[]]
        used = 0
        for start in windows:
            if parts[-1] and used + nbytes[start] > budget:
                parts.append([])
                used = 0
            parts[-1].append(start)
            used += nbytes[start]
        return [self._round(part) for part in parts]

    def _round(self, windows: Sequence[int]) -> Round:
        low, high = windows[0], windows[-1]
        firsts = {}
        for place, starts in enumerate(self.starts):
            at = bisect_left(starts, low)
            if at < len(starts) and starts[at] <= high:
                firsts[place] = starts[at]
        return Round(list(windows), sorted(firsts, key=lambda place: (firsts[place], place)))

    def last_places(self, round_: Round) -> dict[int, int]:
        """For each window how many of the round's pieces have to be done before it can close."""
        last = dict.fromkeys(round_.windows, 0)
        for done, place in enumerate(round_.pieces, 1):
            for start in self.starts[place]:
                if start in last:
                    last[start] = done
        before = 0
        for start in round_.windows:  # windows close in order of time
            before = last[start] = max(before, last[start])
        return last

    def _peak(self, round_: Round, nbytes: dict[int, int]) -> int:
        """Bytes of the windows that are open together, at most."""
        last = self.last_places(round_)
        closing: dict[int, int] = {}
        for start, done in last.items():
            closing[done] = closing.get(done, 0) + nbytes[start]
        seen: set[int] = set()
        held = peak = 0
        for done, place in enumerate(round_.pieces, 1):
            for start in self.starts[place]:
                if start in last and start not in seen:
                    seen.add(start)
                    held += nbytes[start]
            peak = max(peak, held)
            held -= closing.get(done, 0)
        return peak
