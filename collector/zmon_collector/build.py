"""The parts of a collector, built from its configuration: who gets what. Nothing is opened or started here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zmon.contract import Report
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.restatement import Restater
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.dashboard.live import HistoryDelivery, Live
from zmon_collector.dashboard.plugin_series import declarations
from zmon_collector.dashboard.prometheus import NewestReports
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import Deliveries, ObserverDelivery, SinkDelivery
from zmon_collector.delivery.outbox import Outbox, next_sequence
from zmon_collector.ingest.checkpoint_policy import CheckpointPolicy
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.receiver import Receiver
from zmon_collector.ingest.retention import Retention
from zmon_collector.loading import sink_is_on
from zmon_collector.plugins import Registry
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one collector, in the order in which rows pass them."""

    config: Config  # as at the start
    telemetry: Telemetry
    registry: Registry
    policies: PolicyStore
    receiver: Receiver
    ingestor: Ingestor
    database: Database
    checkpoint_policy: CheckpointPolicy
    retention: Retention
    engine: Engine
    restater: Restater
    outbox: Outbox
    dead_letters: DeadLetters
    deliveries: Deliveries
    alert_worker: AlertWorker
    newest: NewestReports
    live: Live


def build_parts(config: Config, registry: Registry, wake: Callable[[], None]) -> Parts:
    """Build the parts; `wake` is called from their threads when the collector's thread has something to do."""
    collector, limits = config.collector, config.limits
    telemetry, policies = Telemetry(), PolicyStore(config)
    engine = Engine(
        registry,
        policies,
        sample_bytes=limits.sample_bytes,
        workers=collector.workers,
        timeout=collector.metric_timeout,
        wake=wake,
    )
    ingestor = Ingestor(config, policies, telemetry, engine, journal=collector.journal == "on")
    database = Database(collector.data_dir / "state.sqlite", telemetry, wake)
    outbox = Outbox(
        database,
        telemetry,
        limit=limits.outbox_bytes,
        keep=limits.outbox_age,
        first=next_sequence(collector.data_dir),
    )
    dead_letters = DeadLetters(database, telemetry, rows=limits.refused_rows, keep=limits.refused_age)
    alert_worker = AlertWorker(config, database, outbox, telemetry)
    newest = NewestReports()
    live = Live(config, engine, alert_worker, declarations(state.metric for state in registry.metrics.values()))

    def announce(report: Report) -> None:
        newest.record(report)
        registry.announce(report)

    sinks = [sink for name, sink in registry.sinks.items() if sink_is_on(config, name)]
    deliveries = Deliveries(
        [
            *(SinkDelivery(sink, outbox, dead_letters, telemetry) for sink in sinks),
            ObserverDelivery(announce, outbox, telemetry),
            alert_worker,
            HistoryDelivery(live, outbox, telemetry),
        ]
    )
    return Parts(
        config=config,
        telemetry=telemetry,
        registry=registry,
        policies=policies,
        receiver=Receiver(config, telemetry, wake),
        ingestor=ingestor,
        database=database,
        checkpoint_policy=CheckpointPolicy(ingestor, database),
        retention=Retention(ingestor),
        engine=engine,
        restater=Restater(database, live.history.restate, registry, policies),
        outbox=outbox,
        dead_letters=dead_letters,
        deliveries=deliveries,
        alert_worker=alert_worker,
        newest=newest,
        live=live,
    )
