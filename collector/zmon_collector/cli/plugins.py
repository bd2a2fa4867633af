"""``zmon plugins``: list metrics and sinks with their origin and state."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from zmon.names import printable
from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PLUGINS_DIR, load_quietly
from zmon_collector.loading import sink_is_on


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml).")
@click.option("--data-dir", type=FOLDER, help="The collector's data folder.")
@PLUGINS_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(path: Path | None, data_dir: Path | None, plugins_dir: Path | None, as_json: bool) -> None:
    """List metrics and sinks with their origin and state.

    Reads the states from the running collector of DATA_DIR; if none answers, loads the plugins here. Exit code 1 if
    a plugin is quarantined, disabled or stuck.
    """
    config = configuration.load(path, data_dir=data_dir, plugins_dir=plugins_dir)
    answer = ask(config.collector.data_dir, "plugins")
    rows = list(load_quietly(config).table()) if answer is None else answer["plugins"]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(f"{'no collector runs on' if answer is None else 'collector of'} {config.collector.data_dir}")
        for row in rows:
            state = "off" if row["kind"] == "sink" and not sink_is_on(config, row["name"]) else row["state"]
            models = f"  for {', '.join(row['models'])}:" if row.get("models") else ""
            error = f"{models}  {row['error']}" if row["error"] else ""
            click.echo(printable(f"{row['kind']:<7} {row['name']:<24} {state:<12} {row['origin']}{error}"))
    sys.exit(FAILED if any(row["state"] != "ok" for row in rows) else 0)
