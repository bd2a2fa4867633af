"""``zmon validate``: would a collector start with this configuration, would Anodot take these samples?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zmon_collector import config as configuration
from zmon_collector.commands.options import CONFIG, FAILED, loaded
from zmon_collector.commands.push import show
from zmon_collector.push.run import check
from zmon_collector.service import sink_is_on


@click.command()
@click.argument("path", metavar="CONFIG", type=CONFIG)
def validate(path: Path) -> None:
    """Check a configuration file and the plugins it speaks of, without starting anything.

    Exit code 0 when a collector would start with it, 2 when it would refuse, 1 when it would start without one of its
    plugins. A written file (.json) is checked against Anodot's rules instead, as `zmon push --dry-run` does.
    """
    if path.suffix == ".json":
        summary = check([path], lambda n: None)
        show(summary, "valid")
        sys.exit(FAILED if summary.refused else 0)
    config = configuration.load(path)
    registry = loaded(config)
    sinks = [name for name in registry.sinks if sink_is_on(config, name)]
    click.echo(f"{path}: valid; windows of {config.collector.window} s on {config.collector.bind}, "
               f"{len(registry.metrics)} metrics, preset {config.metrics.preset}, "
               f"sinks: {', '.join(sinks) or 'none'}")  # fmt: skip
    bad = [plugin for plugin in registry.plugins.values() if plugin.state != "ok"]
    for plugin in bad:
        click.echo(f"plugin {plugin.name!r} ({plugin.origin}) is quarantined: {plugin.error}", err=True)
    sys.exit(FAILED if bad else 0)
