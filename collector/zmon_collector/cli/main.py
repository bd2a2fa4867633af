"""The `zmon` command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 an extra is not installed."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

import zmon
from zmon.errors import ConfigurationError, MissingExtraError
from zmon_collector.cli.backfill import backfill
from zmon_collector.cli.collect import collect
from zmon_collector.cli.demo import demo
from zmon_collector.cli.keygen import keygen
from zmon_collector.cli.options import FAILED, MISSING, WRONG
from zmon_collector.cli.outbox import outbox
from zmon_collector.cli.plugins import plugins
from zmon_collector.cli.profile import profile
from zmon_collector.cli.push import push
from zmon_collector.cli.reload import reload
from zmon_collector.cli.report import report
from zmon_collector.cli.tap import tap
from zmon_collector.cli.top import top
from zmon_collector.cli.validate import validate
from zmon_collector.plugins import add_commands
from zmon_collector.storage.database import StoreError


class Commands(click.Group):
    """The built-in commands, and those of plugins, which are loaded for an unknown name or to list all commands."""

    _plugged = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._plug()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._plug()
        return super().get_command(ctx, cmd_name)

    def _plug(self) -> None:
        if not self._plugged:
            self._plugged = True
            add_commands(self)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(zmon.__version__, package_name="zmon-agent", prog_name="zmon")
def cli() -> None:
    """Monitor machine-learning models in production: confidence, inputs and quality, window by window.

    A service publishes its batches with zmon.Publisher; `zmon collect` turns them into metrics and Anodot JSON files.
    `zmon demo` shows the whole path on a real model. Durations are written 500ms, 60s, 5m, 2h or 30d.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 an extra is not installed.
    """


for command in (backfill, collect, demo, keygen, outbox, plugins, profile, push, reload, report, tap, top, validate):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line, without a stack trace for a user's mistake."""
    try:
        cli(standalone_mode=True)
    except (ConfigurationError, MissingExtraError) as error:
        click.echo(f"zmon: {error}", err=True)
        sys.exit(MISSING if isinstance(error, MissingExtraError) else WRONG)
    except StoreError as error:
        click.echo(f"zmon: {error}", err=True)
        sys.exit(FAILED)
    raise AssertionError("click ends the process")
