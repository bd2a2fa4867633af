"""Whether descriptors and threads are left. libzmq ends the process by an assertion where Python would raise."""

from __future__ import annotations

import os
import threading
from functools import partial

from zmon._transport import threads

SPARE = 8  # descriptors that are left to the model
CONTEXT = 8  # descriptors of a ZeroMQ context
LINK = 14  # of one collector's two sockets, their monitors and connections, while they are replaced
CONTEXT_THREADS = 2


def lacking(descriptors: int, new_threads: int = 0) -> str:
    """Return what the process lacks to open so many descriptors and threads; empty if they are there.

    They are taken for a moment, because limits and use differ by system and change at any time.
    """
    opened: list[int] = []
    try:
        for _ in range(descriptors + SPARE):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - those opened before a failure are closed
    except OSError as error:
        return f"{descriptors} file descriptors are needed: {error.strerror}; raise `ulimit -n`"
    finally:
        for descriptor in opened:
            os.close(descriptor)
    ended = threads.lock()
    with ended:
        try:
            for _ in range(new_threads):
                threads.start(partial(_wait, ended), "zmon-probe")
        except RuntimeError:
            return f"{new_threads} threads are needed and cannot be started; raise the limit of threads"
    return ""


def _wait(ended: threading.Lock) -> None:
    with ended:
        pass
