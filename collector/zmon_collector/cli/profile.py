"""``zmon profile``: make a reference profile from files of rows, or print one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmon.errors import ConfigurationError
from zmon.reference import Profile, from_batches, text
from zmon.reference.build import WINDOW_ROWS
from zmon_collector.cli.columns import EXISTING, column_options
from zmon_collector.jobs.tabular import Columns, Dataset


@click.command()
@click.argument("data", nargs=-1, type=EXISTING)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The .zmon file to write.")
@click.option("--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Print this profile.")
@column_options
@click.option("--window-rows", type=click.IntRange(10), default=WINDOW_ROWS, show_default=True,
              help="Rows of the reference's own windows, from which thresholds can be learned.")  # fmt: skip
def profile(data: tuple[Path, ...], out: Path | None, show: Path | None, window_rows: int, **options: Any) -> None:
    """Make a reference profile of DATA: csv, parquet or npz files, or folders of them, larger than memory.

    Use rows that the model was not fitted on. DATA is read twice: a sample of at most 50,000 rows determines the bins,
    then all rows are counted in them. The profile holds no rows. A two-dimensional array of an npz file is read as
    columns NAME_0, NAME_1, …, one called inputs as feat_0, feat_1, …

    Exit code 2 if the columns or the files do not fit.
    """
    if show is not None:
        click.echo(text(Profile.load(show)), nl=False)
        return
    if not data or out is None:
        raise ConfigurationError("give files of rows and --out reference.zmon, or --show reference.zmon")
    dataset = Dataset(data, Columns(**options))
    try:
        reference = from_batches(dataset.batches, window_rows=window_rows)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"{dataset.paths[0]}: {error}") from None
    reference.save(out)
    features, classes = len(reference.schema.features), len(reference.schema.classes)
    click.echo(
        f"{out}: {reference.rows:,} rows, {features} features, {classes} classes; see `zmon profile --show {out}`"
    )
