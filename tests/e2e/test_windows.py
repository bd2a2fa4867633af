"""Windows, end to end: where rows land and when windows close, on a real collector with a short period."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from zmon_collector.config import parse
from zmon_collector.ingest.variants import variant_version

import zmon
from tests.support.waiting import settled, until
from zmon.batch import Schema

P = np.array([[0.9, 0.1]])
OLD = 1_000_000_020  # a minute in 2001


def windows(collector: Any, agent: str | None = None) -> dict[int, int]:
    """Rows by window start, of the rollup or of an agent."""
    found: dict[int, int] = {}
    for point in collector.points():
        names = point["properties"]
        if names["what"] == "buffer_count" and names.get("agent_id") == agent:
            assert point["timestamp"] not in found, "a window was written twice"
            found[point["timestamp"]] = point["value"]
    return found


def rows(n: int) -> np.ndarray:
    return np.repeat(P, n, axis=0)


def test_rows_land_by_their_own_time_across_boundaries_and_out_of_order(collect: Any) -> None:
    collector = collect()
    random = np.random.default_rng(0)
    times = OLD + random.random(900) * 180
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        for part in np.array_split(times, 9):
            publisher.publish(rows(len(part)), timestamps=part)
        assert publisher.flush(60)
    collector.stop()
    expected = dict(zip(*np.unique(times // 60 * 60, return_counts=True), strict=True))
    assert windows(collector) == windows(collector, "a") == {int(k): v for k, v in expected.items()}


def test_replayed_history_closes_without_waiting(collect: Any) -> None:
    collector = collect(grace=0.0)
    started = time.monotonic()
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        for minute in range(100):
            publisher.publish(rows(10), timestamps=OLD + 60 * minute)
        assert publisher.flush(60)
        until(lambda: len(collector.files()) == 99, what="all but the last window")
    collector.close_windows()
    until(lambda: len(collector.files()) == 100, what="the last one, when nobody is waited for")
    assert time.monotonic() - started < 15
    assert set(windows(collector).values()) == {10}


def test_late_rows_are_counted_not_lost(collect: Any) -> None:
    collector = collect(idle=30.0)
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        publisher.publish(rows(5), timestamps=OLD)
        publisher.publish(rows(5), timestamps=OLD + 120)
        assert publisher.flush(60)
        until(lambda: len(collector.files()) == 1, what="the first window")
        publisher.publish(rows(7), timestamps=OLD + 1)
        publisher.publish(rows(3), timestamps=[OLD + 2, OLD + 121, OLD + 3])
        assert publisher.flush(60)
    collector.stop()
    assert windows(collector) == {OLD: 5, OLD + 120: 6}
    assert collector.counts("rows_late", agent_id="a") == collector.counts("rows_late", agent_id=None) == 9


def test_a_future_time_is_taken_as_the_time_of_receipt(collect: Any) -> None:
    collector = collect()
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        publisher.publish(rows(4), timestamps=time.time() + 86_400)
        assert publisher.flush(60)
    collector.stop()
    (start,) = windows(collector)
    assert abs(start - time.time()) < 130
    assert collector.service.telemetry.get("skewed") == 4


def test_live_windows_close_by_themselves_and_a_lagging_agent_delays_them_by_max_wait(collect: Any) -> None:
    collector = collect(window=1, grace=0.1, idle=5.0, max_wait=1.0)
    stop = threading.Event()

    def serve(agent: str, behind: float) -> None:
        with collector.publisher(agent_id=agent, classes=["x", "y"]) as publisher:
            while not stop.wait(0.05):
                publisher.publish(rows(1), timestamps=time.time() - behind)

    threads = [threading.Thread(target=serve, args=each) for each in (("now", 0.0), ("yesterday", 86_400.0))]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(windows(collector, "now")) >= 4, what="four windows")
        # closed at the latest max_wait after its end and grace, plus a turn, writing and looking
        until(lambda: time.time() - (max(windows(collector, "now")) + 1) < 1.0 + 0.1 + 2.0, what="a window in time")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    collector.stop()
    assert collector.counts("rows_late", agent_id="now") == 0
    assert collector.counts("rows_late", agent_id="yesterday") == 0


def test_a_silent_agent_stops_being_waited_for(collect: Any) -> None:
    collector = collect(window=1, grace=0.1, idle=1.0, max_wait=60.0)
    silent = collector.publisher(agent_id="silent", classes=["x", "y"])
    silent.publish(P)
    assert silent.flush(60)
    with collector.publisher(agent_id="busy", classes=["x", "y"]) as publisher:

        def served() -> bool:
            publisher.publish(P)
            time.sleep(0.05)
            return len(windows(collector, "busy")) >= 3

        until(served, what="three windows")
    silent.close()


def test_two_versions_side_by_side(collect: Any) -> None:
    collector = collect()
    for version, n in (("1", 10), ("2", 20), (None, 30)):
        with collector.publisher(agent_id="a", version=version, classes=["x", "y"]) as publisher:
            publisher.publish(rows(n), timestamps=OLD)
            assert publisher.flush(60)
    collector.stop()
    found = {
        point["properties"].get("model_version"): point["value"]
        for point in collector.points()
        if point["properties"]["what"] == "buffer_count" and "agent_id" not in point["properties"]
    }
    assert found == {"1": 10, "2": 20, None: 30}
    assert len(collector.files()) == 3


def test_a_period_of_its_own_for_a_model(collect: Any) -> None:
    collector = collect(config=parse({"models": {"quick": {"window": "10s"}}}))
    for model in ("quick", "slow"):
        with collector.publisher(model, agent_id="a", classes=["x", "y"]) as publisher:
            publisher.publish(rows(60), timestamps=OLD + np.arange(60))
            assert publisher.flush(60)
    collector.stop()
    starts = {(p["properties"]["model"], p["timestamp"]) for p in collector.points()}
    assert starts == {("quick", OLD + 10 * i) for i in range(6)} | {("slow", OLD)}


def test_other_classes_under_one_version_are_a_version_of_their_own_and_cost_nobody(collect: Any) -> None:
    collector = collect()
    sound, other = (
        collector.publisher(agent_id=agent, classes=classes) for agent, classes in (("sound", 2), ("other", ["q", "r"]))
    )
    for publisher in (sound, other):
        publisher.publish(rows(8), timestamps=OLD)
        assert publisher.flush(60)
        publisher.close()
    collector.stop()
    found = {
        (point["properties"].get("model_version"), point["properties"]["agent_id"]): point["value"]
        for point in collector.points()
        if point["properties"]["what"] == "buffer_count" and "agent_id" in point["properties"]
    }
    apart = variant_version("", Schema(classes=("q", "r")))
    assert found == {(None, "sound"): 8, (apart, "other"): 8}
    assert collector.counts("rows_degraded", agent_id="other", reason="schema_conflict") == 8
    assert not collector.counts("rows_rejected")


def test_columns_align_by_name_and_new_ones_start_with_the_next_window(collect: Any) -> None:
    collector = collect()
    narrow = collector.publisher(agent_id="narrow", classes=2, features=["x", "y"])
    wide = collector.publisher(agent_id="wide", classes=2, features=["z", "y", "x"])
    for minute in (0, 1):
        for publisher, columns in ((narrow, [1.0, 2.0]), (wide, [30.0, 20.0, 10.0])):
            publisher.publish(rows(2), inputs=[columns] * 2, timestamps=OLD + 60 * minute)
            assert publisher.flush(60)
    narrow.close()
    wide.close()
    collector.stop()
    means = {
        (point["timestamp"], point["properties"]["feat_name"]): point["value"]
        for point in collector.points()
        if point["properties"].get("stat") == "mean"
        and point["properties"]["what"] == "feature_value"
        and "agent_id" not in point["properties"]
    }
    assert means == {
        (OLD, "x"): 5.5,
        (OLD, "y"): 11.0,
        (OLD + 60, "x"): 5.5,
        (OLD + 60, "y"): 11.0,
        (OLD + 60, "z"): 30.0,
    }


def test_every_row_is_accounted_for(collect: Any) -> None:
    """issued = in points + late + lost + rejected + sampled out, with some of each."""
    collector = collect()
    publisher = collector.publisher(agent_id="a", classes=2, sample_rate=0.5)
    issued = 0
    for _ in range(50):
        publisher.publish(rows(40), timestamps=OLD)
        issued += 40
    publisher.publish(np.zeros((7, 5)))
    issued += 7
    assert publisher.flush(60)
    publisher.publish(rows(100), timestamps=OLD + 180)
    issued += 100
    assert publisher.flush(60)
    until(lambda: len(collector.files()) >= 1, what="the first window")
    publisher.publish(rows(30), timestamps=OLD)
    issued += 30
    assert publisher.flush(60)
    stats = publisher.stats
    publisher.close()
    collector.stop()
    counted = {
        what: collector.counts(what, agent_id="a")
        for what in ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")
    }
    assert sum(counted.values()) == issued, counted
    assert counted["rows_rejected"] == 7
    assert counted["rows_sampled_out"] == stats.sampled_out > 0
    assert counted["rows_late"] > 0
    assert counted["rows_lost"] == 0


def test_what_the_ring_had_to_drop_is_lost_exactly(collect: Any) -> None:
    """A publisher runs before its collector does, with a ring for a part of it."""
    first = collect(folder="first")
    endpoint = first.data
    first.stop()
    publisher = zmon.Publisher("model", classes=2, collector=endpoint, agent_id="a", buffer_bytes=65_536)
    for _ in range(40):
        publisher.publish(np.full((600, 2), 0.5), timestamps=OLD)
    dropped = settled(publisher).dropped["buffer_full"]
    assert 0 < dropped < 40 * 600
    second = collect(folder="second", bind=endpoint)
    assert not publisher.flush(60), "rows were dropped"
    publisher.close()
    second.stop()
    assert second.counts("rows_lost", agent_id="a") == dropped
    assert second.counts("buffer_count", agent_id="a") == 40 * 600 - dropped


def test_a_restarted_collector_does_not_count_history_as_lost(collect: Any) -> None:
    first = collect(folder="first")
    publisher = first.publisher(agent_id="a", classes=2)
    publisher.publish(rows(10), timestamps=OLD)
    assert publisher.flush(60)
    first.stop()
    second = collect(folder="second", bind=first.data)
    publisher.publish(rows(20), timestamps=OLD + 60)
    assert publisher.flush(60)
    publisher.close()
    second.stop()
    assert windows(first) == {OLD: 10}
    assert windows(second) == {OLD + 60: 20}
    assert second.counts("rows_lost", agent_id="a") == 0


def test_counts_without_a_window_are_reported_all_the_same(collect: Any) -> None:
    collector = collect(window=1, idle=1.0)
    with collector.publisher(agent_id="a", classes=2) as publisher:
        publisher.publish(np.zeros((3, 5)))
        until(lambda: collector.counts("rows_rejected", agent_id="a") == 3, what="a report of their own")


@pytest.mark.parametrize("period", [1, 7, 60])
def test_windows_are_aligned_to_the_epoch(period: int, collect: Any) -> None:
    collector = collect(window=period)
    with collector.publisher(agent_id="a", classes=2) as publisher:
        publisher.publish(rows(50), timestamps=OLD + np.arange(50) * 3.3)
        assert publisher.flush(60)
    collector.stop()
    assert all(start % period == 0 for start in windows(collector))
    assert sum(windows(collector).values()) == 50
