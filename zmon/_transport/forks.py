"""Processes that fork and end: publishers begin anew in a forked child, and deliver what is left at the end."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Protocol


class Forked(Protocol):
    """What is told in a forked child that it is in one."""

    def _after_fork(self) -> None: ...


_alive: weakref.WeakSet[Forked] = weakref.WeakSet()


def watch(publisher: Forked, close: Callable[[], None]) -> None:
    """From now on the publisher hears of forks, and `close` is called when the interpreter ends."""
    _alive.add(publisher)
    atexit.register(close)


def unwatch(publisher: Forked, close: Callable[[], None]) -> None:
    """The publisher is closed."""
    _alive.discard(publisher)
    atexit.unregister(close)


def close_with_a_worker(close: Callable[[], None]) -> None:
    """A worker that multiprocessing has forked ends without atexit; it runs finalizers of its own."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, close, exitpriority=0)


def _in_child() -> None:
    for publisher in list(_alive):
        publisher._after_fork()


os.register_at_fork(after_in_child=_in_child)
