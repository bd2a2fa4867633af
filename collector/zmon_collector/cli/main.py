"""The `zmon` command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 an extra is not installed."""

from __future__ import annotations

import io
import logging
import sys
from importlib import import_module
from typing import NoReturn

import click

import zmon
from zmon.errors import ConfigurationError, MissingExtraError, ZmonError
from zmon.names import printable
from zmon_collector import log_lines
from zmon_collector.cli.options import FAILED, MISSING, WRONG
from zmon_collector.plugins import add_commands

# fmt: off
BUILT_IN = (  # each is a module of this package
    "backfill", "collect", "demo", "keygen", "outbox", "plugins", "profile", "push",
    "reload", "report", "tap", "top", "validate",
)
# fmt: on


class Commands(click.Group):
    """The built-in commands, each imported when it is used, and those of plugins.

    Plugins are loaded for an unknown name, or to list all commands.
    """

    _plugged = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._plug()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in BUILT_IN:
            self._import(cmd_name)
        elif cmd_name not in self.commands:
            self._plug()
        return super().get_command(ctx, cmd_name)

    def _import(self, name: str) -> None:
        if name not in self.commands:
            self.add_command(getattr(import_module(f"zmon_collector.cli.{name}"), name))

    def _plug(self) -> None:
        if not self._plugged:
            self._plugged = True
            for name in BUILT_IN:  # no plugin may take their names
                self._import(name)
            add_commands(self)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(zmon.__version__, package_name="zmon-agent", prog_name="zmon")
def cli() -> None:
    """Monitor machine-learning models in production: confidence, inputs and quality, window by window.

    A service publishes its batches with zmon.Publisher; `zmon collect` turns them into metrics and Anodot JSON files.
    `zmon demo` shows the whole path on a real model. Durations are written 500ms, 60s, 5m, 2h or 30d.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 an extra is not installed.
    """


def main() -> NoReturn:
    """Run the command line, without a stack trace for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths need not be UTF-8
    log_lines.begin(logging.WARNING, log_lines.COMMAND)
    try:
        cli(standalone_mode=True)
    except (ConfigurationError, MissingExtraError) as error:
        _say(str(error))
        sys.exit(MISSING if isinstance(error, MissingExtraError) else WRONG)
    except ZmonError as error:
        _say(str(error))
        sys.exit(FAILED)
    except OSError as error:  # a disk, a folder that is not there, a network
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(FAILED)
    raise AssertionError("click ends the process")


def _say(text: str) -> None:
    """Print an error on one line. It may quote a file, whose characters must not control the terminal."""
    click.echo(f"zmon: {printable(text.replace(chr(10), ' '))}", err=True)
