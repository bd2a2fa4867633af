"""``zmon outbox``: samples that target systems refused, and reports that wait for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from zmon.names import printable
from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE


def _collector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the collector."""
    command = click.option("--data-dir", type=FOLDER, help="The collector's data folder.")(command)
    return click.option("--config", "path", type=CONFIG, help="Configuration file, to find the data folder.")(command)


def _request(path: Path | None, data_dir: Path | None, request: str, **arguments: Any) -> dict[str, Any]:
    wrong = [number for number in arguments.get("ids") or () if not 0 < number < 2**63]
    if wrong:
        raise click.UsageError(f"{wrong[0]!s:.40} is no id of a refused sample; zmon outbox ls shows them")
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    answer = ask(folder, request, PATIENCE, **arguments)
    if answer is None or "error" in answer:
        error = answer["error"] if answer else f"no collector answers on {folder}; start it: only it opens its files"
        click.echo(f"zmon: {error}", err=True)
        sys.exit(FAILED)
    return answer


def _selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that select refused samples: ids, or a sink, or all."""
    command = click.option("--all", "everything", is_flag=True, help="Select those of every sink.")(command)
    command = click.option("--sink", help="Select those of this sink.")(command)
    return click.argument("ids", metavar="ID…", type=int, nargs=-1)(command)


def _request_selected(
    request: str, *, path: Path | None, data_dir: Path | None, ids: tuple[int, ...], sink: str | None, everything: bool
) -> dict[str, Any]:
    if sum([bool(ids), sink is not None, everything]) != 1:
        raise click.UsageError("name ids, or --sink NAME, or --all")
    return _request(path, data_dir, request, ids=list(ids) or None, sink=sink)


@click.group()
def outbox() -> None:
    """Manage samples that a target system refused: list, show, send again, drop.

    A refused sample is set aside with the target's code and description; the rest of its report is delivered. These
    commands need the running collector of DATA_DIR. `limits.refused_rows` and `limits.refused_age` bound what is kept.
    """


@outbox.command()
@_collector_options
@click.option("--sink", help="Only those of this sink.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, with the samples.")
def ls(path: Path | None, data_dir: Path | None, sink: str | None, as_json: bool) -> None:
    """List refused samples, oldest first, and the number of reports that wait for each sink."""
    answer = _request(path, data_dir, "outbox", sink=sink)
    if not as_json:
        for name, waiting in answer["behind"].items():
            if name != "observers" and sink in (None, name):
                click.echo(f"{name}: {waiting} reports wait, {answer['aside'].get(name, 0)} samples set aside")
    while answer["rows"]:
        for row in answer["rows"]:
            click.echo(json.dumps(row) if as_json else _line(row))
        answer = _request(path, data_dir, "outbox", sink=sink, after=answer["rows"][-1]["id"])


def _line(row: dict[str, Any]) -> str:
    names = row["sample"].get("properties", {})
    series = " ".join(f"{key}={name}" for key, name in names.items() if key not in ("ver", "target_type"))
    at = datetime.fromtimestamp(row["at"], UTC)
    return printable(
        f"{row['id']:>6} {at:%Y-%m-%dT%H:%M:%SZ} {row['sink']} {row['code']} {row['description']}: {series}"
    )


@outbox.command()
@_collector_options
@click.argument("ids", metavar="ID…", type=int, nargs=-1, required=True)
def show(path: Path | None, data_dir: Path | None, ids: tuple[int, ...]) -> None:
    """Print the refused sample with each ID, as JSON. Exit code 1 if an ID does not exist."""
    rows = _request(path, data_dir, "outbox-show", ids=list(ids))["rows"]
    for row in rows:
        click.echo(json.dumps(row, indent=1))
    missing = set(ids) - {row["id"] for row in rows}
    if missing:
        click.echo(f"zmon: no refused sample has the id {', '.join(map(str, sorted(missing)))}", err=True)
        sys.exit(FAILED)


@outbox.command()
@_collector_options
@_selection_options
def retry(**selection: Any) -> None:
    """Send samples again, on the sink's own thread, before its next report.

    Samples that are accepted now leave the list; samples that are refused again stay, with the new reason. A target
    may drop points that are older than the newest one of a series.
    """
    answer = _request_selected("outbox-retry", **selection)
    for name, count in answer["asked"].items():
        click.echo(f"{name}: sending {count} samples again; zmon outbox ls shows what is left")
    if answer["unable"]:
        click.echo(f"zmon: {', '.join(answer['unable'])} cannot send again; drop them, or push the files", err=True)
    if not answer["asked"]:
        click.echo("zmon: nothing to send again", err=True)
        sys.exit(FAILED)


@outbox.command()
@_collector_options
@_selection_options
def drop(**selection: Any) -> None:
    """Delete refused samples."""
    answer = _request_selected("outbox-drop", **selection)
    click.echo(f"dropped {answer['dropped']}")
