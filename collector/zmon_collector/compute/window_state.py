"""State of a window in the engine: rows that gather, partial results, failures, and the phase that it is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from zmon.batch import Schema
from zmon.reference import Profile
from zmon_collector.compute.accumulate import AgentRows, Partial
from zmon_collector.compute.memory import Memory
from zmon_collector.compute.merge import MetricResults
from zmon_collector.compute.sample import TOP, Sample
from zmon_collector.compute.window_contract import Contract
from zmon_collector.windows.window import ModelKey, OpenWindow

ROW_COUNTS = "rows"  # the metric that gives the window's row counts: it reads no rows, so nothing can keep them from it

WindowKey = tuple[ModelKey, int, int]


class Phase(Enum):
    """Phase of a window on its way from rows to a report."""

    OPEN = "open"  # rows are computed on as soon as enough of them have gathered
    HELD = "held"  # rows gather, and no step begins before the checkpoint is made
    CLOSING = "closing"  # no more rows: it waits for its last steps, and for earlier windows of its model
    FINISHING = "finishing"  # samples are merged, then metrics give their results
    DONE = "done"  # its report is made, and the engine lets go of it


_NEXT = {
    Phase.OPEN: {Phase.HELD, Phase.CLOSING},
    Phase.HELD: {Phase.OPEN, Phase.CLOSING},
    Phase.CLOSING: {Phase.FINISHING},
    Phase.FINISHING: {Phase.DONE},
    Phase.DONE: set(),
}


@dataclass(slots=True)
class MicroBatch:
    """Rows of one schema and with the same columns, which one step joins."""

    parts: list[AgentRows] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0


@dataclass(slots=True)
class AgentPartial:
    """Result of one agent's rows in a window so far."""

    micro_batches: dict[tuple[int, frozenset[str]], MicroBatch] = field(default_factory=dict)  # by schema and columns
    full: list[MicroBatch] = field(default_factory=list)  # full ones, which wait while the window is held
    partials: dict[str, list[Partial]] = field(default_factory=dict)  # by executor
    samples: list[Sample] = field(default_factory=list)
    bound: int = TOP  # of the merged samples: rows with keys above it need not be drawn
    row_bytes: int = 1  # that a row takes in a sample, without the names behind codes
    sample_bytes: int = 0  # of all samples
    rows: int = 0  # received, including those that still gather
    added: int = 0  # the same, and the pairs that late labels have completed, which are not rows of the window

    @property
    def covered(self) -> int:
        """The rows, with late pairs, that a metric must have seen by now: those in no step yet are left out."""
        return self.added - sum(waiting.rows for waiting in (*self.micro_batches.values(), *self.full))


@dataclass(slots=True)
class WindowState:
    """A window that is being computed.

    `phase` is changed by `enter` alone, and says what may happen to the window: the engine, the checkpointer and the
    finalizer share nothing else about its progress.
    """

    model: ModelKey
    window: OpenWindow
    contract: Contract = Contract()
    reference: Profile | None = None  # the contract's, if it fits the window's schema
    referenced: Schema | None = None  # the schema for which that was decided
    memory: Memory = field(default_factory=dict)  # of the model's metrics
    agents: dict[str, AgentPartial] = field(default_factory=dict)
    phase: Phase = Phase.OPEN
    outstanding: Counter[str] = field(default_factory=Counter)  # steps under way, by executor
    failed: dict[str, str] = field(default_factory=dict)  # metric: error
    absent: set[str] = field(default_factory=set)  # metrics that do not run, or did not see all rows
    results: dict[str, MetricResults] = field(default_factory=dict)  # by executor

    @property
    def key(self) -> WindowKey:
        """Its number is part of it, because a window that has counts and no rows may begin when an open one does."""
        return self.model, self.window.start, self.window.number

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase; RuntimeError when it does not follow from the present one."""
        if phase not in _NEXT[self.phase]:
            raise RuntimeError(f"window {self.key} is {self.phase.value} and cannot become {phase.value}")
        self.phase = phase

    def fail(self, metric: str, error: str) -> None:
        """Let a metric lose its values in this window; its first error is the one that is reported."""
        self.failed.setdefault(metric, error)

    def fail_all(self, metrics: Iterable[str], error: str) -> None:
        """Let metrics lose their values after an error of the engine itself; the row counts are known all the same."""
        for name in metrics:
            if name != ROW_COUNTS:
                self.fail(name, error)

    def uncovered(self, executor: str, metrics: Iterable[str]) -> set[str]:
        """Return the metrics that have not seen all rows of the window that are in any step; there must be none under
        way.

        Their values are left out: they were disabled, stuck or not installed for a part of the window.
        """
        wanted, found = set(metrics) - {ROW_COUNTS}, set()
        for agent in self.agents.values():
            seen: Counter[str] = Counter()
            for part in agent.partials.get(executor, ()):
                seen.update(part.covered)
            covered = agent.covered
            found |= {metric for metric in wanted if seen[metric] != covered}
        return found
