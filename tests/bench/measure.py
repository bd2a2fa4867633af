"""Times calls of several contenders in turn, and says what they cost in percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Times = Mapping[str, np.ndarray]


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, calls: int, between: Callable[[], Any] = lambda: None
) -> Times:
    """Nanoseconds of every call: each round gives each contender `calls` calls, then `between` runs untimed."""
    times: dict[str, list[int]] = {name: [] for name in contenders}
    clock = time.perf_counter_ns
    for number in range(rounds + 1):
        for name, call in contenders.items():
            for _ in range(calls):
                started = clock()
                call()
                ended = clock()
                if number:  # the first round warms up
                    times[name].append(ended - started)
            between()
    return {name: np.array(each) for name, each in times.items()}


def spread(times: np.ndarray, rounds: int) -> str:
    """How far the rounds' medians lie apart, as a share of the median."""
    medians = [np.median(part) for part in np.array_split(times, rounds)]
    return f"±{(max(medians) - min(medians)) / 2 / np.median(times):.0%}"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned text: the first column left, numbers right."""
    cells = [list(map(str, row)) for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([f"\n{title}", lines[0], "-" * len(lines[0]), *lines[1:]])
