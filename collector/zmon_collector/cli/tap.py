"""``zmon tap``: print points as windows close, or headers of batches as they arrive."""

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

from zmon.names import printable
from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE

EVERY = 0.25  # seconds
PLAIN = {"what", "model", "model_version", "agent_id"}


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml).")
@click.option("--data-dir", type=FOLDER, help="The collector's data folder.")
@click.option("--model", default="*", help="Glob: only these models.")
@click.option("--what", default="*", help="Glob: only these measures.")
@click.option("--agents", is_flag=True, help="Also print single replicas, not only the rollup.")
@click.option("--most", type=click.IntRange(1), default=40, show_default=True, help="Points printed per window.")
@click.option("--windows", type=click.IntRange(1), help="End after this many windows.")
@click.option("--batches", is_flag=True, help="Print headers of arriving batches instead, one per line.")
@click.option("--rate", type=click.IntRange(1, 100), default=20, show_default=True,
              help="With --batches: lines per second.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.1), help="With --batches: end after this many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def tap(
    *, path: Path | None, data_dir: Path | None, model: str, what: str, agents: bool, most: int, windows: int | None,
    batches: bool, rate: int, seconds: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the points of each window as it closes, until Ctrl-C.

    At most MOST points of a window are printed, then the number of omitted ones. The collector never waits for this
    command. Exit code 1 if no collector answers.

    With --batches: prints agent, stream, rows, columns and their types, and bytes of each arriving message, before it
    is checked; at most RATE lines a second, then the number of omitted messages. The collector records headers only
    while this command runs, and processes messages as usual.
    """
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    try:
        if batches:
            if _tap_batches(folder, model, rate, seconds, as_json):
                return
            _fail(folder)
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
    _fail(folder)


def _fail(folder: Path) -> NoReturn:
    click.echo(f"zmon: no collector runs on {folder}; give its folder with --data-dir", err=True)
    sys.exit(FAILED)


def _tap_batches(folder: Path, model: str, rate: int, seconds: float | None, as_json: bool) -> bool:
    """Print headers for `seconds`; return False once the collector no longer answers."""
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
            _print_omitted(hidden)
            left, until, hidden = rate, time.monotonic() + 1.0, 0
    _print_omitted(hidden)
    return answer is not None


def _print_omitted(hidden: int) -> None:
    if hidden:
        click.echo(f"… {hidden} more messages omitted: narrow with --model, or raise --rate", err=True)


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
    """Yield new reports until the collector no longer answers."""
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
    series = " ".join(f"{key}={name}" for key, name in names.items() if key not in PLAIN)
    return printable(f"{clock:%H:%M:%S}  {who}  {names['what']} {series}".rstrip()) + f"  {value:.6g}"


def _json(report: dict[str, Any], names: dict[str, str], value: float) -> str:
    return json.dumps({"timestamp": report["start"], "properties": names, "value": value})
