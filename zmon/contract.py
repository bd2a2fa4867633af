"""What a plugin author implements (`Metric`, `Sink`) and is given (`Context`, `Batch`, `Report`). Plain objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from zmon.batch import Batch, Schema

if TYPE_CHECKING:
    from zmon.reference import Profile

A = TypeVar("A")
PRESETS = ("minimal", "default", "full")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, ``start <= t < end``, in whole seconds since the epoch."""

    start: int
    end: int


class Value(NamedTuple):
    """One number a metric gives. Its names, together with model and agent, are the identity of a series.

    Attributes
    ----------
    what : str
        The measure, for instance ``"accuracy"``.
    value : float
        A finite number. What is undefined is left out instead.
    class_name, feat_name, stat, category, segment_name, segment_value, predicted, reason : str
        What the number is about, as far as it applies; empty where it does not.
    target_type : str
        ``"gauge"`` or ``"counter"``; empty derives it: counter for ``*_count`` and ``rows_*``, gauge otherwise.
    """

    what: str
    value: float
    class_name: str = ""
    feat_name: str = ""
    stat: str = ""
    category: str = ""
    segment_name: str = ""
    segment_value: str = ""
    predicted: str = ""
    reason: str = ""
    target_type: str = ""


DIMENSIONS = Value._fields[2:-1]  # the names a Value may carry besides `what`


def target_type(value: Value) -> str:
    """``"counter"`` (summed when rolled up over time) or ``"gauge"`` (averaged).

    >>> target_type(Value("prediction_count", 3.0)), target_type(Value("accuracy", 0.9))
    ('counter', 'gauge')
    """
    if value.target_type:
        return value.target_type
    return "counter" if value.what.endswith("_count") or value.what.startswith("rows_") else "gauge"


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of an agent's rows, as counted in a window.

    `received` rows are in the window. The others were noticed while it was the oldest open one: `late` rows belong to a
    window that had closed, `lost` ones were published and never arrived, `rejected` ones (by reason) were no valid
    batch, `sampled_out` ones were left out by the publisher's sample_rate.
    """

    received: int = 0
    late: int = 0
    lost: int = 0
    sampled_out: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Where a metric is being computed.

    Attributes
    ----------
    model, version : str
        `version` is empty when the publisher gave none.
    agent_id : str or None
        None for the rollup over all agents.
    schema : Schema
        The window's: every batch of the window is aligned to it.
    window : Window
    options : mapping
        The plugin's table of the configuration, [plugins.NAME] with [models.MODEL.metrics.NAME] over it; beside it
        ``segments``, whether the metric is given per segment, and ``max_segments``.
    reference : Profile or None
        The model's reference profile, the same for the whole window; None when it has none. An accumulator that
        counts against it keeps its ``digest``: after a restart the rest of a window may come under another one.
    memory : dict
        Plain data a metric keeps from window to window for this agent (or rollup). What `result` leaves in it is kept
        when the window closes; `update` and `merge` must not touch it.
    rows : RowCounts
    sample : Batch or None
        The window's uniform row sample, all rows when they are no more than ``sample_rows``. In `result` and `compare`
        only; None when the window has no rows.
    segment : tuple of (str, str) or None
        In `result`: name and value of the segment whose rows these are; None for all rows. `rows` then counts
        `received` rows only, `memory` is empty, `sample` holds the segment's rows.
    """

    model: str
    version: str
    agent_id: str | None
    schema: Schema
    window: Window
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: Profile | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    rows: RowCounts = RowCounts()
    sample: Batch | None = None
    segment: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of series a metric gives, for the docs and for the choice of what is emitted.

    Attributes
    ----------
    what : str
    definition : str
        One sentence, with the formula.
    keys : tuple of str
        The names it carries besides `stat`.
    stats : tuple of str
        Values of `stat`; empty when it has none.
    preset : str
        The smallest preset that emits it: ``"minimal"``, ``"default"`` or ``"full"``.
    reference : bool
        It is given only where the model has a reference profile.
    """

    what: str
    definition: str
    keys: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    preset: str = "default"
    reference: bool = False


@runtime_checkable
class Metric(Protocol[A]):
    """A stateless recipe; all state lives in the accumulator `A`, plain msgpack-able data (arrays allowed).

    Laws, which ``zmon.testing.check_metric`` verifies: `create()` is merge's identity; merge is associative and
    commutative; ``update(update(create(), b1), b2) == merge(update(create(), b1), update(create(), b2))``; all up to
    float rounding. `update` and `merge` are deterministic. `result` does not change the accumulator and leaves an
    undefined value out (never 0.0 for unknown, never NaN).

    Optional members: ``series``, a sequence of `Series` (a metric without it is emitted in every preset); ``task``,
    the only task it is for (it does not see batches of another); ``late_labels``, True for a metric that does not need
    ``labels`` and yet wants to see those that come after their predictions (see `Batch`);
    ``compare(by_agent, ctx)``, which sees the agents' accumulators side by side when a window closes; and
    ``detail(acc, ctx)``, called beside `result`: plain data behind the values (arrays allowed, None for nothing), kept
    in the collector's own history for its page. No sink gets it, so it may be what would be too many series.

    Attributes
    ----------
    name : str
        lower_snake, unique.
    needs : frozenset of str
        Columns it reads, see `Batch.columns`; it does not see batches that lack one.
    """

    name: str
    needs: frozenset[str]

    def create(self, ctx: Context) -> A:
        """An empty accumulator."""
        ...

    def update(self, acc: A, batch: Batch, ctx: Context) -> A:
        """The accumulator with the batch's rows; may change `acc` in place, must not change the batch."""
        ...

    def merge(self, left: A, right: A) -> A:
        """Both accumulators in one; may change `left` in place, must not change `right`."""
        ...

    def result(self, acc: A, ctx: Context) -> Iterable[Value]:
        """The values of the window."""
        ...


