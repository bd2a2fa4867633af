"""Details behind a window's values, for the page: bytes between the metric that gives them and the history. Pure."""

from __future__ import annotations

import zlib
from typing import Any

from zmon import bases
from zmon.contract import Context, Metric
from zmon.state import pack_state, unpack_state

Details = dict[tuple[str | None, str], bytes]  # by (agent, metric), None for the rollup


def add(details: Details, metric: Metric[Any], accumulator: Any, ctx: Context) -> None:
    """Add what the metric's ``detail`` returns, if it has one."""
    detail = bases.detail(metric, accumulator, ctx)
    if detail is not None:
        details[ctx.agent_id, metric.name] = zlib.compress(pack_state(detail), 1)  # counts are mostly small or 0


def read(data: bytes) -> Any:
    """Unpack a detail; None when it is damaged, and the page does without it."""
    try:
        return unpack_state(zlib.decompress(data))
    except (zlib.error, ValueError, TypeError):
        return None
