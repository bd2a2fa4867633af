"""``zmon backfill``: compute from files of rows the series that a collector would have written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from zmon._transport.settings import name
from zmon_collector import config as configuration
from zmon_collector.cli.columns import EXISTING, column_options, names
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PERIOD, PLUGINS_DIR
from zmon_collector.jobs.backfill.executors import BackfillStopped, open_pool
from zmon_collector.jobs.backfill.job import Source
from zmon_collector.jobs.backfill.run import Backfill, BackfillStatus
from zmon_collector.jobs.tabular import Columns
from zmon_collector.private_files import writes_rows

EVERY = 10.0  # seconds between lines of progress; on a terminal one line is rewritten
EVERY_ON_TERMINAL = 0.2


@click.command()
@click.argument("data", nargs=-1, required=True, type=EXISTING)
@click.option("--model", required=True, help="Name of the model whose rows these are.")
@click.option("--version", "version", default="", help="Its version, as the publisher would give it.")
@column_options
@click.option("--segments", callback=names, help="Columns by whose values series are split; no inputs.")
@click.option("--agent-id", default="history", show_default=True, help="The replica, where --agent names no column.")
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml): the collector's own.")
@click.option("--window", type=PERIOD, help="Length of a window, whole seconds.")
@click.option("--data-dir", type=FOLDER, default="zmon-backfill", show_default=True,
              help="Folder for what is written; not the collector's.")  # fmt: skip
@PLUGINS_DIR
@click.option("--executor", default="threads", show_default=True, help="threads, or dask://HOST:PORT of a scheduler.")
@click.option("--workers", "count", type=click.IntRange(1), help="Threads; default: one for each processor.")
@writes_rows
def backfill(
    *, data: tuple[Path, ...], model: str, version: str, segments: tuple[str, ...], agent_id: str, path: Path | None,
    window: int | None, data_dir: Path, plugins_dir: Path | None, executor: str, count: int | None, **options: Any,
) -> None:  # fmt: skip
    """Compute the series of DATA: csv, parquet or npz files, or folders of them, larger than memory.

    Writes DATA_DIR/anodot/*.json, one file per window, like a collector that had received the rows in time. `zmon
    push` sends them to Anodot. If interrupted, rerun the same command to resume.

    Exit code 1 if it ended early, 2 if the columns, the files or the configuration do not fit.
    """
    for option, given in (("--model", model), ("--version", version or "none"), ("--agent-id", agent_id)):
        name(option, given)
    config = configuration.load(path, window=window, data_dir=data_dir, plugins_dir=plugins_dir)
    line = _Line()
    try:
        with open_pool(executor, count) as pool:
            columns = Columns(**options, segments=segments)
            status = Backfill(config, Source(model, version, agent_id), data, columns, line.show).run(pool)
    except (BackfillStopped, KeyboardInterrupt) as error:
        line.end()
        why = error if isinstance(error, BackfillStopped) else "interrupted; rerun the same command to resume"
        click.echo(f"zmon: {why}", err=True)
        sys.exit(FAILED)
    line.end()
    pace = f", {status.rows / status.seconds:,.0f} rows/s" if status.rows else ""
    click.echo(
        f"{data_dir / 'anodot'}: {status.windows:,} windows; {status.rows:,} rows in {status.seconds:,.1f} s{pace}"
    )


class _Line:
    """Progress on standard error: one line that is rewritten on a terminal, elsewhere a line at intervals."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._open = False

    def show(self, status: BackfillStatus) -> None:
        """Show the status, unless the last one is recent."""
        now = time.monotonic()
        if now - self._shown < (EVERY_ON_TERMINAL if self._terminal else EVERY):
            return
        self._shown = now
        text = describe(status)
        click.echo(f"\r{text}\x1b[K" if self._terminal else text, nl=not self._terminal, err=True)
        self._open = self._terminal

    def end(self) -> None:
        """Leave the line as it is."""
        if self._open:
            click.echo(err=True)


def describe(state: BackfillStatus) -> str:
    """Return the status in words.

    >>> describe(BackfillStatus(8, 8, 500_000, 2_000_000, 30, 120, 4.0))
    '500,000 of 2,000,000 rows (25%), 30 of 120 windows written, 125,000 rows/s, 12 s left'
    """
    if not state.of_rows:
        return f"surveying windows: {state.surveyed:,} of {state.pieces:,} pieces"
    pace = state.rows / max(state.seconds, 0.001)
    left = f", {(state.of_rows - state.rows) / pace:,.0f} s left" if pace else ""
    return (
        f"{state.rows:,} of {state.of_rows:,} rows ({state.rows / state.of_rows:.0%}), {state.written:,} of "
        f"{state.windows:,} windows written, {pace:,.0f} rows/s{left}"
    )
