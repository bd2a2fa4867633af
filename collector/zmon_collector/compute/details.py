"""What lies behind a window's values, for the page: bytes between the metric that gives it and the history. Pure."""

from __future__ import annotations

import zlib
from typing import Any

from zmon import bases
from zmon.contract import Context, Metric
from zmon.state import pack_state, unpack_state

Details = dict[tuple[str | None, str], bytes]  # by (agent, metric), None for the rollup


def add(found: Details, metric: Metric[Any], accumulator: Any, ctx: Context) -> None:
    """Keep what the metric's ``detail`` gives, if it has one."""
    detail = bases.detail(metric, accumulator, ctx)
    if detail is not None:
        found[ctx.agent_id, metric.name] = zlib.compress(pack_state(detail), 1)  # counts are mostly small or 0


def read(data: bytes) -> Any:
    """What was packed; None when it is damaged: the page then lacks it."""
    try:
        return unpack_state(zlib.decompress(data))
    except (zlib.error, ValueError):
        return None
