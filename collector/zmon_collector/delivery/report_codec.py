"""Reports as the outbox keeps them: bytes and back. Pure."""

from __future__ import annotations

import msgpack

from zmon.contract import Point, Report, RowCounts, Value, Window

VERSION = 1


def encode(report: Report) -> bytes:
    """Return the report as bytes."""
    packed: bytes = msgpack.packb(
        {
            "version": VERSION,
            "sequence": report.sequence,
            "model": report.model,
            "model_version": report.version,
            "window": [report.window.start, report.window.end],
            "points": report.points,
            "rows": {
                agent: [
                    *(rows.received, rows.late, rows.lost, rows.sampled_out),
                    *(dict(rows.rejected), dict(rows.degraded)),
                ]
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
    """Return the report of its bytes; ValueError when they are malformed, or of a newer version."""
    plain = msgpack.unpackb(data, raw=False)
    if not isinstance(plain, dict) or plain.get("version") != VERSION:
        raise ValueError("not a report that this release reads")
    return Report(
        plain["sequence"],
        plain["model"],
        plain["model_version"],
        Window(*plain["window"]),
        [Point(agent, Value(*value)) for agent, value in plain["points"]],
        {agent: RowCounts(*rows) for agent, rows in plain["rows"].items()},
        plain["tags"],
        {(agent, metric): data for agent, metric, data in plain.get("details", [])},  # files of 0.1.0 have none
    )
