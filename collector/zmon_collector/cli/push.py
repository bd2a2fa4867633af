"""``zmon push``: send written files to Anodot's API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from zmon_plugins.api import target as targets

from zmon.names import printable
from zmon_collector import config as configuration
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER
from zmon_collector.jobs.push.ledger import PushLedger
from zmon_collector.jobs.push.run import PushRun, PushStopped, PushSummary, validate_files
from zmon_collector.private_files import writes_rows

INTERRUPTED = 130  # a shell's exit code for Ctrl-C


@click.command()
@click.argument("files", metavar="FILE…", type=CONFIG, nargs=-1, required=True)
@click.option("--url", help="The API's base; default https://app.anodot.com, or [sinks.anodot] url.")
@click.option("--token-env", help="Environment variable that holds the token.  [default: ANODOT_TOKEN]")
@click.option("--token-file", type=click.Path(dir_okay=False), help="File that holds the token, instead.")
@click.option("--dry-run", is_flag=True, help="Validate only: send nothing, and need no token.")
@click.option("--config", "path", type=CONFIG, help="Configuration file; [sinks.anodot] has limits and timeouts.")
@click.option("--data-dir", type=FOLDER, help="Folder of push.sqlite, which records what was sent.")
@writes_rows
def push(
    files: tuple[Path, ...], dry_run: bool, path: Path | None, data_dir: Path | None, **options: str | None
) -> None:
    """Send written files to Anodot: this collector's, or those of the earlier MLWatcher, trailing commas included.

    Samples are sent in order of time, within the account's quota, each once: sent samples are recorded, so the same
    command resumes after an interruption and sends nothing twice. Samples that break Anodot's rules, or that the API
    refuses, are counted by reason, and the others are sent.

    Exit codes: 0 everything accepted (or valid), 1 some refused or not everything sent, 130 interrupted.
    """
    if dry_run:
        with _bar() as bar:
            task = bar.add_task("files", total=len(files))
            summary = validate_files(files, lambda n: bar.advance(task, n))
        show(summary, "valid")
        sys.exit(FAILED if summary.refused else 0)
    config = configuration.load(path, data_dir=data_dir)
    given = {name: value for name, value in options.items() if value is not None}
    target = targets.read({**config.sinks.get("anodot", {}), **given}, "[sinks.anodot] or the command line")
    token = targets.token_of(target, "push")
    ledger = PushLedger(config.collector.data_dir / "push.sqlite", target.url, token)
    try:
        sys.exit(_send(PushRun(files, target, token, ledger)))
    finally:
        ledger.close()


def _send(run: PushRun) -> int:
    code, why = 0, ""
    with _bar() as bar:
        task = bar.add_task("samples", total=run.summary.samples, completed=run.summary.earlier)

        def advance(samples: int, waiting: str) -> None:
            bar.update(task, advance=samples, description=waiting[:60] or "samples")

        try:
            run.send(advance)
        except PushStopped as error:
            code, why = FAILED, str(error)
        except KeyboardInterrupt:
            code, why = INTERRUPTED, "interrupted"
    show(run.summary, "accepted")
    if why:
        click.echo(f"zmon: {why}. Rerun the same command to resume.", err=True)
    return code or (FAILED if run.summary.refused else 0)


def _bar() -> Progress:
    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def show(summary: PushSummary, good: str) -> None:
    """Print the outcome of the samples, and why some were refused."""
    parts = [f"{summary.settled - summary.refused} {good}", f"{summary.refused} refused"]
    if summary.settled < summary.samples:
        parts.append(f"{summary.samples - summary.settled} not sent")
    if summary.earlier:
        parts.append(f"{summary.earlier} of them in earlier runs")
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    click.echo(f"{files}, {summary.samples} samples: {', '.join(parts)}")
    for reason in summary.reasons:
        where = f"{summary.names[reason.digest]}, sample {reason.place + 1} by time"
        click.echo(printable(f"  {reason.code:<6} {reason.samples:>7}  {reason.description} ({where})"))
