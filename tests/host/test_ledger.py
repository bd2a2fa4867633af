"""One ledger: at every moment each row that was passed is in exactly one state, whatever happens."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL, LIVE, settled
from tests.host.conftest import Start
from tests.support.collectors import Collector
from tests.support.mortal import Mortal


def arrived(collector: Collector) -> int:
    """Return the number of rows and late labels that a collector has accepted."""
    return sum(collector.service.telemetry.get(name) for name in ("rows", "labels"))


NOBODY = "tcp://127.0.0.1:59996"

# Counts of each thread before and after its calls, so that what a snapshot may say has bounds; and the sampler.
COUNTED = """
class Caller(threading.Thread):
    def __init__(self, work, times):
        super().__init__()
        self.work, self.times, self.begun, self.done, self.stopped = work, times, 0, 0, False
        self.start()

    def run(self):
        for number in range(self.times):
            if self.stopped:
                break
            rows = number % 7 + 1
            self.begun += rows
            self.work(rows, number)
            self.done += rows

class Sampler(threading.Thread):
    def __init__(self, one, callers):
        super().__init__()
        self.one, self.callers, self.ended, self.samples, self.wrong = one, callers, False, 0, []
        self.start()

    def look(self):
        low = sum(caller.done for caller in self.callers)
        stats = self.one.stats
        high = sum(caller.begun for caller in self.callers)
        self.samples += 1
        if not low <= accounted(stats) <= high or min(stats.queued, stats.underway, stats.acknowledged) < 0:
            self.wrong.append([low, high, states(stats)])

    def run(self):
        while not self.ended:
            self.look()

    def end(self):
        self.ended = True
        self.join()
        self.look()

P = {rows: np.full(rows, 0.5) for rows in range(1, 8)}
TIMES = 20_000 if FULL else 1500
"""

MOMENTS = (
    COUNTED
    + """
one = publisher(buffer_bytes=int(sys.argv[2]), sample_rate=float(sys.argv[3]))
works = [
    lambda rows, _: one.publish(P[rows]),
    lambda rows, number: one.publish(P[rows], [{"age": number, "country": "de"}] * rows),
    lambda rows, number: one.publish(P[rows] + (number % 5 == 0)),  # probabilities above 1
    lambda rows, number: one.publish_labels(list(range(rows)), [1] * rows),
    lambda rows, number: (one.publish(P[rows], timestamps="nonsense" if number % 3 else None), one.flush(0)),
]
callers = [Caller(work, TIMES) for work in works]
sampler = Sampler(one, callers)
for caller in callers:
    caller.join()
