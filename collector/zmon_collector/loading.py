"""Which plugins a configuration uses: all that are installed, and of the sinks those that it turns on."""

from __future__ import annotations

from zmon_collector.config import Config
from zmon_collector.config.series_selection import smallest
from zmon_collector.plugins import Registry, check_names

DEFAULT_SINK = "anodot_file"


def sink_is_on(config: Config, name: str) -> bool:
    """A sink is used when the configuration has its table; the file sink also without; `enabled = false` turns off."""
    table = config.sinks.get(name)
    return name == DEFAULT_SINK if table is None else table.get("enabled", True) is not False


def load_plugins(config: Config) -> Registry:
    """All installed plugins; ConfigurationError when the configuration names one that is not there."""
    preset_of = smallest(lambda: [state.metric for state in registry.metrics.values()])
    common = {"sinks": config.sinks, "data_dir": config.collector.data_dir, "preset_of": preset_of}
    registry = Registry(lambda name: {**config.plugins.get(name, {}), **common})
    registry.load()
    check_names(registry, config.plugins, "plugins")
    check_names(registry, config.sinks, "sinks")
    return registry
