"""`Config`: every section of zmon.toml, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmon_collector.config.alerting import AlertRule, NotifySection
from zmon_collector.config.sections import (
    CollectorSection,
    HealthSection,
    LimitsSection,
    MetricsSection,
    ModelSection,
    SecuritySection,
    WebSection,
)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    collector: CollectorSection = CollectorSection()
    metrics: MetricsSection = MetricsSection()
    limits: LimitsSection = LimitsSection()
    security: SecuritySection = SecuritySection()
    web: WebSection = WebSection()
    health: HealthSection = HealthSection()
    models: Mapping[str, ModelSection] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sinks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alerts: tuple[AlertRule, ...] = ()
    notify: Mapping[str, NotifySection] = field(default_factory=dict)
