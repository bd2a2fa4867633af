"""Wakes a thread that waits inside libzmq: a pipe it polls beside its sockets, one system call to ring."""

from __future__ import annotations

import contextlib
import os

MANY = 4096


class Wakeup:
    """Set by the thread before it goes to sleep, and then rung at most once.

    All methods but `fileno` are called under one lock: a pipe that is closed is never written to, since its number may
    belong to another file by then.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._set = False

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        self._set = True

    def ring(self) -> None:
        if self._set:
            self.wake()

    def wake(self) -> None:
        """Ring, whether it was set or not."""
        self._set = False
        with contextlib.suppress(OSError):  # full: it rings already
            os.write(self._write, b"\0")

    def clear(self, rung: bool) -> None:
        """Awake again, because it rang or not."""
        self._set = False
        if rung:
            with contextlib.suppress(OSError):
                os.read(self._read, MANY)

    def close(self) -> None:
        self._set = False
        os.close(self._read)
        os.close(self._write)
