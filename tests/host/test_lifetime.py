"""Publishers that nobody holds any more, and what is said where rows are lost in silence otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import LIVE
from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered, received
from tests.support.mortal import Mortal
from tests.support.waiting import until

CELL = """
import weakref
lines = Lines()
HELD = sys.argv[2] == "held"
refs, held = [], []
threads = files = 0
for number in range(60):
    one = publisher()  # the same name again, as a notebook's cell that is run once more
    one.publish(TEN)
    if HELD:
        held.append(one)
    refs.append(weakref.ref(one))
    if number == 2:
        first = tasks(), descriptors()
    threads, files = max(threads, tasks()), max(files, descriptors())
del one
gc.collect()
opened = open("/dev/null").close() is None
gone = sum(ref() is None for ref in refs)
arrived = wait_for(lambda: tasks() <= first[0] and descriptors() <= first[1] + 8, 60.0) if not HELD else True
if HELD:
    flushed = all([each.flush(60) for each in held])
    acknowledged = sum(each.stats.acknowledged for each in held)
    for each in held:
        each.close()
else:
    flushed = acknowledged = None
report(first=first, threads=threads, files=files, gone=gone, opened=opened, arrived=arrived, flushed=flushed,
       acknowledged=acknowledged, said=lines.with_("another", "second", "already", "twice", "more than one"),
       lines=lines.lines)
"""


def test_the_same_publisher_constructed_sixty_times(collector: Collector, child: Start) -> None:
    result = child(collector.data, CELL, "dropped").result()
    assert result["gone"] == 60, "a publisher ends with its last reference"
    assert result["opened"]
    assert result["threads"] <= result["first"][0] + 2
    assert result["files"] < 400
    assert result["arrived"], "descriptors are given back"
    assert len(result["said"]) == 1, result["lines"]
    delivered(collector, 600)


def test_sixty_publishers_of_one_name_that_are_held(collector: Collector, child: Start) -> None:
    result = child(collector.data, CELL, "held").result()
    assert result["gone"] == 0
    assert result["threads"] <= result["first"][0] + 2
    assert result["flushed"]
    assert result["acknowledged"] == 600
    assert len(result["said"]) == 1, result["lines"]
    delivered(collector, 600)


ABANDONED = """
import weakref

def cycle(one):
    held = [one]
    held.append(held)

def use():
    one = publisher()
    how(one)
    return weakref.ref(one)

HOW = {
    "published": lambda one: one.publish(TEN),
    "in a cycle": lambda one: (one.publish(TEN), cycle(one)),
    "closed": lambda one: (one.publish(TEN), one.close()),
    "watched": lambda one: zmon.watch(Model(), one).predict_proba([[1.0]] * 10),
    "after a moment": lambda one: (one.publish(ONE), one.flush(60), one.publish(np.full(9, 0.5))),
}

class Model:
    classes_ = np.array([0, 1])

    def predict_proba(self, rows):
        return np.full((len(rows), 2), 0.5)

how = HOW[sys.argv[2]]
ref = use()
gc.collect()
gone = ref() is None
if sys.argv[3] == "stays":
    print(json.dumps(gone), flush=True)
    sys.stdin.readline()
report(gone=gone)
"""


@pytest.mark.parametrize("then", ["stays", "ends"])
@pytest.mark.parametrize("how", ["published", "in a cycle", "closed", "watched", "after a moment"])
def test_rows_of_a_publisher_that_nobody_holds_are_delivered(
    how: str, then: str, collector: Collector, child: Start
) -> None:
    """While the process goes on, and when it ends at once."""
    one = child(collector.data, ABANDONED, how, then)
    if then == "stays":
        assert one.line() == "true"
        until(lambda: received(collector) == 10, what="its rows")
        one.go_on()
    assert one.result()["gone"]
    delivered(collector, 10)


SILENT = """
lines = Lines()
one = publisher(buffer_bytes=65_536)
passed = 0
for _ in range(100):
    one.publish(TEN)
    passed += 10
unreached = wait_for(lambda: lines.with_("cannot reach", "not reach", "unreachable", "no collector"))
for _ in range(3000):
    one.publish(TEN)
    passed += 10
dropping = wait_for(lambda: one.publish(TEN) or lines.with_("drop"))
for _ in range(50):  # drops go on, and attempts, for some time
    one.publish(np.full(500, 0.5))
    time.sleep(0.05)
before = list(lines.lines)
print("away", flush=True)
sys.stdin.readline()
connected = wait_for(lambda: one.stats.connected)
one.publish(TEN)
flushed = wait_for(lambda: one.flush(1))
reached = wait_for(lambda: len(lines.lines) > len(before))
report(unreached=unreached, dropping=dropping, before=before, after=lines.lines[len(before):], connected=connected,
       reached=reached, stats=one.stats)
"""


def test_rows_that_are_lost_because_nobody_listens(tmp_path: Path, child: Start) -> None:
    """One line where it tried, one that it drops, one when it is over: not one a batch."""
    collector = Mortal(tmp_path / "c", LIVE)
    one = child(collector.endpoint, SILENT)
    assert one.line() == "away"
    with collector.running():
        one.go_on()
        result = one.result()
    assert result["unreached"] and result["dropping"], result
    assert collector.endpoint in " ".join(result["before"])
    assert 1 <= len(result["before"]) <= 2, result["before"]
    assert any("drop" in line for line in result["before"])
    assert result["connected"] and result["reached"], result
    assert len(result["after"]) == 1, result["after"]
    assert collector.endpoint in result["after"][0]


def test_a_collector_that_is_there_says_nothing(collector: Collector, child: Start) -> None:
    """Nor does a publisher without rows, wherever it looks."""
    result = child(
        collector.data,
        """
        lines = Lines()
        idle = publisher(collector="tcp://127.0.0.1:59996", agent_id="idle")
        one = publisher()
        until_ = time.monotonic() + 6
        while time.monotonic() < until_:
            one.publish(ONE)
            time.sleep(0.01)
        flushed = one.flush(60)
        report(lines=lines.lines, flushed=flushed)
        """,
    ).result()
    assert result["flushed"]
    assert result["lines"] == []
