"""Python's garbage collector, which stops every thread while it scans objects: made to scan each of them once.

A collector of a hundred thousand streams has millions of objects, nearly all of which stay. A full collection scans
them all, for a second, and comes again whenever there are a fourth more. So what has survived one is frozen, and the
next one scans what came since. Only objects in cycles need this scan to be freed, and the collector makes few of them;
once a minute everything is scanned, so that they do not pile up.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

# A turn makes thousands of objects that it drops: scanned in its middle, they would count as survivors.
THRESHOLDS = (20_000, 10, 10)
ALL_EVERY = 60.0  # seconds between two scans of everything
FULL = 2  # the generation of a full collection


@contextmanager
def settled() -> Iterator[None]:
    """Freeze what there is after the start, and from then on what survives."""
    freezer, thresholds = Freezer(), gc.get_threshold()
    gc.freeze()  # without a collection before: it would stop every thread for a tenth of a second
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(freezer)
    try:
        yield
    finally:
        gc.callbacks.remove(freezer)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextmanager
def put_off() -> Iterator[None]:
    """Put off collections: while hundreds of thousands of objects are made, they would be scanned many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Freezer:
    """A callback of the garbage collector: freezes what has survived a full collection, thaws all once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thawed = clock()

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Act before and after a full collection."""
        if info["generation"] < FULL:
            return
        if phase == "stop":
            gc.freeze()
        elif self._clock() - self._thawed >= ALL_EVERY:
            self._thawed = self._clock()
            gc.unfreeze()
