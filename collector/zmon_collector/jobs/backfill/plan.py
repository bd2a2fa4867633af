"""Plan which pieces are read for which windows, and in what order. Pure.

Pieces are read in the order of their oldest rows, so few windows are open at once if the data is in order of time.
Where too many would be open (unordered rows), the windows are processed in rounds, and every round reads its pieces
again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

AGENT_BYTES = 2**16  # estimate: accumulators of one agent in one window


@dataclass(slots=True)
class PlanRound:
    """Windows that are processed together, and the places of the pieces that hold their rows, in order."""

    windows: list[int]
    pieces: list[int] = field(default_factory=list)


@dataclass(slots=True)
class BackfillPlan:
    """Order of work, from a survey of all pieces.

    Attributes
    ----------
    agent_rows : Counter
        Rows by (window start, agent).
    starts : list of list of int
        For each piece, the windows that it has rows of, ascending.
    window_rows : Counter
        Rows by window start.
    """

    agent_rows: Counter[tuple[int, str]] = field(default_factory=Counter)
    starts: list[list[int]] = field(default_factory=list)
    window_rows: Counter[int] = field(default_factory=Counter)

    def register_piece(self, counts: dict[tuple[int, str], int]) -> None:
        """Register the next piece's rows by (window start, agent)."""
        self.agent_rows.update(counts)
        for (start, _), rows in counts.items():
            self.window_rows[start] += rows
        self.starts.append(sorted({start for start, _ in counts}))

    @property
    def windows(self) -> list[int]:
        """Return all windows with rows, in order of time."""
        return sorted(self.window_rows)

    def beyond(self, most: int) -> frozenset[str]:
        """Return the agents beyond the first `most` that appear."""
        seen = dict.fromkeys(agent for _, agent in sorted(self.agent_rows))
        return frozenset(list(seen)[most:])

    def rounds(self, done: int, first: int, sample_rows: int, row_bytes: int, budget: int) -> list[PlanRound]:
        """Return the rounds that are left once `done` windows are written.

        Parameters
        ----------
        done : int
        first : int
            Number of windows that must be finished before the others begin, because the others are compared with them.
        sample_rows, row_bytes : int
            Rows of an agent's sample in a window, and the size of a row.
        budget : int
            Bytes that open windows may take.
        """
        windows = self.windows
        nbytes = dict.fromkeys(windows, 0)
        for (start, _), rows in self.agent_rows.items():
            nbytes[start] += AGENT_BYTES + min(rows, sample_rows) * row_bytes
        rounds: list[PlanRound] = []
        for part in (windows[done : max(done, first)], windows[max(done, first) :]):
            rounds += self._divided(part, nbytes, budget) if part else []
        return rounds

    def _divided(self, windows: Sequence[int], nbytes: dict[int, int], budget: int) -> list[PlanRound]:
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

    def _round(self, windows: Sequence[int]) -> PlanRound:
        low, high = windows[0], windows[-1]
        firsts = {}
        for place, starts in enumerate(self.starts):
            at = bisect_left(starts, low)
            if at < len(starts) and starts[at] <= high:
                firsts[place] = starts[at]
        return PlanRound(list(windows), sorted(firsts, key=lambda place: (firsts[place], place)))

    def last_places(self, round_: PlanRound) -> dict[int, int]:
        """Return, for each window, how many of the round's pieces must be done before it can close."""
        last = dict.fromkeys(round_.windows, 0)
        for done, place in enumerate(round_.pieces, 1):
            for start in self.starts[place]:
                if start in last:
                    last[start] = done
        previous = 0
        for start in round_.windows:  # windows close in order of time
            previous = last[start] = max(previous, last[start])
        return last

    def _peak(self, round_: PlanRound, nbytes: dict[int, int]) -> int:
        """Return the most bytes that windows take which are open at the same time."""
        last = self.last_places(round_)
        closing: Counter[int] = Counter()
        for start, done in last.items():
            closing[done] += nbytes[start]
        seen: set[int] = set()
        held = peak = 0
        for done, place in enumerate(round_.pieces, 1):
            for start in self.starts[place]:
                if start in last and start not in seen:
                    seen.add(start)
                    held += nbytes[start]
            peak = max(peak, held)
            held -= closing[done]
        return peak
