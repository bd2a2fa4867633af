"""Wakes a thread that waits inside libzmq: a pipe that it polls with its sockets, at one system call a wake-up."""

from __future__ import annotations

import contextlib
import os

MANY = 4096


class Wakeup:
    """The pipe. It stays open as long as the process lives, because its number may belong to another file later."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        """Wake the thread."""
        with contextlib.suppress(OSError):  # a full pipe wakes the thread anyway
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Empty the pipe: the thread is awake."""
        with contextlib.suppress(OSError):
            os.read(self._read, MANY)

    def close(self) -> None:
        """Close the pipe: in a forked child, which has a pipe of its own."""
        os.close(self._read)
        os.close(self._write)