wait_for(lambda: one.stats.queued + one.stats.underway == 0, 5.0)
sampler.end()
passed = sum(caller.done for caller in callers)
one.close()
report(samples=sampler.samples, wrong=sampler.wrong[:3], passed=passed, stats=one.stats)
"""
)


@pytest.mark.parametrize("buffer_bytes", [65_536, 2**25])
@pytest.mark.parametrize("sample_rate", [1.0, 0.5])
def test_it_adds_up_at_every_moment(buffer_bytes: int, sample_rate: float, collector: Collector, child: Start) -> None:
    """With a collector, while rows are rejected, sampled out, labelled and pushed out."""
    result = child(collector.data, MOMENTS, str(buffer_bytes), str(sample_rate)).result()
    stats = result["stats"]
    assert result["samples"] > 50
    assert result["wrong"] == []
    assert stats["sum"] == result["passed"]
    assert stats["queued"] == stats["underway"] == 0
    assert sum(stats["rejected"].values()) > 0 or buffer_bytes == 65_536, "some were rejected"
    assert (stats["sampled_out"] > 0) == (sample_rate < 1)
    assert ("buffer_full" in stats["dropped"]) or buffer_bytes > 65_536
    collector.stop()
    # Rows that are pushed out while they are under way count as dropped, although they may arrive.
    assert 0 < stats["acknowledged"] <= arrived(collector)
    assert stats["acknowledged"] == arrived(collector) or buffer_bytes == 65_536


@pytest.mark.parametrize("buffer_bytes", [65_536, 2**25])
def test_it_adds_up_at_every_moment_without_a_collector(buffer_bytes: int, child: Start) -> None:
    result = child(NOBODY, MOMENTS, str(buffer_bytes), "1.0").result()
    stats = result["stats"]
    assert result["wrong"] == []
    assert stats["sum"] == result["passed"]
    assert stats["acknowledged"] == stats["queued"] == stats["underway"] == 0
    assert stats["dropped"]["closed"] > 0


CLOSED = """
one = publisher(buffer_bytes=int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    one.publish(np.full(1000, 0.9))
before = accounted(one.stats)
began = time.monotonic()
one.close()
took = time.monotonic() - began
stats = states(one.stats)
one.publish(TEN)
one.publish_labels([1], [1])
report(before=before, took=took, closed=stats, flushed=one.flush(0.1), stats=one.stats)
"""


@pytest.mark.parametrize(("buffer_bytes", "batches"), [(2**25, 1000), (65_536, 100), (2**25, 1)])
def test_close_without_a_collector(buffer_bytes: int, batches: int, child: Start) -> None:
    result = child(NOBODY, CLOSED, str(buffer_bytes), str(batches)).result()
    rows = 1000 * batches
    assert result["before"] == rows
    assert result["closed"]["sum"] == rows
    assert sum(result["closed"]["dropped"].values()) == rows, "nothing is acknowledged, and nothing waits any longer"
    assert result["stats"]["sum"] == rows + 11
    assert not result["flushed"], "rows were dropped"
    assert result["took"] < 10


IN_FLIGHT = (
    COUNTED
    + """
totals = []
for number in range(40 if FULL else 8):
    one = publisher(agent_id=f"a{number}")
    works = [lambda rows, _: one.publish(P[rows])] * 2
    works += [lambda rows, n: one.publish(P[rows], [{"age": n, "country": "de"}] * rows)]
    works += [lambda rows, _: one.publish_labels(list(range(rows)), [1] * rows)]
    callers = [Caller(work, 10**9) for work in works]
    sampler = Sampler(one, callers)
    goal = random.Random(number).randrange(1, 10_000)
    wait_for(lambda: sum(caller.done for caller in callers) > goal)
    began = time.monotonic()
    one.close()
    took = time.monotonic() - began
    # Four callers without a pause leave the engine little of the interpreter: it may end a moment after close().
    wait_for(lambda: one.stats.queued + one.stats.underway == 0)
    closed = states(one.stats)
    goal = sum(caller.done for caller in callers) + 1000
    wait_for(lambda: sum(caller.done for caller in callers) > goal)
    for caller in callers:
        caller.stopped = True
        caller.join()
    sampler.end()
    totals.append({"wrong": sampler.wrong[:2], "passed": sum(caller.done for caller in callers),
                   "closed": closed, "took": took, "stats": states(one.stats)})
report(totals=totals)
"""
)


def test_publishing_threads_while_it_is_closed(collector: Collector, child: Start) -> None:
    totals = child(collector.data, IN_FLIGHT).result()["totals"]
    for each in totals:
        stats = each["stats"]
        assert each["wrong"] == []
        assert stats["sum"] == each["passed"]
        assert stats["queued"] == stats["underway"] == 0
        assert stats["acknowledged"] == each["closed"]["acknowledged"], "closed is closed"
        assert each["took"] < 2 + 1.25 + 2, "its deadline, the goodbye, and a turn of the callers on a busy machine"
    assert sum(each["stats"]["dropped"].get("closed", 0) for each in totals) > 0, "calls came after the end"
    collector.stop()
    acknowledged = sum(each["stats"]["acknowledged"] for each in totals)
    assert arrived(collector) >= acknowledged > 0  # rows under way when it is closed may arrive
    dropped = sum(sum(each["stats"]["dropped"].values()) for each in totals)
    assert collector.service.telemetry.get("lost") <= dropped


OVERFLOW = (
    COUNTED
    + """
one = publisher(buffer_bytes=100_000)
callers = [Caller(lambda rows, _: one.publish(P[rows]), 10)]
callers[0].join()
assert one.flush(60)
print("connected", flush=True)
sys.stdin.readline()
callers += [Caller(lambda rows, _: one.publish(P[rows]), 4000) for _ in range(3)]
sampler = Sampler(one, callers)
for caller in callers:
    caller.join()
waited = one.flush(0.2)
print("full", flush=True)
sys.stdin.readline()
arrived = wait_for(lambda: one.stats.queued + one.stats.underway == 0)
sampler.end()
dropped = one.flush(30)
one.publish(TEN)
again = one.flush(60)
report(wrong=sampler.wrong[:3], arrived=arrived, waited=waited, dropped=dropped, again=again,
       passed=sum(caller.done for caller in callers) + 10, stats=one.stats)
one.close()
"""
)


def test_an_overflow_while_rows_are_under_way_to_a_stopped_collector(tmp_path: Path, child: Start) -> None:
    collector = Mortal(tmp_path / "c", LIVE)
    with collector.running():
        one = child(collector.endpoint, OVERFLOW)
        assert one.line() == "connected"
        collector.freeze()
        one.go_on()
        assert one.line() == "full"
        collector.thaw()
        one.go_on()
        result = one.result()
        collector.end()
    stats = result["stats"]
    assert result["arrived"]
    assert not result["waited"]
    assert not result["dropped"], "flush says that rows were dropped"
    assert result["again"], "and later that what came since has arrived"
    assert result["wrong"] == []
    assert stats["sum"] == result["passed"]
    assert stats["dropped"]["buffer_full"] > 1000
    counts = settled(collector, result["passed"])
    assert counts["buffer_count"] >= stats["acknowledged"]


KILLED = (
    COUNTED
    + """
one = publisher(buffer_bytes=int(sys.argv[2]), sample_rate=0.8)

def now_and_again(work):
    def call(rows, number):
        work(rows, number)
        if number % 50 == 0:
            time.sleep(0.01)  # the load
    return call

works = [
    lambda rows, number: one.publish(P[rows], [{"age": number, "country": "de"}] * rows),
    lambda rows, number: one.publish(P[rows] + (number % 5 == 0)),
    lambda rows, number: (one.publish(P[rows]), number % 100 or one.flush(0.01)),
]
callers = [Caller(now_and_again(work), 10**9) for work in works]
sampler = Sampler(one, callers)
print("publishing", flush=True)
sys.stdin.readline()
for caller in callers:
    caller.stopped = True
    caller.join()
arrived = wait_for(lambda: one.stats.queued + one.stats.underway == 0)
sampler.end()
report(samples=sampler.samples, wrong=sampler.wrong[:3], arrived=arrived,
       passed=sum(caller.done for caller in callers), stats=one.stats)
one.close()
"""
)


@pytest.mark.parametrize("buffer_bytes", [65_536, 2**21])
def test_a_collector_that_is_killed_and_stopped_at_any_moment(buffer_bytes: int, tmp_path: Path, child: Start) -> None:
    """Rings overflow while rows are under way; every row is in the points, or counted, on both sides."""
    chance = random.Random(buffer_bytes)
    collector = Mortal(tmp_path / "c", LIVE)
    with collector.running():
        one = child(collector.endpoint, KILLED, str(buffer_bytes))
        assert one.line() == "publishing"
        for turn in range(30 if FULL else 6):
            time.sleep(chance.random())  # the load
            if turn % 2:
                collector.freeze()
                time.sleep(4 * chance.random())  # longer than a heartbeat, or not
                collector.thaw()
            else:
                collector.kill()
                collector.start()
                collector.wait_until_up()
        one.go_on()
        result = one.result()
        collector.end()
    assert result["samples"] > 10_000
    assert result["wrong"] == []
    stats = result["stats"]
    assert result["arrived"]
    assert stats["sum"] == result["passed"]
    counts = settled(collector, result["passed"])
    assert counts["buffer_count"] >= stats["acknowledged"]
    assert counts["rows_rejected"] == sum(stats["rejected"].values()) > 0
    assert counts["rows_lost"] <= sum(stats["dropped"].values())


LABELS = (
    COUNTED
    + """
one = publisher()
one.publish(TEN, ids=list(range(10)))
callers = [Caller(lambda rows, number: one.publish_labels([number % 10] * rows, [1] * rows), 1250) for _ in range(4)]
for caller in callers:
    caller.join()
flushed = one.flush(60)
report(passed=sum(caller.done for caller in callers), flushed=flushed, stats=one.stats)
"""
)


def test_labels_from_four_threads(collector: Collector, child: Start) -> None:
    result = child(collector.data, LABELS).result()
    assert result["flushed"]
    assert result["stats"]["labels"] == result["passed"] > 19_000
    assert result["stats"]["acknowledged"] == result["stats"]["sum"] == result["passed"] + 10
    collector.stop()
    assert collector.service.telemetry.get("lost") == 0


REJECTED: dict[str, Any] = {
    "only rejected": ("one.publish([[0.2, 7.0]])", 1, True),
    "sampled out": ("one = publisher(sample_rate=1e-9)\none.publish(TEN)", 10, True),
    "nothing": ("", 0, True),
    "an empty batch": ("one.publish([])", 0, True),
}


@pytest.mark.parametrize("case", REJECTED)
def test_flush_where_nothing_is_left_to_acknowledge(case: str, collector: Collector, child: Start) -> None:
    script, rows, flushed = REJECTED[case]
    result = child(
        collector.data,
        f"one = publisher()\n{script}\nflushed = one.flush(60)\nreport(flushed=flushed, stats=one.stats)",
    ).result()
    assert result["flushed"] == flushed, result
    assert result["stats"]["sum"] == rows
    assert result["stats"]["queued"] == result["stats"]["underway"] == 0
