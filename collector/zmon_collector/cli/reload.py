"""``zmon reload``: make a running collector read its changed configuration."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE, WRONG


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml), to find the data folder.")
@click.option("--data-dir", type=FOLDER, help="The collector's data folder.")
def reload(path: Path | None, data_dir: Path | None) -> None:
    """Make a running collector read its configuration again, as SIGHUP does.

    Models, metrics and most limits change with the next window. Changed keys that need a restart are listed. Exit
    code 2 if the file is invalid, and then nothing changes; 1 if no collector answers.
    """
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    answer = ask(folder, "reload", PATIENCE)
    if answer is None:
        click.echo(f"zmon: no collector answers on {folder}", err=True)
        sys.exit(FAILED)
    if "error" in answer:
        click.echo(f"zmon: nothing was changed: {answer['error']}", err=True)
        sys.exit(WRONG)
    click.echo("reloaded" + (f"; these need a restart: {', '.join(answer['waiting'])}" if answer["waiting"] else ""))
