"""A data folder that an operator has changed between two runs: an older database, or the journal switched off."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from tests.support.collectors import answer, received
from tests.support.databases import stored
from tests.support.waiting import until

OLD = 1_000_000_020  # a minute in 2001


def rows(n: int) -> Any:
    return np.full((n, 2), 0.5)


def test_a_journal_that_is_switched_off_leaves_nothing_to_be_counted_again(collect: Any) -> None:
    collector = collect(flush_on_exit=False, grace=0.0)
    publisher = collector.publisher(agent_id="a", classes=2)
    issued = 0

    def publish(n: int) -> None:
        nonlocal issued
        publisher.publish(rows(n), timestamps=OLD + issued / 1000)
        publisher.publish(np.zeros((1, 5)))  # rejected
        issued += n
        assert publisher.flush(60)

    publish(1000)
    collector.stop()
    for _ in range(3):
        collector = collect(journal="off")
        publish(1000)
        collector.stop()
        for table in ("streams", "agents", "tallies", "windows"):
            assert stored(collector.folder, f"SELECT count(*) FROM {table}") == [(0,)], table
    collector = collect(grace=0.0)
    publish(1000)
    publisher.close()
    collector.stop()
    assert collector.counts("rows_lost", agent_id="a") == 0
    assert collector.counts("buffer_count", agent_id="a") + collector.counts("rows_late", agent_id="a") == issued
    assert collector.counts("rows_rejected", agent_id="a") == sum(publisher.stats.rejected.values())


@pytest.mark.parametrize("stays", [True, False], ids=["publisher stays", "publisher is new"])
def test_an_older_copy_of_the_database_is_noticed_and_no_window_is_reported_twice(stays: bool, collect: Any) -> None:
    def publish(minute: int) -> None:
        publisher.publish(rows(100), timestamps=OLD + 60 * minute + 1)
        assert publisher.flush(60)

    collector = collect(flush_on_exit=False, grace=0.0)
    publisher = collector.publisher(agent_id="a", classes=2)
    for minute in range(3):
        publish(minute)
    until(lambda: len(collector.files()) == 2, what="two windows")
    until(lambda: not any(answer(collector.folder)["behind"].values()), what="all readers")
    collector.stop()
    folder = collector.folder
    for name in ("state.sqlite", "state.sqlite-wal"):
        if (folder / name).exists():
            shutil.copy(folder / name, folder.parent / name)
    collector = collect(flush_on_exit=False, grace=0.0)
    for minute in range(3, 6):
        publish(minute)
    until(lambda: len(collector.files()) == 5, what="five windows")
    until(lambda: not any(answer(folder)["behind"].values()), what="all readers")
    collector.stop()
    for name in ("state.sqlite", "state.sqlite-wal"):
        (folder / name).unlink(missing_ok=True)
        if (folder.parent / name).exists():
            shutil.copy(folder.parent / name, folder / name)
    collector = collect(grace=0.0)
    if not stays:
        publisher.close(0)
        publisher = collector.publisher(agent_id="a", classes=2)
    publisher.publish(rows(7), timestamps=OLD + 60 * 4 + 2)  # of a window that was reported since the copy
    publish(6)
    until(lambda: received(collector) == 107, what="the new rows")
    health = answer(folder)
    assert any("state.sqlite is older than the files" in problem for problem in health["problems"]), health["problems"]
    assert health["counters"]["state_restored"] == 1
    assert health["counters"].get("rows_since_restored_copy", 0) == (300 if stays else 0)
    publisher.close()
    collector.stop()
    found = [point for point in collector.points() if point["properties"]["what"] == "buffer_count"]
    by_window = [(point["timestamp"], point["properties"].get("agent_id")) for point in found]
    assert len(by_window) == len(set(by_window)), "a window was reported twice"
    assert collector.counts("buffer_count", agent_id="a") == 600
    assert collector.counts("rows_late", agent_id="a") == 7
    assert collector.counts("rows_lost", agent_id="a") == 0