class Point(NamedTuple):
    """A value and whose it is: `agent_id` is None on the rollup over all agents."""

    agent_id: str | None
    value: Value


@dataclass(frozen=True, slots=True)
class Report:
    """What one closed window of a (model, version) gave, for sinks and observers.

    Attributes
    ----------
    sequence : int
        Number of the report, ascending over all models; the same when a report is written again.
    model, version : str
    window : Window
        Points are dated at ``window.start``.
    points : sequence of Point
        With their original names; what a target system allows is applied by the sink.
    rows : mapping of str to RowCounts
        By agent.
    tags : mapping of str to mapping
        Free tags by agent.
    details : mapping of (agent, metric) to bytes
        What metrics' ``detail`` gave, packed, by agent (None for the rollup) and metric: for the local history alone.
    """

    sequence: int
    model: str
    version: str
    window: Window
    points: Sequence[Point]
    rows: Mapping[str, RowCounts] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    details: Mapping[tuple[str | None, str], bytes] = field(default_factory=dict)

    def properties(self, point: Point) -> dict[str, str]:
        """The names that identify the point's series, undecorated; those that do not apply are absent.

        >>> report = Report(1, "fraud", "", Window(0, 60), [Point("pod-1", Value("accuracy", 0.9))])
        >>> report.properties(report.points[0])
        {'what': 'accuracy', 'model': 'fraud', 'agent_id': 'pod-1'}
        """
        names = {"what": point.value.what, "model": self.model}
        if self.version:
            names["model_version"] = self.version
        if point.agent_id is not None:
            names["agent_id"] = point.agent_id
        names.update({key: name for key, name in zip(DIMENSIONS, point.value[2:-1], strict=True) if name})
        return names


class Refused(NamedTuple):
    """A sample that a target system will not take, set aside with the reason it gave."""

    sample: Mapping[str, Any]
    code: str
    description: str


class Ledger(Protocol):
    """What a sink that delivers a report piece by piece may note down. Durable when the call returns."""

    def settled(self, sequence: int) -> int:
        """How many samples of this report, in order, have been dealt with by earlier calls of `write`."""
        ...

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        """The first `samples` samples of this report are dealt with; some of them were refused and are set aside."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where reports go. Each sink is called from a thread of its own, one report after the other, in order.

    A sink may also have ``attach(ledger)``, which is called with its `Ledger` before `open`.

    Attributes
    ----------
    name : str
        lower_snake, unique; its configuration is the table [sinks.NAME].
    """

    name: str

    def open(self) -> None:
        """Get ready; called once before the first write."""
        ...

    def write(self, report: Report) -> None:
        """Deliver one report. Raise RetryLater to be called again with the same one; writing twice must be harmless."""
        ...

    def close(self) -> None:
        """Release what `open` took. Safe to call twice, and without `open`."""
        ...
