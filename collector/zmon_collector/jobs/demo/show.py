"""Output of the demonstration: a live table in a terminal, elsewhere a line per window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zmon_collector.jobs.demo.verdict import WindowView

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 24
SHOWN = 16  # windows in the table


def table(views: Sequence[WindowView], total: int) -> Table:
    """Return a table of the newest windows, oldest first; a `total` of 0 means without end."""
    shown = Table(
        title=f"digits, two replicas: window {len(views)}" + (f" of {total}" if total else ""),
        caption="each block is a class's share of the predictions",
        title_style="bold",
    )
    for name in ("window", "rows", "confidence", "accuracy", "classes 0 to 9"):
        shown.add_column(name, justify="right" if name == "rows" else "left", no_wrap=True)
    for view in views[-SHOWN:]:
        shown.add_row(
            clock(view), str(view.rows), _bar(view.confidence), _bar(view.accuracy), Text(shares(view), style="cyan")
        )
    return shown


def line(view: WindowView) -> str:
    """Return a window as one line of text."""
    return (
        f"{clock(view)}  {view.rows:5d} rows  confidence {view.confidence:.3f}  accuracy {view.accuracy:.3f}  "
        f"classes |{shares(view)}|"
    )


def summary(console: Console, views: list[WindowView], changed: list[WindowView]) -> None:
    """Print the summary."""
    if not changed:
        console.print(f"The model did not change in any of {len(views)} windows.", style="bold green")
        return
    quiet = [view for view in views if view not in changed]
    console.print(
        f"The model changed in {len(changed)} of {len(views)} windows: {', '.join(map(clock, changed))}.",
        style="bold red",
    )
    for name in ("confidence", "accuracy"):
        console.print(f"  {name} {_mean(quiet, name):.3f} → {_mean(changed, name):.3f}")


def clock(view: WindowView) -> str:
    return f"{datetime.fromtimestamp(view.start).astimezone():%H:%M:%S}"


def shares(view: WindowView) -> str:
    """Return a bar for each class; a share of 40% or more has full height."""
    return "".join(BARS[min(len(BARS) - 1, math.ceil(share / 0.4 * 8))] for share in view.shares.values())


def _bar(value: float) -> Text:
    if math.isnan(value):
        return Text("–")
    full = round(value * WIDTH)
    color = "green" if value > 0.7 else "yellow" if value > 0.5 else "red"
    return Text.assemble(("━" * full, color), ("─" * (WIDTH - full), "bright_black"), f" {value:.3f}")


def _mean(views: Sequence[WindowView], name: str) -> float:
    return float(sum(getattr(view, name) for view in views) / max(1, len(views)))
