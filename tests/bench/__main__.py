"""``python -m tests.bench [--quick] [--json FILE] [--keep]``: every measurement as tables, and if asked as JSON."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tests.bench import performance, suite


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench ARGS=…")
    arguments.add_argument(
        "--quick", action="store_true", help="a fraction of the rounds: that it runs, not what it costs"
    )
    arguments.add_argument("--json", type=Path, help="write the figures there, too")
    arguments.add_argument(
        "--keep", action="store_true", help="as the figures of docs/performance.md and of make bench-check"
    )
    arguments.add_argument("--only", nargs="+", choices=suite.NAMES, help="these measurements alone")
    given = arguments.parse_args()
    figures: dict[str, Any] = {"machine": suite.machine()}
    if given.keep and given.quick:
        arguments.error("--keep is for a full run: leave out --quick")
    if given.keep and given.only and suite.committed().get("machine") != figures["machine"]:
        arguments.error("--only replaces part of the committed figures, which are of another machine: leave it out")
    print("measured on", ", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    started = time.monotonic()
    for name, found in suite.run(given.quick, tuple(given.only or suite.NAMES)):
        figures[name] = found
        for each in suite.module(name).show(found):
            print(each.text(), flush=True)
        if given.json:  # as each ends: a later one that fails costs nothing of these
            given.json.write_text(json.dumps(figures, indent=1, default=float) + "\n")
    print(f"\n{time.monotonic() - started:.0f} s")
    if given.keep:
        performance.keep({**(suite.committed() if given.only else {}), **figures})


if __name__ == "__main__":
    main()
