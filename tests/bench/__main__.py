"""``python -m tests.bench [--quick] [--json FILE]``: every measurement, as tables and, if asked, as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import zmq

from tests.bench import api, capture, collector, metrics, page, scaling


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench ARGS=…")
    arguments.add_argument(
        "--quick", action="store_true", help="a fraction of the rounds: that it runs, not what it costs"
    )
    arguments.add_argument("--json", type=Path, help="write the figures there, too")
    given = arguments.parse_args()
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libzmq": zmq.zmq_version(),
    }
    print("measured on", ", ".join(f"{name} {value}" for name, value in machine.items()))
    with tempfile.TemporaryDirectory() as folder:
        captured = capture.run(Path(folder), given.quick)
        print(capture.show(captured), flush=True)
        collected = collector.run(Path(folder), given.quick)
        print(collector.show(collected), flush=True)
        looked = page.run(Path(folder), given.quick)
        print(page.show(looked), flush=True)
        sent = api.run(Path(folder), given.quick)
        print(api.show(sent), flush=True)
    computed = metrics.run(given.quick)
    print(metrics.show(computed), flush=True)
    scaled = scaling.run(given.quick)
    print(scaling.show(scaled), flush=True)
    if given.json:
        figures = {
            "machine": machine,
            "capture": captured,
            "collector": collected,
            "page": looked,
            "api": sent,
            "metrics": computed,
            "scaling": scaled,
        }
        given.json.write_text(json.dumps(figures, indent=1, default=float))


if __name__ == "__main__":
    main()
