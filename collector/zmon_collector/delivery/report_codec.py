"""Reports as the outbox keeps them: bytes and back. Pure."""

from __future__ import annotations

import msgpack

from zmon.contract import Point, Report, RowCounts, Value, Window

VERSION = 1


def encode(report: Report) -> bytes:
    """The report's bytes."""
    packed: bytes = msgpack.packb(
        {
            "version": VERSION,
            "sequence": report.sequence,
            "model": report.model,
            "model_version": report.version,
            "window": [report.window.start, report.window.end],
            "points": report.points,
            "rows": {
                agent: [rows.received, rows.late, rows.lost, rows.sampled_out, dict(rows.rejected)]
                for agent, rows in report.rows.items()
            },
            "tags": {agent: dict(tags) for agent, tags in report.tags.items()},
            "details": [[agent, metric, data] for (agent, metric), data in report.details.items()],
        },
        default=float,  # NumPy's scalars
        use_bin_type=True,
    )
    return packed


def decode(data: bytes) -> Report:
    """Read a report; ValueError when it is none, or of a newer version."""
    found = msgpack.unpackb(data, raw=False)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError("not a report that this release reads")
    return Report(
        found["sequence"],
        found["model"],
        found["model_version"],
        Window(*found["window"]),
        [Point(agent, Value(*value)) for agent, value in found["points"]],
        {agent: RowCounts(*rows) for agent, rows in found["rows"].items()},
        found["tags"],
        {(agent, metric): data for agent, metric, data in found.get("details", [])},  # 0.1.0 kept none
    )
