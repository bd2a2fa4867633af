"""``zmon report``: write the figures of written files as one self-contained HTML file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zmon.errors import MissingExtraError
from zmon.points import read_points
from zmon_collector.cli.options import FAILED, MISSING, WRONG
from zmon_collector.dashboard.html_report import html_of
from zmon_collector.dashboard.timeseries import series_of_frame


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="zmon-report.html", show_default=True,
              help="The file to write.")  # fmt: skip
@click.option("--title", default="zmon report", show_default=True, help="Its title.")
def report(path: Path, out: Path, title: str) -> None:
    """Write the figures of the live page from the Anodot files in PATH as one self-contained HTML file.

    PATH is a collector's data folder, a folder of files, or a file. The file holds the data and plotly.js: it opens
    anywhere, without a network. Needs pandas: pip install "zmon-agent[notebook]".
    """
    try:
        frame = read_points(path)
    except (ValueError, MissingExtraError) as error:
        click.echo(f"zmon: {error}", err=True)
        sys.exit(MISSING if isinstance(error, MissingExtraError) else WRONG)
    if frame.empty:
        click.echo(f"zmon: no points in {path}; give a folder with Anodot files", err=True)
        sys.exit(FAILED)
    text = html_of(series_of_frame(frame), title)
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: {len(frame):,} points, {len(text) / 2**20:.1f} MiB")
