"""Threads, locks and sleep of the operating system, even where gevent or eventlet has replaced them by greenlets.

The engine's thread waits inside libzmq: as a greenlet it would stop the whole process.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def start(run: Callable[[], None], name: str) -> None:
    """Start a daemon thread; RuntimeError if the system has no thread to give.

    `threading.Thread.start` takes a lock of its module, which a signal handler must not wait for.
    """

    def named() -> None:
        with suppress(OSError), open(f"/proc/self/task/{_thread.get_native_id()}/comm", "w") as system:  # noqa: PTH123
            system.write(name)  # as operators see it, on Linux
        run()

    _original("_thread", "start_new_thread")(named, ())


def ident() -> int:
    """Return the identifier of the current thread of the operating system."""
    number: int = _original("_thread", "get_ident")()
    return number


def lock() -> threading.Lock:
    """Return a lock for threads of the operating system."""
    new: threading.Lock = _original("_thread", "allocate_lock")()
    return new


def sleep(seconds: float) -> None:
    """Let a thread of the operating system sleep; for callers, which may be greenlets, `time.sleep` is right."""
    _original("time", "sleep")(seconds)


def _patched() -> str:
    """Return which library has replaced threads: ``"gevent"``, ``"eventlet"`` or an empty string."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and (monkey.is_module_patched("threading") or monkey.is_module_patched("thread")):
        return "gevent"
    patcher = sys.modules.get("eventlet.patcher")
    return "eventlet" if patcher is not None and patcher.is_monkey_patched("thread") else ""


def _original(module: str, name: str) -> Any:
    patched = _patched()
    if patched == "gevent":
        return sys.modules["gevent.monkey"].get_original(module, name)
    if patched == "eventlet":
        return getattr(sys.modules["eventlet.patcher"].original(module), name)
    return getattr(_thread if module == "_thread" else time, name)
