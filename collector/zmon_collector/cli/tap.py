"""``zmon tap``: points as windows close, or headers of batches as they pass."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import click

from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE, printable

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
@click.option("--batches", is_flag=True, help="Headers of batches as they pass instead, a line each.")
@click.option(
    "--rate", type=click.IntRange(1, 100), default=20, show_default=True, help="With --batches: lines a second."
)
@click.option("--seconds", type=click.FloatRange(0.1), help="With --batches: end after so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def tap(
    path: Path | None,
    data_dir: Path | None,
    model: str,
    what: str,
    agents: bool,
    most: int,
    windows: int | None,
    batches: bool,
    rate: int,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Print the points of each window as it closes, until Ctrl-C.

    Nothing of a window beyond MOST points is printed; how many were left out is said. The collector is only asked: it
    does not wait for this. Exit code 1 when no collector answers.

    With --batches: agent, stream, rows, columns and their types, and bytes of each message that arrives, before it is
    checked, at most RATE lines a second; how many passed beyond them is said. The collector notes a message's header
    only while somebody asks, and messages go their way all the same.
    """
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    try:
        if batches:
            if _passing(folder, model, rate, seconds, as_json):
                return
            _nobody(folder)
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
    _nobody(folder)


def _nobody(folder: Path) -> NoReturn:
    click.echo(f"zmon: no collector runs on {folder}; give its folder with --data-dir", err=True)
    sys.exit(FAILED)


def _passing(folder: Path, model: str, rate: int, seconds: float | None, as_json: bool) -> bool:
    """Print headers for a time; False when the collector no longer answers."""
    end = None if seconds is None else time.monotonic() + seconds
    left, until = rate, time.monotonic() + 1.0
    hidden = 0
    answer = ask(folder, "batches 0", PATIENCE)
    seen = (answer or {}).get("seen", 0)
    while answer is not None and (end is None or time.monotonic() < end):
        time.sleep(EVERY)
        answer = ask(folder, f"batches {seen}", PATIENCE)
        if answer is None:
            break
        hidden += answer["seen"] - seen - len(answer["batches"])
        seen = answer["seen"]
        for batch in answer["batches"]:
            if not fnmatchcase(batch["model"], model):
                continue
            if left:
                left -= 1
                click.echo(json.dumps(batch) if as_json else _header(batch))
            else:
                hidden += 1
        if time.monotonic() >= until:
            _say(hidden)
            left, until, hidden = rate, time.monotonic() + 1.0, 0
    _say(hidden)
    return answer is not None


def _say(hidden: int) -> None:
    if hidden:
        click.echo(f"… {hidden} further messages passed: narrow with --model, or raise --rate", err=True)


def _header(batch: dict[str, Any]) -> str:
    clock = datetime.fromtimestamp(batch["time"]).astimezone()
    who = " ".join(filter(None, (batch["model"], batch["version"], batch["agent"])))
    rows = f"{batch['rows']} rows from {batch['first']}"
    columns = " ".join(f"{name}={dtype}" for name, dtype in batch["columns"].items())
    inputs = f"{batch['features']} inputs" if batch["features"] else "no inputs"
    has = "labels" if "labels" in batch["columns"] else "no labels"
    text = f"{clock:%H:%M:%S}  {who}  {batch['stream']}  {batch['kind']}  {rows}  {columns}  {inputs}, {has}"
    return printable(text) + f"  {batch['bytes']:,} B"


def _reports(folder: Path) -> Iterator[dict[str, Any]]:
    """Reports from now on, until the collector no longer answers."""
    answer = ask(folder, "reports 0", PATIENCE)
    sequence = max((report["sequence"] for report in (answer or {}).get("reports", [])), default=0)
    while answer is not None:
        time.sleep(EVERY)
        answer = ask(folder, f"reports {sequence}", PATIENCE)
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
