"""Options that assign roles to columns of files, for `zmon profile` and `zmon backfill`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

EXISTING = click.Path(exists=True, path_type=Path)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split a list on the command line, separated by commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()


_OPTIONS = (
    click.option("--classes", callback=names,
                 help="Names a,b,c in the probabilities' order; default: what * matches in --probabilities."),
    click.option("--probabilities", callback=names,
                 help="Globs of the probability columns, 'p_*'; one column: P(class 1)."),
    click.option("--predictions", help="Column of predicted classes, or of a regression's values."),
    click.option("--labels", help="Column of labels: indices or names of classes, empty where unknown."),
    click.option("--ids", help="Column of ids; not an input."),
    click.option("--time", help="Column of timestamps; not an input."),
    click.option("--agent", help="Column that names the replica; not an input."),
    click.option("--inputs", callback=names, help="Globs of the input columns, 'x_*'; default: all other columns."),
    click.option("--task", type=click.Choice(("classification", "regression")), default="classification",
                 show_default=True, help="What the model does."),
    click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
                 help="A binary classifier's."),
)  # fmt: skip


def column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which makes `Columns` of their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
