"""Wakes a thread that waits inside libzmq: a pipe that it polls with its sockets, at one system call a wake-up."""

from __future__ import annotations

import contextlib
import os

MANY = 4096


class Wakeup:
    """Armed by the thread before it goes to sleep, and then triggered at most once.

    No lock: the thread arms it before it looks for work a last time, and callers add work before they look whether it
    is armed. The pipe stays open as long as the process lives, because its number may belong to another file later.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self.armed = False

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        """Wake the thread, whether it armed this or not."""
        self.armed = False
        with contextlib.suppress(OSError):  # a full pipe wakes the thread anyway
            os.write(self._write, b"\0")

    def clear(self, triggered: bool) -> None:
        """Disarm, and empty the pipe if it was triggered: the thread is awake."""
        self.armed = False
        if triggered:
            with contextlib.suppress(OSError):
                os.read(self._read, MANY)

    def close(self) -> None:
        """Close the pipe: in a forked child, which has a pipe of its own."""
        os.close(self._read)
        os.close(self._write)
