"""``zmon demo``: the whole way on a real model, drift included."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zmon_collector.commands.options import DURATION, FAILED, FOLDER
from zmon_collector.demo.run import Plan, run_demo


@click.command()
@click.option("--duration", type=DURATION, default="60s", show_default=True, help="How long the model serves.")
@click.option("--data-dir", type=FOLDER, help="Default: zmon-data/demo-TIME.")
@click.option("--no-browser", is_flag=True, help="Do not open the live page. This release has none.")
def demo(duration: float, data_dir: Path | None, no_browser: bool) -> None:
    """Serve the digits data set from two replicas, break their inputs for a while, and watch it show.

    A scikit-learn classifier answers in two processes, a collector in a third. For a third of the time the pixels
    are inverted: confidence falls, class frequencies move, accuracy drops. The summary at the end names the windows
    in which the model changed, from the written points alone.
    """
    sys.exit(FAILED if not run_demo(Plan.of(duration), data_dir) else 0)
