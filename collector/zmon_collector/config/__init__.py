"""The collector's configuration: zmon.toml and the command line's options, checked key by key."""

from zmon_collector.config.alerting import AlertRule, NotifySection
from zmon_collector.config.configuration import Config
from zmon_collector.config.parsing import exposed, load, parse
from zmon_collector.config.sections import (
    CollectorSection,
    HealthSection,
    LimitsSection,
    MetricsSection,
    ModelSection,
    SecuritySection,
    WebSection,
)
from zmon_collector.config.toml import dump

__all__ = [
    "AlertRule",
    "CollectorSection",
    "Config",
    "HealthSection",
    "LimitsSection",
    "MetricsSection",
    "ModelSection",
    "NotifySection",
    "SecuritySection",
    "WebSection",
    "dump",
    "exposed",
    "load",
    "parse",
]
