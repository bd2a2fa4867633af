"""The garbage collector of a long run: what has survived is scanned once, and still freed in the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from zmon_collector import garbage


class Node:
    """An object that may be in a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


@pytest.fixture
def clock() -> Iterator[list[float]]:
    """A clock of the test's, and a freezer that goes by it; nothing stays frozen."""
    time = [0.0]
    freezer = garbage.Freezer(lambda: time[0])
    gc.disable()
    gc.callbacks.append(freezer)
    yield time
    gc.callbacks.remove(freezer)
    gc.unfreeze()
    gc.enable()


def test_a_full_collection_scans_only_what_came_since_the_last_one(clock: list[float]) -> None:
    gc.collect()
    assert not gc.get_objects(generation=2)
    kept = [Node() for _ in range(1000)]
    gc.collect(1)
    assert sum(isinstance(each, Node) for each in gc.get_objects(generation=2)) == len(kept)


def test_a_cycle_that_was_frozen_is_freed_within_the_hour(clock: list[float]) -> None:
    one, other = Node(), Node()
    one.other, other.other = other, one
    gc.collect()
    gone = weakref.ref(one)
    del one, other
    gc.collect()
    assert gone() is not None
    clock[0] += garbage.ALL_EVERY
    gc.collect()
    assert gone() is None


def test_settings_end_with_the_run() -> None:
    before = gc.get_threshold(), list(gc.callbacks)
    with garbage.settled():
        assert gc.get_threshold() == garbage.THRESHOLDS
        assert gc.get_freeze_count()
    assert (gc.get_threshold(), gc.callbacks) == before
    assert not gc.get_freeze_count()
