"""``python -m tests.bench.peers [--keep]``: what others take for statistics of the same rows, beside zmon's engine.

Each has an environment of its own, .venv-peers/NAME, made when it is missing. Between two of them zmon's engine
computes on one worker: all are measured in one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import engine
from tests.bench.measure import Table
from tests.bench.rows import FEATURES, ROWS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = HERE / "peers.json"
PEERS = {
    "whylogs": ("whylogs==1.6.4", "numpy<2", "pandas<3"),
    "river": ("river==0.26.1",),
    "evidently": ("evidently==0.7.23", "pandas<3"),
}
SECONDS = 10.0  # a slow one need not go through all rows


def environment(name: str) -> Path:
    """The interpreter of a peer's environment."""
    folder = ROOT / ".venv-peers" / name
    python = folder / "bin/python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS[name]], check=True
        )
        (folder / "ready").touch()
    return python


def run() -> list[dict[str, Any]]:
    interpreters = {name: environment(name) for name in PEERS}
    ours, found = [], []
    for name, python in interpreters.items():
        ours.append(engine.window(ROWS, "default", 1)[0])
        done = subprocess.run(
            [str(python), str(HERE / "contender.py"), name, str(ROWS), str(SECONDS)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout.splitlines()[-1]))
    rate = ROWS * FEATURES / float(np.median(ours))
    zmon = {"name": "zmon, engine", "what": "default preset, one worker", "rows": ROWS, "columns": FEATURES}
    return [
        {**each, "zmon_times": rate / each["values_per_second"]}
        for each in [{**zmon, "values_per_second": rate}, *found]
    ]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "Others on the same rows, one process, one core",
            ("", "computes", "rows", "columns", "M values/s", "zmon's rate is × this"),
            [
                (r["name"], r["what"], f"{r['rows']:,}", r["columns"], f"{r['values_per_second'] / 1e6:.2f}",
                 f"{r['zmon_times']:.1f}")
                for r in found
            ],
        )
    ]  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench-peers ARGS=…")
    arguments.add_argument(
        "--keep", action="store_true", help="as the figures of docs/performance.md (then: make docs)"
    )
    given = arguments.parse_args()
    found = run()
    for each in show(found):
        print(each.text())
    if given.keep:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
