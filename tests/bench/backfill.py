"""Backfill: rows a second on threads and on a Dask cluster, the same points, and what bounds them on this machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.measure import Table
from tests.collector.jobs.test_dask import Cluster

ROWS, QUICK = 10_000_000, 200_000
GROUP = 250_000  # rows of a row group
FEATURES, CLASSES = 20, 10
START, SECONDS = 1_600_000_020, 6000  # a hundred windows
OPTIONS = ["--model", "m", "--probabilities", "p_*", "--labels", "y", "--time", "ts"]


def made(path: Path, rows: int) -> None:
    """Rows in order of time: 10 probabilities, 20 numbers, a label, float32."""
    random = np.random.default_rng(0)
    writer = None
    for at in range(0, rows, GROUP):
        n = min(GROUP, rows - at)
        p = random.dirichlet(np.ones(CLASSES), n).astype(np.float32)
        x = random.normal(size=(n, FEATURES)).astype(np.float32)
        columns: dict[str, Any] = {f"p_{i}": p[:, i] for i in range(CLASSES)}
        columns |= {f"x_{i}": x[:, i] for i in range(FEATURES)}
        columns["y"] = random.integers(0, CLASSES, n)
        columns["ts"] = START + (at + np.arange(n)) * (SECONDS / rows)
        found = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, found.schema)
        writer.write_table(found, row_group_size=GROUP)
    if writer is not None:
        writer.close()


RUN = """
import resource, sys
from zmon_collector.cli.main import cli
cli(standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def once(path: Path, out: Path, rows: int, *arguments: str) -> dict[str, float]:
    """One run in a process of its own: rows a second, processors used, and peak memory of that process.

    A task reads on one thread and computes on another, so that one worker takes more than one processor.
    """
    command = [sys.executable, "-c", RUN, "backfill", *OPTIONS, *arguments, "--data-dir", str(out), str(path)]
    started = time.perf_counter()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows_s": rows / seconds, "cpu": float(said[-2]) / seconds, "mib": float(said[-1])}


def points(folder: Path) -> list[dict[str, Any]]:
    found = [sample for path in sorted((folder / "anodot").glob("*.json")) for sample in json.loads(path.read_text())]
    return sorted(found, key=lambda sample: (sample["timestamp"], sorted(sample["properties"].items())))


def agree(left: Path, right: Path) -> int:
    """How many points there are; AssertionError when two differ by more than the last digits."""
    ours, theirs = points(left), points(right)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one["timestamp"], one["properties"]) == (other["timestamp"], other["properties"])
        assert math.isclose(one["value"], other["value"], rel_tol=1e-9, abs_tol=1e-9), (one, other)
    return len(ours)


def run(folder: Path, quick: bool) -> dict[str, Any]:
    rows = QUICK if quick else ROWS
    path = folder / "history.parquet"
    made(path, rows)
    cases = {"threads, 1": once(path, folder / "one", rows, "--workers", "1"),
             "threads, 2": once(path, folder / "two", rows, "--workers", "2")}  # fmt: skip
    cluster = Cluster(folder)
    try:
        cluster.wait()
        cases["dask, 2 workers"] = once(path, folder / "dask", rows, "--executor", cluster.address)
    finally:
        cluster.stop()
    same = agree(folder / "one", folder / "two")
    agree(folder / "one", folder / "dask")
    return {"rows": rows, "bytes": path.stat().st_size, "points": same, "cases": cases}


def show(found: dict[str, Any]) -> list[Table]:
    base = found["cases"]["threads, 1"]["rows_s"]
    title = (
        f"Backfill of {found['rows']:,} rows, {FEATURES} features, {CLASSES} classes, {found['bytes'] / 1e6:,.0f} MB "
        f"of parquet; {found['points']:,} points, the same in each to 1e-9"
    )
    return [
        Table(
            title,
            ("executor", "rows/s", "seconds", "speed-up", "processors", "MiB"),
            [
                (name, f"{c['rows_s']:,.0f}", f"{c['seconds']:.1f}", f"{c['rows_s'] / base:.2f}", f"{c['cpu']:.2f}",
                 f"{c['mib']:.0f}")
                for name, c in found["cases"].items()
            ],
        )
    ]  # fmt: skip
