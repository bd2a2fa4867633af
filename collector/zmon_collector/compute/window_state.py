"""What the engine holds of a window that is being computed: rows that gather, partial results, what has failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from zmon.batch import Batch
from zmon.reference import Profile
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import Numbers, Partial
from zmon_collector.compute.sample import TOP, Sample
from zmon_collector.windows.window import OpenWindow

ModelKey = tuple[str, str]  # (model, version)


@dataclass(slots=True)
class MicroBatch:
    """Batches of one schema and the same columns, to be joined."""

    batches: list[Batch] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    numbers: list[Numbers] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0


@dataclass(slots=True)
class AgentPartial:
    """One agent's share of a window."""

    groups: dict[tuple[int, frozenset[str]], MicroBatch] = field(default_factory=dict)
    partials: dict[str, list[Partial]] = field(default_factory=dict)  # by lane
    samples: list[Sample] = field(default_factory=list)
    bound: int = TOP
    row_bytes: int = 1
    rows: int = 0  # taken in, those that still gather included


@dataclass(slots=True)
class WindowState:
    """A window being computed."""

    model: ModelKey
    window: OpenWindow
    reference: Profile | None = None
    cells: dict[str, AgentPartial] = field(default_factory=dict)
    outstanding: Counter[str] = field(default_factory=Counter)  # steps under way, by lane
    failed: dict[str, str] = field(default_factory=dict)  # metric: error
    absent: set[str] = field(default_factory=set)  # metrics that were not there when the window began
    closing: bool = False
    held: bool = False  # rows gather and no new step begins, so that what there is can be checkpointed
    merged: dict[str | None, Sample | None] | None = None
    finished: dict[str, merge.FinishedWindow] = field(default_factory=dict)  # by lane
