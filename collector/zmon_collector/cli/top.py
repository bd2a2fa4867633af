"""``zmon top``: show the overview in a terminal, for use over ssh."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zmon.names import printable
from zmon_collector import config as configuration
from zmon_collector.admin import ask
from zmon_collector.cli.options import CONFIG, FAILED, FOLDER, PATIENCE

BARS = "▁▂▃▄▅▆▇█"
TREND = 24  # windows in a sparkline
EVERY = 1.0  # seconds
COLORS = {"ok": "green", "drifting": "yellow", "degraded": "red", "silent": "bright_black"}


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml).")
@click.option("--data-dir", type=FOLDER, help="The collector's data folder.")
@click.option("--once", is_flag=True, help="Print the overview once, and exit.")
def top(path: Path | None, data_dir: Path | None, once: bool) -> None:
    """Show the state of every model and replica, with sparklines, until Ctrl-C.

    States: silent (no rows for long), drifting (drift, or confidence or accuracy left their range), degraded (rows of
    the newest window were lost, late, rejected or degraded), ok. Without a terminal the overview is printed once. Exit
    code 1 if no collector answers.
    """
    folder = configuration.load(path, data_dir=data_dir).collector.data_dir
    console = Console()
    answer = ask(folder, "overview", PATIENCE)
    if answer is None:
        click.echo(f"zmon: no collector runs on {folder}; give its folder with --data-dir", err=True)
        sys.exit(FAILED)
    if once or not console.is_terminal:
        console.print(overview(answer["models"], console.width))
        return
    try:
        with Live(overview(answer["models"], console.width), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(EVERY)
                answer = ask(folder, "overview", PATIENCE)
                shown = Text("The collector has gone.") if answer is None else overview(answer["models"], console.width)
                live.update(shown, refresh=True)
    except KeyboardInterrupt:
        return


def overview(models: list[dict[str, Any]], width: int) -> Table:
    """Return a table of models and their replicas; sparklines take the space that `width` columns leave."""
    trend = max(4, min(TREND, (width - 72) // 3))
    table = Table(expand=True, title=None, box=None, pad_edge=False, header_style="bold", caption_justify="left")
    for name in ("model", "state", "rows/s", "", "confidence", "", "accuracy", "", "lost"):
        table.add_column(name, justify="right" if name in ("rows/s", "confidence", "accuracy", "lost") else "left",
                        no_wrap=True, overflow="ellipsis", ratio=1 if name == "model" else None,
                        min_width=16 if name == "model" else None)  # fmt: skip
    for model in models:
        table.add_row(*_cells(f"{model['model']} {model['version']}".strip(), model, trend), style="bold")
        for agent in model["agents"]:
            table.add_row(*_cells(f"  {agent['agent']}", agent, trend))
    if not models:
        table.caption = "no window has closed yet"
    return table


def _cells(name: str, entry: dict[str, Any], width: int) -> list[Text]:
    score = entry["estimated"] if entry["accuracy"] is None else entry["accuracy"]
    trend = {name: values[-width:] for name, values in entry["trend"].items()}
    return [
        Text(printable(name)),
        Text(entry["state"], style=COLORS.get(entry["state"], "")),
        Text(f"{entry['rows_per_second']:,.0f}"),
        Text(spark(trend["rows_per_second"]), style="blue"),
        Text(_share(entry["confidence"])),
        Text(spark(trend["confidence"], 1.0), style="blue"),
        Text(_share(score)),
        Text(spark(trend["accuracy"], 1.0), style="blue"),
        Text(_share(entry["loss"]) if entry["loss"] else "0"),
    ]


def spark(values: list[float | None], most: float | None = None) -> str:
    """Return the values as bars from 0 to `most`, or to the largest value.

    >>> spark([0.0, 0.5, None, 1.0], 1.0)
    '▁▅ █'
    """
    height = most or max((value for value in values if value is not None), default=0.0) or 1.0
    top = len(BARS) - 1
    return "".join(" " if v is None else BARS[round(min(1.0, max(0.0, v / height)) * top + 0.01)] for v in values)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
