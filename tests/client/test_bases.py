"""The base classes: their defaults are those of a metric or sink that has none of the optional members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from zmon import (
    Batch,
    Context,
    Ledger,
    Metric,
    MetricBase,
    Point,
    Refused,
    Report,
    Series,
    Sink,
    SinkBase,
    Value,
    bases,
)
from zmon.testing import check_metric, check_sink, example_batches, example_report


class Plain:
    name = "plain"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> int:
        return acc + batch.rows

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, acc: int, ctx: Context) -> Iterable[Value]:
        yield Value("rows_seen", float(acc))


class Based(Plain, MetricBase[int]):
    name = "based"


class Full(Plain, MetricBase[int]):
    name = "full"
    series = (Series("rows_seen", "rows"),)
    task = "regression"
    late_labels = True

    def compare(self, by_agent: Mapping[str, int], ctx: Context) -> Iterable[Value | Point]:
        yield Value("rows_range", float(max(by_agent.values()) - min(by_agent.values())))

    def detail(self, acc: int, ctx: Context) -> Any:
        return {"rows": acc}


CTX: Any = None


@pytest.mark.parametrize("metric", [Plain(), Based()], ids=["protocol", "base"])
def test_a_metric_without_optional_members_has_the_defaults(metric: Metric[int]) -> None:
    check_metric(metric)
    assert isinstance(metric, Metric)
    assert not bases.series_of(metric)
    assert bases.is_for(metric, "classification")
    assert bases.is_for(metric, "regression")
    assert bases.is_for(metric, "multilabel") == (not metric.needs & bases.OUTPUTS)
    assert not bases.wants_late_labels(metric)
    assert not list(bases.compare(metric, {"a": 1, "b": 3}, CTX))
    assert bases.detail(metric, 1, CTX) is None


def test_the_optional_members_of_a_metric_are_used() -> None:
    metric = Full()
    assert [series.what for series in bases.series_of(metric)] == ["rows_seen"]
    assert bases.is_for(metric, "regression")
    assert not bases.is_for(metric, "classification")
    assert bases.wants_late_labels(metric)
    assert list(bases.compare(metric, {"a": 1, "b": 3}, CTX)) == [Value("rows_range", 2.0)]
    assert bases.detail(metric, 4, CTX) == {"rows": 4}
    assert example_batches(task="regression")[0].schema.task == "regression"


def test_a_metric_that_lacks_a_method_cannot_be_made() -> None:
    class Half(MetricBase[int]):
        name = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


class Listing(SinkBase):
    name = "listing"

    def __init__(self) -> None:
        self.sequences: list[int] = []

    def write(self, report: Report) -> None:
        self.sequences.append(report.sequence)


class Resending(Listing):
    name = "resending"
    samples_per_second = 100.0
    agents = "health"
    ledger: Ledger | None = None

    def attach(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def resend(self, samples: Sequence[Mapping[str, Any]]) -> Sequence[Refused | None]:
        return [None for _ in samples]


class PlainSink:
    name = "plain"

    def open(self) -> None: ...

    def write(self, report: Report) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("sink", [PlainSink(), Listing()], ids=["protocol", "base"])
def test_a_sink_without_optional_members_has_the_defaults(sink: Sink) -> None:
    check_sink(sink)
    assert isinstance(sink, Sink)
    bases.attach(sink, object())  # type: ignore[arg-type]
    assert bases.resend_of(sink) is None, "zmon outbox retry then says that it cannot"
    assert bases.quota_of(sink) == (None, None)


def test_the_optional_members_of_a_sink_are_used() -> None:
    sink, ledger = Resending(), object()
    bases.attach(sink, ledger)  # type: ignore[arg-type]
    assert sink.ledger is ledger
    resend = bases.resend_of(sink)
    assert resend is not None
    assert resend([{}, {}]) == [None, None]
    assert bases.quota_of(sink) == (100.0, "health")
    sink.write(example_report(7))
    assert sink.sequences == [7]
