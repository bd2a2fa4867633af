"""Forks and process exit: publishers start afresh in a forked child, and deliver what is left when the process ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

Hook = Callable[[], None]

_hooks: dict[Hook, Hook] = {}  # of each open publisher: its `close`, and what to run in a forked child


def register(close: Hook, after_fork: Hook) -> None:
    """Call `after_fork` in every forked child from now on, and `close` when the interpreter ends."""
    _hooks[close] = after_fork
    atexit.register(close)


def unregister(close: Hook) -> None:
    """Forget a publisher that is closed."""
    _hooks.pop(close, None)
    atexit.unregister(close)


def close_with_a_worker(close: Hook) -> None:
    """Call `close` when a worker forked by multiprocessing ends: it skips atexit and runs finalizers of its own."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, close, exitpriority=0)


def _in_child() -> None:
    for after_fork in list(_hooks.values()):
        after_fork()


os.register_at_fork(after_in_child=_in_child)
