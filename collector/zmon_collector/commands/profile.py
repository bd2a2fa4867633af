"""``zmon profile``: a reference profile from files of rows, and what a profile holds."""

from __future__ import annotations

from pathlib import Path

import click

from zmon.errors import ConfigurationError
from zmon.reference import Profile, from_batches, text
from zmon.reference.build import WINDOW_ROWS
from zmon.wire import TASKS
from zmon_collector.table import Columns, Table

EXISTING = click.Path(exists=True, path_type=Path)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A list on the command line, separated by commas."""
    return tuple(each.strip() for each in value.split(",") if each.strip()) if value else ()


@click.command()
@click.argument("data", nargs=-1, type=EXISTING)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The .zmon file to write.")
@click.option("--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Print a profile, and end.")
@click.option(
    "--classes", callback=names, help="Names a,b,c in the probabilities' order; default: what * is in --probabilities."
)
@click.option(
    "--probabilities", callback=names, help="Globs of the columns of probabilities, 'p_*'; one column: P(class 1)."
)
@click.option("--predictions", help="Column of predicted classes, or of a regression's values.")
@click.option("--labels", help="Column of labels: indices or names of classes, empty where unknown.")
@click.option("--ids", help="Column of ids; no input.")
@click.option("--time", help="Column of timestamps; no input.")
@click.option("--agent", help="Column that names the replica; no input.")
@click.option("--inputs", callback=names, help="Globs of the input columns, 'x_*'; default: all that is left.")
@click.option(
    "--task", type=click.Choice(TASKS), default="classification", show_default=True, help="What the model does."
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of a binary classifier."
)
@click.option("--window-rows", type=click.IntRange(10), default=WINDOW_ROWS, show_default=True,
              help="Rows of the reference's own windows, from which thresholds can be learned.")  # fmt: skip
def profile(
    data: tuple[Path, ...],
    out: Path | None,
    show: Path | None,
    classes: tuple[str, ...],
    probabilities: tuple[str, ...],
    predictions: str | None,
    labels: str | None,
    ids: str | None,
    time: str | None,
    agent: str | None,
    inputs: tuple[str, ...],
    task: str,
    threshold: float,
    window_rows: int,
) -> None:
    """Make a reference profile of DATA: csv, parquet or npz files, or folders of them, larger than memory.

    Use rows that the model was not fitted on. DATA is read twice: a sample of at most 50,000 rows says where the bins
    go, then all rows are counted in them. The profile holds no rows. A two-dimensional array of an npz file is read as
    columns NAME_0, NAME_1, …, one called inputs as feat_0, feat_1, …

    Exit code 2 when the columns or the files do not fit.
    """
    if show is not None:
        click.echo(text(Profile.load(show)), nl=False)
        return
    if not data or out is None:
        raise ConfigurationError("give files of rows and --out reference.zmon, or --show reference.zmon")
    columns = Columns(classes, probabilities, predictions, labels, ids, time, agent, inputs, task, threshold)
    table = Table(data, columns)
    try:
        made = from_batches(lambda: (batch for batch, _ in table.batches()), window_rows=window_rows)
    except ValueError as error:
        raise ConfigurationError(f"{table.paths[0]}: {error}") from None
    made.save(out)
    features, named = len(made.schema.features), len(made.schema.classes)
    click.echo(f"{out}: {made.rows:,} rows, {features} features, {named} classes; see `zmon profile --show {out}`")
