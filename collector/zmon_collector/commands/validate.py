"""``zmon validate``: would a collector start with this file?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zmon_collector import config as configuration
from zmon_collector.auth import Gate
from zmon_collector.commands.options import CONFIG, FAILED, loaded
from zmon_collector.service import sink_is_on
from zmon_collector.telemetry import Telemetry


@click.command()
@click.argument("path", metavar="CONFIG", type=CONFIG)
def validate(path: Path) -> None:
    """Check a configuration file and the plugins it speaks of, without starting anything.

    Exit code 0 when a collector would start with it, 2 when it would refuse, 1 when it would start without one of its
    plugins.
    """
    config = configuration.load(path)
    Gate(config.security, Telemetry())  # reads the keys and the clients, as a collector does
    registry = loaded(config)
    sinks = [name for name in registry.sinks if sink_is_on(config, name)]
    click.echo(f"{path}: valid; windows of {config.collector.window} s on {config.collector.bind}, "
               f"{len(registry.metrics)} metrics, preset {config.metrics.preset}, "
               f"sinks: {', '.join(sinks) or 'none'}")  # fmt: skip
    bad = [plugin for plugin in registry.plugins.values() if plugin.state != "ok"]
    for plugin in bad:
        click.echo(f"plugin {plugin.name!r} ({plugin.origin}) is quarantined: {plugin.error}", err=True)
    sys.exit(FAILED if bad else 0)
