"""The options that say which columns of files are what: of `zmon profile` and `zmon backfill`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zmon._wire.frames import TASKS
from zmon_collector.jobs.tabular import Columns

EXISTING = click.Path(exists=True, path_type=Path)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A list on the command line, separated by commas."""
    return tuple(each.strip() for each in value.split(",") if each.strip()) if value else ()


_OPTIONS = (
    click.option(
        "--classes",
        callback=names,
        help="Names a,b,c in the probabilities' order; default: what * is in --probabilities.",
    ),
    click.option(
        "--probabilities", callback=names, help="Globs of the columns of probabilities, 'p_*'; one column: P(class 1)."
    ),
    click.option("--predictions", help="Column of predicted classes, or of a regression's values."),
    click.option("--labels", help="Column of labels: indices or names of classes, empty where unknown."),
    click.option("--ids", help="Column of ids; no input."),
    click.option("--time", help="Column of timestamps; no input."),
    click.option("--agent", help="Column that names the replica; no input."),
    click.option("--inputs", callback=names, help="Globs of the input columns, 'x_*'; default: all that is left."),
    click.option(
        "--task", type=click.Choice(TASKS), default="classification", show_default=True, help="What the model does."
    ),
    click.option(
        "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of a binary classifier."
    ),
)


def column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; it passes what it gets of them to `columns_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def columns_of(options: dict[str, Any], segments: tuple[str, ...] = ()) -> Columns:
    """The columns that the options name."""
    return Columns(**options, segments=segments)
