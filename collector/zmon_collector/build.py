"""The parts of a collector, built from its configuration: who gets what. Nothing is opened or started here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from zmon.contract import Report
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.clock import Clock
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.restatement import Restater
from zmon_collector.config import Config, exposed
from zmon_collector.config.policy import PolicyStore
from zmon_collector.dashboard.live import HistoryDelivery, Live
from zmon_collector.dashboard.plugin_series import declarations
from zmon_collector.dashboard.prometheus import MetricsPage
from zmon_collector.dashboard.web.site import Site
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import Deliveries, ObserverDelivery, SinkDelivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.health import HealthReport
from zmon_collector.ingest.admission import MANY, ONE, Globs
from zmon_collector.ingest.checkpoint_policy import CheckpointPolicy
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.ingest.retention import Retention
from zmon_collector.loading import sink_is_on
from zmon_collector.pauses import Pauses
from zmon_collector.plugins import Registry
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry
from zmon_collector.watchdog import Watchdog


class Parts:
    """The parts of one collector.

    Parameters
    ----------
    config : Config
        As at the start; a reload changes what the parts hold of it.
    registry : Registry
    wake : callable
        Called from the parts' threads when the collector's thread has something to do.
    """

    def __init__(self, config: Config, registry: Registry, wake: Callable[[], None]) -> None:
        collector, limits = config.collector, config.limits
        self.config, self.registry = config, registry
        self.telemetry = telemetry = Telemetry()
        self.clock = Clock()
        wall = self.clock.wall
        self.policies = PolicyStore(config)
        self.engine = Engine(config, registry, self.policies, wake)
        self.receiver = Receiver(config, telemetry, wake)
        self.ingestor = Ingestor(config, self.policies, telemetry, self.engine, journal=collector.journal == "on")
        self.ingestor.admission.follow(limits, self.identities(config))
        self.retention = Retention(self.ingestor)
        self.database = Database(collector.data_dir / "state.sqlite", telemetry, wake)
        self.outbox = Outbox(self.database, telemetry, limit=limits.outbox_bytes, keep=limits.outbox_age, wall=wall)
        self.checkpoint_policy = CheckpointPolicy(self.ingestor, self.database, self._other_bytes)
        self.pauses = Pauses(self.engine, self.database, self.ingestor, self.checkpoint_policy)
        self.dead_letters = DeadLetters(
            self.database, telemetry, rows=limits.refused_rows, keep=limits.refused_age, wall=wall
        )
        self.alert_worker = AlertWorker(config, self.database, self.outbox, telemetry, wall=wall)
        declared = declarations(state.metric for state in registry.metrics.values())
        self.live = Live(config, self.engine, self.alert_worker, declared, self.ingestor.details_of, wall=wall)
        self.restater = Restater(
            self.database, self.live.history.restate, registry, self.policies, telemetry, wall=wall
        )
        self.metrics_page = MetricsPage(config.health.series)
        self.watchdog = Watchdog(self.pauses.stalled)
        self.site = Site(self.live, self.metrics_page, telemetry, self.watchdog.failures)
        sinks = [sink for name, sink in registry.sinks.items() if sink_is_on(config, name)]
        self.deliveries = Deliveries(
            *(SinkDelivery(sink, self.outbox, self.dead_letters, telemetry) for sink in sinks),
            ObserverDelivery(self._announce, self.outbox, telemetry),
            self.alert_worker,
            HistoryDelivery(self.live, self.outbox, telemetry),
        )

    def identities(self, config: Config) -> Sequence[Globs]:
        """Return the models of each identity among which the collector's limits are shared."""
        if self.receiver.auth.enabled:
            return self.receiver.auth.globs
        return MANY if exposed(config) else ONE

    def _other_bytes(self) -> int:
        """Return the bytes of state.sqlite that have budgets of their own: labels and reports."""
        return self.ingestor.late.kept_bytes + self.outbox.nbytes

    def _announce(self, report: Report) -> None:
        self.metrics_page.newest.record(report)
        self.registry.announce(report)

    def inspect(self) -> HealthReport:
        """Measure the health of the collector. Called on its thread, so that rows do not move meanwhile."""
        return HealthReport(
            pid=os.getpid(),
            data=self.receiver.data,
            control=self.receiver.control,
            web=self.site.url,
            streams=len(self.ingestor.sessions),
            connected=self.ingestor.sessions.connected,
            models=tuple(sorted(f"{model} {version}".strip() for model, version in self.ingestor.models)),
            open_windows=sum(len(model.windows.open) for model in self.ingestor.models.values()),
            inbox_bytes=self.receiver.inbox_bytes,
            backlog_bytes=self.engine.backlog,
            uncommitted_bytes=self.database.pending_bytes,
            journal_bytes=self.database.used_bytes,
            label_bytes=self.ingestor.late.kept_bytes,
            outbox=len(self.outbox),
            outbox_bytes=self.outbox.nbytes,
            behind=self.outbox.behind(),
            aside=dict(self.dead_letters.counts),
            sinks=self.deliveries.states(),
            threads=self.watchdog.states(),
            paused=self.pauses.current(),
            clock_ahead=self.clock.ahead,
            sample_rows_lowered_to=self.engine.smallest_sample,
            counters=dict(self.telemetry.snapshot()),
            plugins=tuple(self.registry.table()),
            disk_full=self.database.full,
            journal_limit=self.config.limits.journal_bytes,
            damaged_files=tuple(f"{name}: {note}" for name, note in self.database.damaged_files.items()),
            clock_problem=self.clock.problem,
            failing=(
                *self.ingestor.admission.problems(time.monotonic()),
                *self.database.problems(),
                *self.deliveries.problems(),
                *self.watchdog.problems(),
            ),
            admission=self.ingestor.admission.plain(),
        )
