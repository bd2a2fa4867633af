"""``zmon tap``: points as windows close."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.commands.options import CONFIG, FAILED, FOLDER, printable

EVERY = 0.25  # seconds
PLAIN = {"what", "model", "model_version", "agent_id"}


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml).")
@click.option("--data-dir", type=FOLDER, help="Of the collector to tap.")
@click.option("--model", default="*", help="Glob: only these models.")
@click.option("--what", default="*", help="Glob: only these measures.")
@click.option("--agents", is_flag=True, help="Single replicas too, not only the rollup.")
@click.option("--most", type=click.IntRange(1), default=40, show_default=True, help="Points shown of a window.")
@click.option("--windows", type=click.IntRange(1), help="End after so many windows.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def tap(
    path: Path | None,
    data_dir: Path | None,
    model: str,
    what: str,
    agents: bool,
    most: int,
    windows: int | None,
    as_json: bool,
) -> None:
    """Print the points of each window as it closes, until Ctrl-C.

    Nothing of a window beyond MOST points is printed; how many were left out is said. The collector is only asked: it
    does not wait for this. Exit code 1 when no collector answers.
    """
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    try:
        for number, report in enumerate(_reports(folder), 1):
            points = [
                (names, value)
                for names, value in report["points"]
                if fnmatchcase(names["model"], model)
                and fnmatchcase(names["what"], what)
                and (agents or "agent_id" not in names)
            ]
            for names, value in points[:most]:
                click.echo(_json(report, names, value) if as_json else _line(report, names, value))
            left_out = len(points) - most + (report["left_out"] if len(points) > most else 0)
            if left_out > 0:
                click.echo(f"… {left_out} further points: narrow with --what, or raise --most", err=True)
            if number == windows:
                return
    except KeyboardInterrupt:
        return
    click.echo(f"zmon: no collector runs on {folder}; give its folder with --data-dir", err=True)
    sys.exit(FAILED)


def _reports(folder: Path) -> Iterator[dict[str, Any]]:
    """Reports from now on, until the collector no longer answers."""
    answer = ask(folder, "reports 0")
    sequence = max((report["sequence"] for report in (answer or {}).get("reports", [])), default=0)
    while answer is not None:
        time.sleep(EVERY)
        answer = ask(folder, f"reports {sequence}")
        for report in (answer or {}).get("reports", []):
            sequence = max(sequence, report["sequence"])
            yield report


def _line(report: dict[str, Any], names: dict[str, str], value: float) -> str:
    clock = datetime.fromtimestamp(report["start"]).astimezone()
    who = " ".join(filter(None, (names["model"], names.get("model_version"), names.get("agent_id"))))
    own = " ".join(f"{key}={name}" for key, name in names.items() if key not in PLAIN)
    return printable(f"{clock:%H:%M:%S}  {who}  {names['what']} {own}".rstrip()) + f"  {value:.6g}"


def _json(report: dict[str, Any], names: dict[str, str], value: float) -> str:
    return json.dumps({"timestamp": report["start"], "properties": names, "value": value})
