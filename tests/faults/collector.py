"""A collector that dies at a chosen point: ``python -m tests.faults.collector BYTES POINT:N`` and zmon's arguments.

SIGKILLs itself when the code comes to the point for the N-th time; ``-`` never does. The production code knows
nothing of this: its functions are wrapped from outside. A checkpoint is made every BYTES of a window.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zmon_collector import service
from zmon_collector.cli import main as cli
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.storage import journal

AGENTS = 3  # of the tests that kill

POINTS: dict[str, tuple[Any, str, bool]] = {  # (owner, attribute, whether to die after it rather than before)
    "ack": (service.Service, "_acknowledge", False),  # committed, not acknowledged
    "acked": (service.Service, "_acknowledge", True),
    "turn": (journal, "write", True),  # written, not committed
    "checkpoint": (journal, "write_checkpoint", True),
    "close": (journal, "write_closed", True),
    "rename": (Path, "replace", False),
    "renamed": (Path, "replace", True),
}


def arm(point: str, number: int) -> None:
    """Die at the point for the N-th time."""
    owner, name, after = POINTS[point]
    inner: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*arguments, **options)
        if calls == number and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def streams_known(path: Path) -> int:
    """How many publishers an earlier life had met."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
        return int(connection.execute("SELECT count(*) FROM streams").fetchone()[0])
    return 0


if __name__ == "__main__":
    checkpoint_policy.CHECKPOINT_BYTES = int(sys.argv.pop(1))
    if streams_known(Path(sys.argv[-1]) / "state.sqlite") >= AGENTS:
        service.SETTLE = 0.1  # or no life would be long enough to close a window
    where = sys.argv.pop(1)
    if where != "-":
        arm(where.partition(":")[0], int(where.partition(":")[2]))
    cli.main()
