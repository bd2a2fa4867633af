"""Times calls of several contenders in turn, says what they cost in percentiles, and holds tables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Times = Mapping[str, np.ndarray]
LAST = max(os.sched_getaffinity(0))  # the core that collectors get where the model's cost is measured


class Cost(NamedTuple):
    """Nanoseconds of every call, and seconds of the whole process's processor time a call, background included."""

    times: np.ndarray
    processor: float


def costs(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    calls: Mapping[str, int],
    between: Callable[[], Any] = lambda: None,
) -> Mapping[str, Cost]:
    """Give each contender its calls a round, in turn. `between` follows each turn: its wait is not in the times."""
    times: dict[str, list[int]] = {name: [] for name in contenders}
    used: dict[str, list[float]] = {name: [] for name in contenders}
    clock = time.perf_counter_ns
    for number in range(rounds + 1):
        for name, call in contenders.items():
            before = time.process_time()
            turn = []
            for _ in range(calls[name]):
                started = clock()
                call()
                turn.append(clock() - started)
            between()
            if number:  # the first round warms up
                times[name] += turn
                used[name].append(time.process_time() - before)
    return {name: Cost(np.array(times[name]), float(np.median(used[name])) / calls[name]) for name in contenders}


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, calls: int, between: Callable[[], Any] = lambda: None
) -> Times:
    """Nanoseconds of every call, as `costs` gives them."""
    found = costs(contenders, rounds, dict.fromkeys(contenders, calls), between)
    return {name: each.times for name, each in found.items()}


def paced(contenders: Mapping[str, Callable[[], Any]], calls: int, every: float) -> Times:
    """Nanoseconds of every call when one is made each `every` seconds, the contenders in turn: caches are cold."""
    times: dict[str, list[int]] = {name: [] for name in contenders}
    clock = time.perf_counter_ns
    due = time.perf_counter()
    for _ in range(calls):
        for name, call in contenders.items():
            due = max(due + every, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            started = clock()
            call()
            times[name].append(clock() - started)
    return {name: np.array(each) for name, each in times.items()}


def percentiles(times: np.ndarray) -> dict[str, float]:
    """Microseconds."""
    found = np.percentile(times, (50, 99, 99.9)) / 1e3
    return {name: float(value) for name, value in zip(("p50_us", "p99_us", "p999_us"), found, strict=True)}


def spread(times: np.ndarray, rounds: int) -> float:
    """How far the rounds' medians lie apart, half of it, as a share of the median."""
    medians = [np.median(part) for part in np.array_split(times, rounds)]
    return float((max(medians) - min(medians)) / 2 / np.median(times))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% interval of a median, from the order of the values alone.

    >>> interval(np.arange(101.0))
    (40.0, 60.0)
    """
    ordered, half = np.sort(values), 0.98 * np.sqrt(len(values))
    low, high = int(np.floor((len(values) - 1) / 2 - half)), int(np.ceil((len(values) - 1) / 2 + half))
    return float(ordered[max(low, 0)]), float(ordered[min(high, len(values) - 1)])


def script(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A Python process of its own that runs `code`; its output is read, and its input may be written."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def said(process: subprocess.Popen[str], timeout: float = 600) -> str:
    """What a process of `script` prints until it ends well."""
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"a measuring process ended with {process.returncode}: what it says is above"
    return out


class Table(NamedTuple):
    """A title, a head, and rows of cells: the first column left, numbers right."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]

    def text(self) -> str:
        """Aligned, for a terminal."""
        cells = [list(map(str, row)) for row in [self.head, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return "\n".join([f"\n{self.title}", lines[0], "-" * len(lines[0]), *lines[1:]])

    def markdown(self) -> str:
        """For a page."""
        rules = ["---", *["---:"] * (len(self.head) - 1)]
        lines = ["| " + " | ".join(map(str, row)) + " |" for row in [self.head, rules, *self.rows]]
        return "\n".join([f"### {self.title}\n", *lines])
