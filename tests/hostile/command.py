"""Run commands one after the other in one process: ``python -m tests.hostile.command BYTES`` and a JSON list on stdin.

The process may take so many bytes of address space. Prints for each command its exit code, what it said, its seconds
and by how much memory grew meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import sys
import time
import traceback
from pathlib import Path

import pandas  # noqa: F401 - imported before anything is measured
import pyarrow.csv
import pyarrow.parquet  # noqa: F401
from zmon_collector.cli import main as cli


def resident(name: str) -> int:
    """Bytes of resident memory: ``VmRSS``, or ``VmHWM``, the most since the last `forget_peak`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def run(arguments: list[str]) -> dict[str, object]:
    out = io.StringIO()
    sys.argv = ["zmon", *arguments]
    forget_peak()
    base, began = resident("VmRSS"), time.monotonic()
    code: object = "no exit"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        except BaseException:
            code = "an error"
            traceback.print_exc(file=out)
    seconds = time.monotonic() - began
    return {"code": code, "said": out.getvalue(), "seconds": seconds, "grown": resident("VmHWM") - base}


if __name__ == "__main__":
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps([run(arguments) for arguments in json.load(sys.stdin)]))
