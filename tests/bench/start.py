"""What `import zmon` adds to a process that has NumPy: fresh interpreters, with and without, in turn."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from tests.bench.measure import Table, said, script

IMPORT = """
import time
started = time.perf_counter()
import numpy
between = time.perf_counter()
import zmon
print(between - started, time.perf_counter() - between)
"""


def run(folder: Path, quick: bool) -> dict[str, float]:
    # As installed: with the bytecode that pip makes. The first round writes it, wherever the environment forbids that.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    inside, alone, both = [], [], []
    for number in range(6 if quick else 41):
        inside.append([float(each) for each in said(script(IMPORT, env=environment)).split()])
        for code, found in (("import numpy", alone), ("import numpy, zmon", both)):
            started = time.perf_counter()
            said(script(code, env=environment))
            found.append(time.perf_counter() - started)
        if not number:  # the first finds cold files
            for each in (inside, alone, both):
                each.clear()
    numpy, zmon = np.median(np.array(inside), axis=0) * 1e3
    added = [one - other for one, other in zip(both, alone, strict=True)]
    low, high = np.percentile([each for _, each in inside], (25, 75)) * 1e3
    return {
        "numpy_ms": float(numpy),
        "zmon_ms": float(zmon),
        "low_ms": float(low),
        "high_ms": float(high),
        "process_ms": float(np.median(added)) * 1e3,
    }


def show(found: dict[str, float]) -> list[Table]:
    return [
        Table(
            "Start: import zmon in a fresh interpreter",
            ("", "ms", "half of the runs within"),
            [
                ("import numpy", f"{found['numpy_ms']:.1f}", ""),
                ("import zmon after it", f"{found['zmon_ms']:.1f}", f"{found['low_ms']:.1f} … {found['high_ms']:.1f}"),
                ("what the whole process takes longer, its end included", f"{found['process_ms']:.1f}", ""),
            ],
        )
    ]
