"""Threads and locks of the operating system, even where gevent has replaced them by greenlets.

The publisher's thread waits inside libzmq: as a greenlet it would stop the whole process.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

POLL = 0.002  # seconds


class Thread:
    """A daemon thread of the operating system, under gevent as well."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._work = run
        self._name = name
        self._ended = True
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it; RuntimeError if the system cannot start another thread."""
        self._ended = False
        try:
            if _gevent() is None:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            else:
                _original("start_new_thread")(self._run, ())
        except RuntimeError:
            self._ended = True
            raise

    def join(self, timeout: float) -> None:
        """Wait until it has ended, at most `timeout` seconds; other greenlets keep running."""
        if self._thread is not None:
            self._thread.join(timeout)
            return
        until = time.monotonic() + timeout
        while not self._ended and time.monotonic() < until:
            time.sleep(POLL)  # gevent's sleep where it is installed

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended = True


def lock() -> threading.Lock:
    """Return a lock that greenlets and this thread may share: it is held for a few steps, never across a switch."""
    new: threading.Lock = _original("allocate_lock")()
    return new


def _gevent() -> Any:
    """Return gevent's patching module if it has patched threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def _original(name: str) -> Any:
    monkey = _gevent()
    return getattr(_thread, name) if monkey is None else monkey.get_original("_thread", name)
