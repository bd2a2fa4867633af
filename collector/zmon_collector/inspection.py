"""A look at all parts of a collector: how full the queues are, what has been counted, what fails."""

from __future__ import annotations

import os

from zmon_collector.build import Parts
from zmon_collector.health import HealthReport


def inspect(parts: Parts, page_url: str) -> HealthReport:
    """Measure the health of a collector now. Called on its thread, so that rows do not move meanwhile."""
    ingestor, database, outbox = parts.ingestor, parts.database, parts.outbox
    return HealthReport(
        pid=os.getpid(),
        data=parts.receiver.data,
        control=parts.receiver.control,
        web=page_url,
        streams=len(ingestor.sessions),
        connected=ingestor.sessions.connected,
        models=tuple(sorted(f"{model} {version}".strip() for model, version in ingestor.models)),
        open_windows=sum(len(model.windows.open) for model in ingestor.models.values()),
        inbox_bytes=parts.receiver.inbox_bytes,
        backlog_bytes=parts.engine.backlog,
        uncommitted_bytes=database.pending_bytes,
        journal_bytes=database.used_bytes,
        label_bytes=ingestor.late.kept_bytes,
        outbox=len(outbox),
        outbox_bytes=outbox.nbytes,
        behind=outbox.behind(),
        aside=dict(parts.dead_letters.counts),
        sinks=parts.deliveries.states(),
        sample_rows_lowered_to=parts.engine.smallest_sample,
        counters=dict(parts.telemetry.snapshot()),
        plugins=tuple(parts.registry.table()),
        disk_full=database.full,
        journal_limit=parts.config.limits.journal_bytes,
        damaged_files=tuple(database.damaged_files),
        failing=tuple(parts.deliveries.problems()),
    )
