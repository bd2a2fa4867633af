"""SIGKILL the collector at any instant: the points are those of an undisturbed run, and every row is there once."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.collector import AGENTS, POINTS
from tests.faults.harness import FULL, batches, feed, same
from tests.support.mortal import Mortal
from tests.support.waiting import PATIENCE, until

WINDOWS, PER_WINDOW, ROWS = 8, 20, 60
TOTAL = AGENTS * WINDOWS * PER_WINDOW * ROWS
KILLS = 50 if FULL else 8


def served(
    collector: Mortal,
    pause: float,
    after: Callable[[int], None] = lambda _: None,
    fed: Callable[[], None] = lambda: None,
    met: Callable[[], None] = lambda: None,
) -> int:
    """Publish everything; the number of rows issued, once all of them are acknowledged.

    `met` is called when the collector knows all publishers, `fed` when everything was published.
    """
    publishers = [collector.publisher(f"pod-{i}") for i in range(AGENTS)]
    sources = [batches(i, WINDOWS, PER_WINDOW, ROWS) for i in range(AGENTS)]
    # Windows wait for publishers that the collector has met. It cannot know of one that needs longer than two seconds
    # to connect after a start, as on a busy machine: the first windows would close, and its rows would be late.
    issued = feed(publishers, [islice(source, 1) for source in sources], pause)
    for publisher in publishers:
        assert publisher.flush(PATIENCE), publisher.stats
    met()
    issued += feed(publishers, sources, pause, lambda rows: after(issued + rows))
    fed()
    for publisher in publishers:
        assert publisher.flush(PATIENCE), publisher.stats
        assert not publisher.stats.dropped, publisher.stats
        publisher.close()
    return issued


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mortal:
    collector = Mortal(tmp_path_factory.mktemp("undisturbed"))
    with collector.running("--flush-on-exit"):
        assert served(collector, 0.0) == TOTAL
        collector.end()
    assert collector.total("buffer_count") == TOTAL
    return collector


def accounted(collector: Mortal) -> int:
    counts = {what: collector.total(what) for what in ("buffer_count", "rows_late", "rows_lost", "rows_rejected")}
    assert counts["rows_late"] == counts["rows_lost"] == counts["rows_rejected"] == 0, counts
    return counts["buffer_count"]


@pytest.mark.timeout(600)
def test_killed_at_random_instants(tmp_path: Path, undisturbed: Mortal) -> None:
    chance = random.Random(7)
    collector = Mortal(tmp_path)
    collector.start()
    stop = threading.Event()
    kills = 0

    def reaper() -> None:
        nonlocal kills
        while not stop.is_set():
            if chance.random() < 0.8:  # else it may die while it starts
                collector.wait_until_up()
            if not stop.wait(chance.uniform(0.0, 0.8)):
                collector.kill()
                kills += 1
                collector.start()

    thread = threading.Thread(target=reaper)

    def after(rows: int) -> None:
        until(lambda: kills >= KILLS * rows / TOTAL, what="the next kill")

    def fed() -> None:
        stop.set()
        if thread.is_alive():
            thread.join()

    try:
        issued = served(collector, 0.0, after, fed, thread.start)
    finally:
        fed()
    collector.end()
    print(f"{kills} kills, {issued} rows")
    assert kills >= KILLS
    assert accounted(collector) == issued
    same(collector.points(), undisturbed.points())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_the_worst_moment(point: str, tmp_path: Path, undisturbed: Mortal) -> None:
    collector = Mortal(tmp_path)
    stop = threading.Event()
    often = iter([2, 5, 1, 3] if FULL else [3, 2])
    collector.start()

    def nurse() -> None:
        while not stop.is_set():
            assert collector.process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                collector.process.wait(0.1)
                number = next(often, None)
                collector.start("-" if number is None else f"{point}:{number}")

    thread = threading.Thread(target=nurse)

    def met() -> None:
        collector.kill()
        collector.start(f"{point}:{next(often)}")
        thread.start()

    def reached() -> None:
        # Before the goodbyes: no window closes in a life's first seconds, nor, without live agents, until idle is over.
        until(lambda: collector.deaths(point), what="the point")

    try:
        issued = served(collector, 0.02, fed=reached, met=met)
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        if collector.alive:
            collector.kill()
    collector.end()
    print(f"{collector.deaths(point)} deaths")
    assert accounted(collector) == issued
    same(collector.points(), undisturbed.points())
