"""``zmon push``: written files to Anodot's API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from zmon_plugins.api import target as targets

from zmon_collector import config as configuration
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER
from zmon_collector.jobs.push.ledger import PushLedger
from zmon_collector.jobs.push.run import Run, Stopped, Summary, check

INTERRUPTED = 130  # as a shell says of Ctrl-C


@click.command()
@click.argument("files", metavar="FILE…", type=CONFIG, nargs=-1, required=True)
@click.option("--url", help="The API's base; default https://app.anodot.com, or [sinks.anodot] url.")
@click.option("--token-env", help="Environment variable that holds the token.  [default: ANODOT_TOKEN]")
@click.option("--token-file", type=click.Path(dir_okay=False), help="File that holds the token, instead.")
@click.option("--dry-run", is_flag=True, help="Validate only; send nothing, need no token.")
@click.option("--config", "path", type=CONFIG, help="Configuration file; [sinks.anodot] tells limits and timeouts.")
@click.option("--data-dir", type=FOLDER, help="Where push.sqlite remembers what was sent.")
def push(
    files: tuple[Path, ...], dry_run: bool, path: Path | None, data_dir: Path | None, **options: str | None
) -> None:
    """Send written files to Anodot: this collector's, or the earlier MLWatcher's, trailing commas and all.

    Samples go in order of time, at the account's pace, each once: what was sent is remembered, so that the same command
    goes on after an interruption and sends nothing twice. Samples that break Anodot's rules, or that the API refuses,
    are counted with the reason, and the others go on.

    Exit codes: 0 everything accepted (or valid), 1 some refused or not everything sent, 130 interrupted.
    """
    if dry_run:
        with _bar() as bar:
            task = bar.add_task("files", total=len(files))
            summary = check(files, lambda n: bar.advance(task, n))
        show(summary, "valid")
        sys.exit(FAILED if summary.refused else 0)
    config = configuration.load(path, data_dir=data_dir)
    given = {name: value for name, value in options.items() if value is not None}
    target = targets.read({**config.sinks.get("anodot", {}), **given}, "[sinks.anodot] or the command line")
    token = targets.token_of(target, "push")
    done = PushLedger(config.collector.data_dir / "push.sqlite", target.url, token)
    try:
        sys.exit(_send(Run(files, target, token, done)))
    finally:
        done.close()


def _send(run: Run) -> int:
    code, why = 0, ""
    with _bar() as bar:
        task = bar.add_task("samples", total=run.summary.samples, completed=run.summary.earlier)

        def told(news: int, waiting: str) -> None:
            bar.update(task, advance=news, description=waiting[:60] or "samples")

        try:
            run.send(told)
        except Stopped as error:
            code, why = FAILED, str(error)
        except KeyboardInterrupt:
            code, why = INTERRUPTED, "interrupted"
    show(run.summary, "accepted")
    if why:
        click.echo(f"zmon: {why}. The same command goes on where this one ended.", err=True)
    return code or (FAILED if run.summary.refused else 0)


def _bar() -> Progress:
    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def show(summary: Summary, good: str) -> None:
    """Print what became of the samples, and why some were refused."""
    parts = [f"{summary.dealt - summary.refused} {good}", f"{summary.refused} refused"]
    if summary.dealt < summary.samples:
        parts.append(f"{summary.samples - summary.dealt} not sent")
    if summary.earlier:
        parts.append(f"{summary.earlier} of them in earlier runs")
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    click.echo(f"{files}, {summary.samples} samples: {', '.join(parts)}")
    for reason in summary.reasons:
        where = f"{summary.names[reason.digest]}, sample {reason.place + 1} by time"
        click.echo(f"  {reason.code:<6} {reason.samples:>7}  {reason.description} ({where})")
