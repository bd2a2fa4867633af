"""Load the plugins that a configuration uses: all installed ones and those of its folder; sinks must be turned on."""

from __future__ import annotations

from zmon_collector.config import Config
from zmon_collector.config.series_selection import smallest
from zmon_collector.plugins import Registry, check_names

DEFAULT_SINK = "anodot_file"


def sink_is_on(config: Config, name: str) -> bool:
    """Return whether a sink is used: its table is there without `enabled = false`; the file sink needs no table."""
    table = config.sinks.get(name)
    return name == DEFAULT_SINK if table is None else table.get("enabled", True) is not False


def load_plugins(config: Config) -> Registry:
    """Load all plugins; ConfigurationError when the configuration names one that does not exist."""
    preset_of = smallest(lambda: [state.metric for state in registry.metrics.values()])
    common = {"sinks": config.sinks, "data_dir": config.collector.data_dir, "preset_of": preset_of}
    registry = Registry(lambda name: {**config.plugins.get(name, {}), **common})
    registry.load(config.collector.plugins_dir)
    check_names(registry, config.plugins, "plugins")
    check_names(registry, config.sinks, "sinks")
    return registry
