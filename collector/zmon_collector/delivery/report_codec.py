"""Reports as the outbox keeps them: bytes and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from zmon.contract import Point, Report, RowCounts, Value, Window

VERSION = 1


def encode(report: Report, points: Sequence[bytes] | None = None) -> bytes:
    """Return the report as bytes.

    `points` are the report's points one after the other, where they are packed already: they are most of it.
    """
    packer = msgpack.Packer(default=float, use_bin_type=True, autoreset=False)  # float: NumPy's scalars
    fields = {
        "version": VERSION,
        "sequence": report.sequence,
        "model": report.model,
        "model_version": report.version,
        "window": [report.window.start, report.window.end],
        "rows": {
            agent: [
                *(rows.received, rows.late, rows.lost, rows.sampled_out),
                *(dict(rows.rejected), dict(rows.degraded)),
            ]
            for agent, rows in report.rows.items()
        },
        "tags": {agent: dict(tags) for agent, tags in report.tags.items()},
        "details": [[agent, metric, data] for (agent, metric), data in report.details.items()],
    }
    packer.pack_map_header(len(fields) + 1)
    for name, value in fields.items():
        packer.pack(name)
        packer.pack(value)
    packer.pack("points")
    if points is None:
        packer.pack(report.points)
        return bytes(packer.bytes())
    packer.pack_array_header(len(report.points))
    return b"".join((packer.bytes(), *points))


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
