"""``python -m tests.bench.peers [--keep] [--only PART]``: what others take on the same rows, with zmon in turn.

``statistics``: of a window's columns; between two of them zmon's engine computes on one worker.
``capture``: the call in the model's thread, one row; the same process makes zmon's call, in turn.

Each has an environment of its own, .venv-peers/NAME, made when it is missing or its requirements change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import engine
from tests.bench.measure import Table
from tests.bench.rows import FEATURES, ROWS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = HERE / "peers.json"
CLIENT = ("pyzmq>=26", "msgpack>=1.2.1", "narwhals>=1.30")  # what zmon's client needs in addition to NumPy
PEERS = {
    "whylogs": ("whylogs==1.6.4", "numpy<2", "pandas<3", *CLIENT),
    "river": ("river==0.26.1",),
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "scouter": ("scouter-ml==0.25.0", "numpy>=2", "pyarrow>=15", *CLIENT),
}
STATISTICS = ("whylogs", "river", "evidently")
CAPTURE = ("scouter", "whylogs")
SECONDS = 10.0  # a slow one need not go through all rows
ROUNDS = 20


def environment(name: str) -> Path:
    """The interpreter of a peer's environment."""
    folder = ROOT / ".venv-peers" / name
    python, ready = folder / "bin/python", folder / "ready"
    wanted = "\n".join(PEERS[name])
    if not ready.exists() or ready.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS[name]], check=True
        )
        ready.write_text(wanted)
    return python


def statistics() -> list[dict[str, Any]]:
    """Values a second of each, with zmon's engine before each of them."""
    ours, found = [], []
    for name in STATISTICS:
        ours.append(engine.window(ROWS, "default", 1)[0])
        found.append(_said([str(HERE / "contender.py"), name, str(ROWS), str(SECONDS)], name))
    rate = ROWS * FEATURES / float(np.median(ours))
    zmon = {"name": "zmon, engine", "what": "default preset, one worker", "rows": ROWS, "columns": FEATURES}
    return [
        {**each, "zmon_times": rate / each["values_per_second"]}
        for each in [{**zmon, "values_per_second": rate}, *found]
    ]


def capture() -> list[dict[str, Any]]:
    """The call of each, with zmon's call and a raw send in the same loop."""
    return [
        {"beside": name, **row}
        for name in CAPTURE
        for row in _said(["-m", "tests.bench.inserts", name, str(ROUNDS)], name)
    ]


def _said(arguments: list[str], name: str) -> Any:
    """What a script prints as its last line, run in a peer's environment."""
    done = subprocess.run(
        [str(environment(name)), *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "LOG_LEVEL": "error"},  # scouter-ml would log each row
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {"statistics": statistics, "capture": capture}


def show(found: dict[str, list[dict[str, Any]]]) -> list[Table]:
    """The tables of the parts that are there."""
    tables = {"statistics": _statistics, "capture": _capture}
    return [tables[part](rows) for part, rows in found.items()]


def _statistics(found: list[dict[str, Any]]) -> Table:
    return Table(
        "Others on the same rows, one process, one core",
        ("", "computes", "rows", "columns", "M values/s", "zmon's rate is × this"),
        [
            (r["name"], r["what"], f"{r['rows']:,}", r["columns"], f"{r['values_per_second'] / 1e6:.2f}",
             f"{r['zmon_times']:.1f}")
            for r in found
        ],
    )  # fmt: skip


def _capture(found: list[dict[str, Any]]) -> Table:
    return Table(
        "Others' calls in the model's thread: one row of 13 mixed values as a dict, in a loop",
        ("", "measured in the environment of", "p50 µs", "p99 µs", "× raw send", "× zmon's publish"),
        [
            (r["what"], r["beside"], f"{r['p50_us']:,.2f}", f"{r['p99_us']:,.1f}", f"{r['of_raw']:.2f}",
             f"{r['of_zmon']:.2f}")
            for r in found
        ],
    )  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench-peers ARGS=…")
    arguments.add_argument(
        "--keep", action="store_true", help="as the figures of docs/performance.md (then: make docs)"
    )
    arguments.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    given = arguments.parse_args()
    found = {name: PARTS[name]() for name in given.only}
    for each in show(found):
        print(each.text())
    if given.keep:
        KEPT.write_text(json.dumps(kept() | found, indent=1) + "\n")


def kept() -> dict[str, list[dict[str, Any]]]:
    """The committed figures."""
    found: dict[str, list[dict[str, Any]]] = json.loads(KEPT.read_text())
    return found


if __name__ == "__main__":
    main()
