"""The panels of the health view: what the collector received, what is missing, what is queued. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon_collector.dashboard import figures
from zmon_collector.dashboard.figures import Figure
from zmon_collector.dashboard.panels import Panel, panel
from zmon_collector.dashboard.timeseries import TimeSeries, select


def health_panels(
    beats: Sequence[Mapping[str, Any]], plugins: Sequence[Mapping[str, Any]], replicas: Sequence[TimeSeries]
) -> list[Panel]:
    """Return the panels of the collector's own health, from its newest health reports."""
    times = [int(beat["time"]) for beat in beats]
    busy = [row for row in plugins if row.get("seconds")]
    delays = select(replicas, "transport_delay_seconds", stat=("mean", "q95"), agent_id=None)
    return [
        panel("received", "Rows received", "Per second", _rates(beats, times, ("rows", "duplicates")),
              "Nothing received yet."),
        panel("missing", "Rows not in a window", "Per second: lost, late or rejected",
              _rates(beats, times, ("lost", "rejected", "late_or_conflicting", "rejected_messages")),
              "Nothing is missing."),
        panel("waiting", "Backlog", "MiB of rows queued for metrics", _levels(beats, times, "backlog_bytes", 2.0**-20),
              "Nothing is queued.", span=4),
        panel("outbox", "Outbox", "Reports queued for a sink", _levels(beats, times, "outbox"),
              "Nothing is queued.", span=4),
        panel("windows", "Open windows", "Of all models", _levels(beats, times, "open_windows"),
              "No window is open.", span=4),
        panel("plugins", "Time of metrics", "Seconds of computing since the start",
              figures.ranking([row["name"] for row in busy], [row["seconds"] for row in busy], " s"),
              "No metric has run yet."),
        panel("lag", "Transport delay", "From publish to receipt",
              figures.named_lines(delays, [f"{ts.get('model')} {ts.get('stat')}" for ts in delays]),
              "No transport_delay_seconds yet."),
    ]  # fmt: skip


def _counter(beat: Mapping[str, Any], name: str) -> float:
    counters: Mapping[str, int] = beat.get("counters", {})
    return float(sum(count for key, count in counters.items() if key.partition("{")[0] == name))


def _rates(beats: Sequence[Mapping[str, Any]], times: Sequence[int], names: Sequence[str]) -> Figure | None:
    if len(beats) < 2:
        return None
    seconds = np.maximum(np.diff([beat["mono"] for beat in beats]), 1e-9)
    counts = {name: [_counter(beat, name) for beat in beats] for name in names}
    rates = {name: figures.unnamed(times[1:], np.diff(counts[name]) / seconds) for name in names if counts[name][-1]}
    return figures.named_lines(list(rates.values()), [name.replace("_", " ") for name in rates])


def _levels(beats: Sequence[Mapping[str, Any]], times: Sequence[int], name: str, factor: float = 1.0) -> Figure | None:
    if len(beats) < 2:
        return None
    values = [float(beat.get(name) or 0) * factor for beat in beats]
    return figures.named_lines([figures.unnamed(times, values)], [name.replace("_", " ")])
