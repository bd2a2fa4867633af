"""``zmon demo``: the whole path on a real model, drift included."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from zmon_collector.cli.options import DURATION, FAILED, FOLDER
from zmon_collector.jobs.demo.run import DemoPlan, run_demo
from zmon_collector.private_files import writes_rows


@click.command()
@click.option("--duration", type=DURATION, help="How long the model serves.  [default: until Ctrl-C]")
@click.option("--data-dir", type=FOLDER, help="Default: zmon-data/demo-TIME.")
@click.option("--no-browser", is_flag=True, help="Do not open the live page; its address is printed.")
@writes_rows
def demo(duration: float | None, data_dir: Path | None, no_browser: bool) -> None:
    """Serve the digits data set from two replicas, corrupt their inputs for a while, and watch the metrics change.

    A scikit-learn classifier runs in two processes, a collector in a third. For a third of every minute, or of
    DURATION, the pixels are inverted: confidence falls, class frequencies shift, accuracy drops, and the live page
    shows it. The summary at the end names the windows in which the model changed, from the written points alone.
    """
    plan = replace(DemoPlan.of(60.0), endless=True) if duration is None else DemoPlan.of(duration)
    for number in (signal.SIGTERM, signal.SIGHUP):  # end the started processes, as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    sys.exit(FAILED if not run_demo(plan, data_dir, browser=not no_browser) else 0)
