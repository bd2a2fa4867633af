"""Rejected and degraded rows of a model by reason, with the newest detail: the table of a model's view. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zmon._wire.checks import short_detail
from zmon_collector.dashboard.timeseries import TimeSeries, select
from zmon_collector.ingest.answers import Detail

SHOWN = 40  # reasons, those with most rows


def refusal_table(series: Sequence[TimeSeries], details: Sequence[Detail], agent: str = "") -> list[dict[str, Any]]:
    """Return one row for each kind and reason, those with most rows first.

    Parameters
    ----------
    series : sequence of TimeSeries
        ``rows_rejected`` and ``rows_degraded`` of every replica.
    details : sequence of Detail
        Newest first. They are of this run of the collector; a reason may have none.
    agent : str
        Only this replica; empty for all.
    """
    rows: Counter[tuple[str, str]] = Counter()
    for kind in ("rejected", "degraded"):
        for ts in select(series, f"rows_{kind}", agent_id=agent or "*"):
            rows[kind, ts.get("reason")] += int(ts.values.sum())
    newest: dict[tuple[str, str], Detail] = {}
    for detail in details:
        if not agent or detail.agent == agent:
            newest.setdefault((detail.kind, detail.reason), detail)
    return [
        {"kind": kind, "reason": short_detail(reason), "rows": count, **_plain(newest.get((kind, reason)))}
        for (kind, reason), count in rows.most_common(SHOWN)
        if count
    ]


def _plain(detail: Detail | None) -> dict[str, Any]:
    return {} if detail is None else {"detail": detail.detail, "agent": detail.agent, "time": detail.time}
