"""Numbers of rows: in the window, lost, late, rejected, degraded and sampled out.

=================== ================================================ ======================================
series              definition                                       source
=================== ================================================ ======================================
buffer_count        rows in the window                               the earlier MLWatcher agent
rows_lost           published, never arrived                         row numbers of each publisher's stream
rows_late           arrived after their window had closed            collector
rows_rejected       invalid rows, by reason                          publisher and collector
rows_degraded       taken without an invalid part, by reason         publisher and collector
rows_sampled_out    omitted by the publisher's sample_rate           publisher
=================== ================================================ ======================================

All are whole numbers from 0. `rows_degraded` are also in `buffer_count`. Rows that are in no window are counted in the
oldest window that was open when the collector learned of them, and so are the publisher's degraded rows.

>>> from zmon import Context, RowCounts, Schema, Window
>>> ctx = Context("fraud", "", "pod-1", Schema(), Window(0, 60), rows=RowCounts(received=40, late=2))
>>> metric = WindowRows()
>>> [(value.what, value.value) for value in metric.result(metric.create(ctx), ctx)]
[('buffer_count', 40), ('rows_lost', 0), ('rows_late', 2), ('rows_sampled_out', 0)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zmon.batch import Batch
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl


class WindowRows:
    """Row counts, which the collector keeps and passes in ``ctx.rows``. The accumulator stays empty."""

    name = "rows"
    needs: frozenset[str] = frozenset()
    series = (
        Series("buffer_count", "rows in the window", preset="minimal"),
        Series("rows_lost", "rows published that never arrived (per agent)", preset="minimal"),
        Series("rows_late", "rows that arrived after their window had closed", preset="minimal"),
        Series("rows_sampled_out", "rows left out by the publisher's sample_rate (per agent)", preset="minimal"),
        Series("rows_rejected", "rows that were no valid batch, by reason (per agent)", ("reason",), preset="minimal"),
        Series("rows_degraded", "rows in the points without a part that was invalid, by reason (per agent)",
               ("reason",), preset="minimal"),
    )  # fmt: skip

    def create(self, ctx: Context) -> dict[str, int]:
        return {}

    def update(self, acc: dict[str, int], batch: Batch, ctx: Context) -> dict[str, int]:
        return acc

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return left

    def result(self, acc: dict[str, int], ctx: Context) -> Iterable[Value]:
        rows = ctx.rows
        if rows.received:
            yield Value("buffer_count", rows.received)
        if ctx.segment is not None:
            return
        if ctx.agent_id is None:
            yield Value("rows_late", rows.late)
            return
        yield Value("rows_lost", rows.lost)
        yield Value("rows_late", rows.late)
        yield Value("rows_sampled_out", rows.sampled_out)
        for reason, count in sorted(rows.rejected.items()):
            yield Value("rows_rejected", count, reason=reason)
        for reason, count in sorted(rows.degraded.items()):
            yield Value("rows_degraded", count, reason=reason)


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(WindowRows())
