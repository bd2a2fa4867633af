"""A collector that dies at a chosen point: ``python -m tests.faults.collector BYTES POINT:N`` and zmon's arguments.

It notes the point in its log and SIGKILLs itself when the code comes there for the N-th time; ``-`` never does. The
production code does not know of this: its functions are wrapped from outside, so each test asserts that the point was
reached. A checkpoint is made every BYTES of a window.
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
DIED = "killed at"  # and the point, a line of the log

POINTS: dict[str, tuple[Any, str, bool]] = {  # (owner, attribute, whether to die after it rather than before)
    "ack": (service.Service, "_acknowledge", False),  # committed, not acknowledged
    "acked": (service.Service, "_acknowledge", True),
    "turn": (journal, "write", True),  # written, not committed
    "checkpoint": (journal, "write_checkpoint", True),
    "close": (journal, "write_closed", True),
    "rename": (Path, "replace", False),
    "renamed": (Path, "replace", True),
}


def replace(owner: Any, name: str, value: Any) -> None:
    """Set an attribute that must be there already: a name that moved would disarm a test without a word."""
    assert hasattr(owner, name), f"{owner.__name__}.{name} is gone; the tests of faults need it or its successor"
    setattr(owner, name, value)


def arm(point: str, number: int) -> None:
    """Die at the point for the N-th time."""
    owner, name, after = POINTS[point]
    inner: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def die() -> None:
        os.write(sys.stderr.fileno(), f"{DIED} {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        dies = calls == number
        if dies and not after:
            die()
        result = inner(*arguments, **options)
        if dies:
            die()
        return result

    replace(owner, name, wrapped)


def streams_known(path: Path) -> int:
    """How many publishers an earlier life had met."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
        return int(connection.execute("SELECT count(*) FROM streams").fetchone()[0])
    return 0


if __name__ == "__main__":
    replace(checkpoint_policy, "CHECKPOINT_BYTES", int(sys.argv.pop(1)))
    replace(checkpoint_policy, "SPARED", 10**6)  # windows of a test are smaller than their checkpoints
    if streams_known(Path(sys.argv[-1]) / "state.sqlite") >= AGENTS:
        replace(service, "SETTLE", 0.1)  # or no life would be long enough to close a window
    where = sys.argv.pop(1)
    if where != "-":
        arm(where.partition(":")[0], int(where.partition(":")[2]))
    cli.main()
