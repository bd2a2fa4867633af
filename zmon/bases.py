"""Base classes for metrics and sinks, with defaults for the optional members, and how the collector reads these.

The collector takes any object that has the members of `zmon.Metric` or `zmon.Sink`; it need not inherit from a base.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic

from zmon.batch import Batch
from zmon.contract import A, Context, Ledger, Metric, Point, Refused, Report, Series, Sink, Value

OUTPUTS = frozenset({"probabilities", "predictions", "predicted", "labels"})
Resend = Callable[[Sequence[Mapping[str, Any]]], Sequence[Refused | None]]


class MetricBase(ABC, Generic[A]):
    """Base class of a metric: `Metric` with a default for every optional member.

    A subclass sets `name` and `needs` and implements `create`, `update`, `merge` and `result`; `Metric` says what
    they do, and the laws that they must satisfy.

    Attributes
    ----------
    name : str
        lower_snake, unique.
    needs : frozenset of str
        Columns it reads, see `Batch.columns`. Empty: it runs in every window.
    series : sequence of Series
        The series it emits. Empty: not declared, and everything is emitted in every preset.
    task : str or None
        The only task it is for: ``"classification"``, ``"regression"`` or ``"multilabel"``. None: classification and
        regression; of a multilabel model only if it needs no outputs and no labels.
    late_labels : bool
        Whether a metric that does not need ``labels`` sees labels that arrive after their predictions, see `Batch`.

    Examples
    --------
    >>> from zmon import MetricBase, Value
    >>> from zmon.testing import check_metric
    >>> class Rows(MetricBase[int]):
    ...     name = "rows_seen"
    ...     def create(self, ctx): return 0
    ...     def update(self, acc, batch, ctx): return acc + batch.rows
    ...     def merge(self, left, right): return left + right
    ...     def result(self, acc, ctx): yield Value("rows_seen", float(acc))
    >>> check_metric(Rows())
    """

    name: str
    needs: frozenset[str] = frozenset()
    series: Sequence[Series] = ()
    task: str | None = None
    late_labels: bool = False

    @abstractmethod
    def create(self, ctx: Context) -> A:
        """Return an empty accumulator."""

    @abstractmethod
    def update(self, acc: A, batch: Batch, ctx: Context) -> A:
        """Return the accumulator with the batch's rows."""

    @abstractmethod
    def merge(self, left: A, right: A) -> A:
        """Return both accumulators merged into one."""

    @abstractmethod
    def result(self, acc: A, ctx: Context) -> Iterable[Value]:
        """Return the values of the window."""

    def compare(self, by_agent: Mapping[str, A], ctx: Context) -> Iterable[Value | Point]:
        """Return values that compare the agents' accumulators when a window closes; by default none."""
        return ()

    def detail(self, acc: A, ctx: Context) -> Any:
        """Return plain data behind the values for the collector's own history; by default None, for nothing."""
        return None


class SinkBase(ABC):
    """Base class of a sink: `Sink` with a default for every member but `name` and `write`.

    Attributes
    ----------
    name : str
        lower_snake, unique; the sink's configuration is the table [sinks.NAME].
    samples_per_second : float or None
        The target system's quota, for `zmon validate`. None: it has none.
    agents : str or None
        Series of single agents that it delivers, for `zmon validate`: ``"all"``, ``"health"`` or ``"none"``. None: all,
        or health where there is a quota.

    Examples
    --------
    >>> from zmon import SinkBase
    >>> from zmon.testing import example_report
    >>> class Print(SinkBase):
    ...     name = "print"
    ...     def write(self, report): print(report.sequence, len(report.points))
    >>> Print().write(example_report())
    1 15
    """

    name: str
    samples_per_second: float | None = None
    agents: str | None = None

    def attach(self, ledger: Ledger) -> None:
        """Receive the sink's `Ledger` before `open`; by default it is not used."""
        return

    def open(self) -> None:
        """Get ready before the first write; by default there is nothing to do."""
        return

    @abstractmethod
    def write(self, report: Report) -> None:
        """Deliver one report, as `Sink.write` describes."""

    def resend(self, samples: Sequence[Mapping[str, Any]]) -> Sequence[Refused | None]:
        """Deliver dead letters again: None for every sample that is accepted now, else why it is still refused.

        A sink that does not implement this cannot be given to `zmon outbox retry`.
        """
        raise NotImplementedError(f"sink {self.name!r} cannot deliver dead letters again: it does not implement resend")

    def close(self) -> None:
        """Release what `open` acquired; by default there is nothing to do."""
        return


# --- the optional members of any metric or sink, whether it inherits from a base or not ------------------------------


def series_of(metric: Metric[Any]) -> Sequence[Series]:
    """Return the series that a metric declares; empty if it declares none."""
    return getattr(metric, "series", MetricBase.series)


def is_for(metric: Metric[Any], task: str) -> bool:
    """Return whether a metric is for models of this task."""
    wanted = getattr(metric, "task", None)
    if wanted is None and task == "multilabel":  # its outputs and labels are of another shape and meaning
        return not metric.needs & OUTPUTS
    return wanted in (None, task)


def wants_late_labels(metric: Metric[Any]) -> bool:
    """Return whether a metric that does not need labels sees those that arrive after their predictions."""
    return getattr(metric, "late_labels", MetricBase.late_labels)


def compare(metric: Metric[A], by_agent: Mapping[str, A], ctx: Context) -> Iterable[Value | Point]:
    """Return a metric's values that compare the agents' accumulators; none if it has no such method."""
    member = getattr(metric, "compare", None)
    return () if member is None else member(by_agent, ctx)


def detail(metric: Metric[A], acc: A, ctx: Context) -> Any:
    """Return the plain data behind a metric's values; None for nothing."""
    member = getattr(metric, "detail", None)
    return None if member is None else member(acc, ctx)


def attach(sink: Sink, ledger: Ledger) -> None:
    """Give a sink its ledger if it uses one."""
    member = getattr(sink, "attach", None)
    if member is not None:
        member(ledger)


def resend_of(sink: Sink) -> Resend | None:
    """Return the sink's method that delivers dead letters again; None if it has none."""
    member = getattr(sink, "resend", None)
    return None if getattr(member, "__func__", None) is SinkBase.resend else member


def quota_of(sink: Sink) -> tuple[float | None, str | None]:
    """Return a sink's `samples_per_second` and `agents`, None for what it does not declare."""
    return getattr(sink, "samples_per_second", None), getattr(sink, "agents", None)
