"""The contract of plugins: what authors implement (`Metric`, `Sink`) and receive (`Context`, `Batch`, `Report`)."""

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
    """One number from a metric. Its names, together with model and agent, are the identity of a series.

    Attributes
    ----------
    what : str
        The measure, for instance ``"accuracy"``.
    value : float
        A finite number. Leave undefined values out instead.
    class_name, feat_name, stat, category, segment_name, segment_value, predicted, reason : str
        What the number is about; empty for names that do not apply.
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


DIMENSIONS = Value._fields[2:-1]  # the names that a Value may have besides `what`


def target_type(value: Value) -> str:
    """Return ``"counter"`` (summed when rolled up over time) or ``"gauge"`` (averaged).

    >>> target_type(Value("prediction_count", 3.0)), target_type(Value("accuracy", 0.9))
    ('counter', 'gauge')
    """
    if value.target_type:
        return value.target_type
    return "counter" if value.what.endswith("_count") or value.what.startswith("rows_") else "gauge"


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The outcome of an agent's rows, as counted in a window.

    `received` rows are in the window. The others were counted while it was the oldest open window: `late` rows belong
    to a window that had closed, `lost` rows were published and never arrived, `rejected` rows (by reason) were not a
    valid batch, `sampled_out` rows were left out by the publisher's sample_rate. `degraded` rows (by reason) are in a
    window, without a part of them that was invalid: a label, an id, a column.
    """

    received: int = 0
    late: int = 0
    lost: int = 0
    sampled_out: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    degraded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """The model, agent and window for which a metric is computed.

    Attributes
    ----------
    model, version : str
        `version` is empty if the publisher has none.
    agent_id : str or None
        None for the rollup over all agents.
    schema : Schema
        The schema of the window: every batch of the window is aligned to it.
    window : Window
    options : mapping
        The plugin's table of the configuration, [plugins.NAME] overridden by [models.MODEL.metrics.NAME]; in addition
        ``segments``, whether the metric is computed per segment, and ``max_segments``.
    reference : Profile or None
        The model's reference profile, the same for the whole window, also after a restart; None if it has none. An
        accumulator that counts against it must keep its ``digest``: a profile that was damaged on disk is missing.
    memory : dict
        Plain data that a metric keeps from window to window for this agent (or rollup). Whatever `result` leaves in it
        is kept when the window closes; `update` and `merge` must not touch it.
    rows : RowCounts
    sample : Batch or None
        The window's uniform row sample, or all rows if there are at most ``sample_rows``. In `result` and `compare`
        only; None if the window has no rows.
    segment : tuple of (str, str) or None
        In `result`: name and value of the segment of these rows; None for all rows. For a segment, `rows` counts
        `received` rows only, `memory` is empty, and `sample` holds the segment's rows.
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
    """One kind of series that a metric emits, for the docs and for selecting what is emitted.

    Attributes
    ----------
    what : str
    definition : str
        One sentence, with the formula.
    keys : tuple of str
        The names it has besides `stat`.
    stats : tuple of str
        Values of `stat`; empty if it has none.
    preset : str
        The smallest preset that emits it: ``"minimal"``, ``"default"`` or ``"full"``.
    reference : bool
        Whether it is emitted only for models with a reference profile.
    """

    what: str
    definition: str
    keys: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    preset: str = "default"
    reference: bool = False


@runtime_checkable
class Metric(Protocol[A]):
    """A stateless recipe; all state is in the accumulator `A`, plain data that msgpack can pack (arrays allowed).

    Laws, which ``zmon.testing.check_metric`` verifies: `create()` is merge's identity; merge is associative and
    commutative; ``update(update(create(), b1), b2) == merge(update(create(), b1), update(create(), b2))``; all up to
    float rounding. `update` and `merge` are deterministic. `result` does not change the accumulator and leaves
    undefined values out (never 0.0 for unknown, never NaN).

    Optional members, with defaults in `MetricBase`: ``series``, a sequence of `Series` (a metric without it is emitted
    in every preset); ``task``, the only task it is for (it does not see batches of another); ``late_labels``, True for
    a metric that does not need ``labels`` but sees those that arrive after their predictions (see `Batch`);
    ``compare(by_agent, ctx)``, which sees all agents' accumulators when a window closes; and ``detail(acc, ctx)``,
    called after `result`: plain data behind the values (arrays allowed, None for nothing), kept in the collector's own
    history for its page. Sinks do not receive it, so it may hold what would be too many series.

    Attributes
    ----------
    name : str
        lower_snake, unique.
    needs : frozenset of str
        Columns it reads, see `Batch.columns`; it does not see batches that lack one of them.
    """

    name: str
    needs: frozenset[str]

    def create(self, ctx: Context) -> A:
        """Return an empty accumulator."""
        ...

    def update(self, acc: A, batch: Batch, ctx: Context) -> A:
        """Return the accumulator with the batch's rows; may change `acc` in place, must not change the batch."""
        ...

    def merge(self, left: A, right: A) -> A:
        """Return both accumulators merged into one; may change `left` in place, must not change `right`."""
        ...

    def result(self, acc: A, ctx: Context) -> Iterable[Value]:
        """Return the values of the window."""
        ...


class Point(NamedTuple):
    """A value and its agent; `agent_id` is None for the rollup over all agents."""

    agent_id: str | None
    value: Value


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one closed window of a (model, version), for sinks and observers.

    Attributes
    ----------
    sequence : int
        Number of the report, ascending over all models; unchanged if a report is written again.
    model, version : str
    window : Window
        Points are dated at ``window.start``.
    points : sequence of Point
        With their original names; the sink applies the rules of its target system.
    rows : mapping of str to RowCounts
        By agent.
    tags : mapping of str to mapping
        Free tags by agent.
    details : mapping of (agent, metric) to bytes
        Packed results of metrics' ``detail``, by agent (None for the rollup) and metric: for the local history only.
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
        """Return the names that identify the point's series, undecorated; names that do not apply are absent.

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
    """A sample that a target system refused: a dead letter, with the reason given."""

    sample: Mapping[str, Any]
    code: str
    description: str


class Ledger(Protocol):
    """Progress within a report, for sinks that deliver it in parts. Every call is durable when it returns."""

    def settled(self, sequence: int) -> int:
        """Return how many samples of this report, in order, earlier calls of `write` have settled."""
        ...

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        """Record that the first `samples` samples of this report are settled; `refused` ones become dead letters."""
        ...


@runtime_checkable
class Sink(Protocol):
    """A destination of reports. Every sink is called from its own thread, one report after the other, in order.

    Optional members, with defaults in `SinkBase`: ``attach(ledger)``, called with the sink's `Ledger` before `open`;
    ``resend(samples)``, which delivers dead letters again; ``samples_per_second`` and ``agents``, for `zmon validate`.

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
        """Deliver one report. Raise RetryLater to get the same one again; writing it twice must be harmless."""
        ...

    def close(self) -> None:
        """Release what `open` acquired. Safe to call twice, and without `open`."""
        ...
