"""``zmon outbox``: what target systems refused and was set aside, and what waits for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--data-dir", type=FOLDER, help="Of the collector to ask.")(command)
    return click.option("--config", "path", type=CONFIG, help="Configuration file, to find the data folder.")(command)


def _asked(path: Path | None, data_dir: Path | None, question: str, **more: Any) -> dict[str, Any]:
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    answer = ask(folder, question, PATIENCE, **more)
    if answer is None or "error" in answer:
        said = answer["error"] if answer else f"no collector answers on {folder}; start it, its files are its own"
        click.echo(f"zmon: {said}", err=True)
        sys.exit(FAILED)
    return answer


def _selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Arguments of a command that acts on what was set aside: one of ids, a sink, everything."""
    command = click.option("--all", "everything", is_flag=True, help="All of every sink.")(command)
    command = click.option("--sink", help="All of this sink.")(command)
    return click.argument("ids", metavar="ID…", type=int, nargs=-1)(command)


def _told(
    ask_for: str, path: Path | None, data_dir: Path | None, ids: tuple[int, ...], sink: str | None, everything: bool
) -> dict[str, Any]:
    if sum([bool(ids), sink is not None, everything]) != 1:
        raise click.UsageError("name ids, or --sink NAME, or --all")
    return _asked(path, data_dir, ask_for, ids=list(ids) or None, sink=sink)


@click.group()
def outbox() -> None:
    """Look at samples that a target system refused: list, show, send again, drop.

    A refused sample is set aside with the target's code and description; the others of its report go on. The running
    collector of DATA_DIR is asked. `limits.refused_rows` and `limits.refused_age` bound what is kept.
    """


@outbox.command()
@_where
@click.option("--sink", help="Of this sink only.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with the samples.")
def ls(path: Path | None, data_dir: Path | None, sink: str | None, as_json: bool) -> None:
    """List what was set aside, oldest first, and how many reports wait for each sink."""
    first = _asked(path, data_dir, "outbox", sink=sink)
    if not as_json:
        for name, waiting in first["behind"].items():
            if name != "observers" and sink in (None, name):
                click.echo(f"{name}: {waiting} reports wait, {first['aside'].get(name, 0)} samples set aside")
    for row in _rows(first, lambda after: _asked(path, data_dir, "outbox", sink=sink, after=after)):
        click.echo(json.dumps(row) if as_json else _line(row))


def _rows(answer: dict[str, Any], further: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    while answer["rows"]:
        yield from answer["rows"]
        answer = further(answer["rows"][-1]["id"])


def _line(row: dict[str, Any]) -> str:
    names = row["sample"].get("properties", {})
    series = " ".join(f"{key}={name}" for key, name in names.items() if key not in ("ver", "target_type"))
    at = datetime.fromtimestamp(row["at"], UTC)
    return f"{row['id']:>6} {at:%Y-%m-%dT%H:%M:%SZ} {row['sink']} {row['code']} {row['description']}: {series}"


@outbox.command()
@_where
@click.argument("ids", metavar="ID…", type=int, nargs=-1, required=True)
def show(path: Path | None, data_dir: Path | None, ids: tuple[int, ...]) -> None:
    """Print what was set aside under each ID, as JSON. Exit code 1 when one is not there."""
    rows = _asked(path, data_dir, "outbox-show", ids=list(ids))["rows"]
    for row in rows:
        click.echo(json.dumps(row, indent=1))
    missing = set(ids) - {row["id"] for row in rows}
    if missing:
        click.echo(f"zmon: nothing is set aside under {', '.join(map(str, sorted(missing)))}", err=True)
        sys.exit(FAILED)


@outbox.command()
@_where
@_selecting
def retry(**where_and_what: Any) -> None:
    """Send samples again, through the sink's own thread, before its next report.

    What is taken now goes from the list; what is refused again stays, with the new reason. Targets may drop points
    that are older than what they have of a series.
    """
    answer = _told("outbox-retry", **where_and_what)
    for name, count in answer["asked"].items():
        click.echo(f"{name}: {count} samples are sent again; zmon outbox ls shows what is left")
    if answer["unable"]:
        click.echo(f"zmon: {', '.join(answer['unable'])} cannot send again; drop them, or push the files", err=True)
    if not answer["asked"]:
        click.echo("zmon: nothing to send again", err=True)
        sys.exit(FAILED)


@outbox.command()
@_where
@_selecting
def drop(**where_and_what: Any) -> None:
    """Forget samples that were set aside."""
    answer = _told("outbox-drop", **where_and_what)
    click.echo(f"dropped {answer['dropped']}")
