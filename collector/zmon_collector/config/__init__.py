"""The collector's configuration: zmon.toml and the command line's options, checked key by key."""

from zmon_collector.config.parsing import exposed, load, parse
from zmon_collector.config.sections import Config
from zmon_collector.config.toml import dump

__all__ = ["Config", "dump", "exposed", "load", "parse"]
