"""A collector whose clock a file sets: ``python -m tests.faults.soak.collector`` and zmon's arguments.

It runs under libfaketime. That (0.9.10) fakes the deadlines which ``time.sleep`` passes to the kernel as well, although
they are of the monotonic clock, which it is told to leave alone: after a jump, `sleep` raises EINVAL. So here it waits
by `select`.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from zmon_collector.cli import main as cli
from zmon_collector.ingest import checkpoint_policy

from tests.faults.collector import replace

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
CHECKPOINT_BYTES = 20_000  # of a window


def environment(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is set by a file: ``+90`` is 90 seconds ahead."""
    return {
        **os.environ,
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or waits for the interpreter's lock end at once, and threads spin
        "NO_FAKE_STAT": "1",
    }


def sleep(seconds: float) -> None:
    select.select([], [], [], max(0.0, seconds))


if __name__ == "__main__":
    replace(time, "sleep", sleep)
    replace(checkpoint_policy, "CHECKPOINT_BYTES", CHECKPOINT_BYTES)
    cli.main()
