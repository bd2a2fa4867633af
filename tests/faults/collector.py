"""A collector that dies at a chosen point: ``python -m tests.faults.collector POINT:N …`` (then zmon's arguments).

SIGKILLs itself when the code comes to the point for the N-th time; ``-`` never does. The production code knows
nothing of this: its functions are wrapped from outside. Checkpoints are made often, so that they are met.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zmon_collector import cli, journal, service

CHECKPOINT_BYTES = 150_000

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


if __name__ == "__main__":
    service.CHECKPOINT_BYTES = CHECKPOINT_BYTES
    where = sys.argv.pop(1)
    if where != "-":
        arm(where.partition(":")[0], int(where.partition(":")[2]))
    cli.main()
