"""What grows with months of serving: nothing. And what a full ring costs the model when it empties: nothing."""

from __future__ import annotations

from pathlib import Path

from tests.faults.harness import LIVE
from tests.host.conftest import Start
from tests.support.collectors import Collector
from tests.support.mortal import Mortal

NOBODY = "tcp://127.0.0.1:59996"

FULL_RING = """
sys.setswitchinterval(5e-4)  # turns of the interpreter are no subject here
one = publisher()
clock = time.perf_counter
shapes = [[{f"c{width}": 1.0}] for width in range(8)]  # pieces of many layouts do not join: a long ring

def slowest(done):
    worst, calls = 0.0, []
    while not done() or len(calls) < 2000:
        for number in range(20):
            began = clock()
            one.publish(ONE)
            calls.append(clock() - began)
    return max(calls), sorted(calls)[len(calls) // 2]

one.publish(ONE)
assert one.flush(60)
gc.disable()  # its collections, which grow with all objects of a process, are no subject either
rounds = []
idle = slowest(lambda: True)
for number in range(4):
    print("full", flush=True)  # the collector stops
    sys.stdin.readline()
    filled = 0
    while one.stats.queued_bytes < 25 * 2**20:
        for _ in range(100):
            one.publish(ONE, shapes[filled % 8])
            filled += 1
    held = one.stats.queued_bytes
    print("go", flush=True)  # and goes on
    sys.stdin.readline()
    rounds.append(slowest(lambda: one.stats.queued_bytes < 2 * 2**20))
report(idle=idle, rounds=rounds, held=held, stats=one.stats)
"""


def test_a_full_ring_that_is_sent_and_released(tmp_path: Path, child: Start) -> None:
    """Work that grows with the ring must not be done while a call waits; the best of four says what is inherent."""
    collector = Mortal(tmp_path / "c", LIVE)
    with collector.running():
        one = child(collector.endpoint, FULL_RING)
        for _ in range(4):
            assert one.line() == "full"
            collector.freeze()
            one.go_on()
            assert one.line() == "go"
            collector.thaw()
            one.go_on()
        result = one.result()
    assert result["held"] > 20 * 2**20, "the ring was full"
    inherent, _ = result["idle"]
    best = min(worst for worst, _ in result["rounds"])
    assert best < max(5 * inherent, 0.006), result  # it was 12 ms


TYPES = """
import tracemalloc, weakref
one = publisher()
kept = []

def serve(number):
    word, whole, row = type("Word", (str,), {}), type("Whole", (int,), {}), type("Row", (dict,), {})
    kept.extend(weakref.ref(each) for each in (word, whole, row))
    one.publish(ONE, [row({"word": word("x"), "age": whole(3)})], ids=[word(str(number))], segments={"s": [word("a")]})
    one.publish([0.5], [[whole(1), 2]])
    one.publish_labels([whole(number)], [whole(1)])

for number in range(50):
    serve(number)
one.flush(60)
gc.collect()
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
for number in range(2000):
    serve(number)
    if number % 100 == 0:
        one.flush(60)
flushed = one.flush(60)
gc.collect()
alive = sum(ref() is not None for ref in kept)
grown = tracemalloc.get_traced_memory()[0] - before
report(alive=alive, grown=grown, flushed=flushed, stats=one.stats)
"""


def test_types_that_were_seen_once_are_not_kept(collector: Collector, child: Start) -> None:
    result = child(collector.data, TYPES).result()
    assert result["stats"]["acknowledged"] > 2000
    assert result["alive"] < 400, "of 6150"
    assert result["grown"] < 4 * 2**20


KINDS = """
lines = Lines()
one = publisher()
passed = 0
for number in range(200):
    one.publish(ONE, [{"age": 1.0, f"new_{number}": 1.0, "turns": "a" if number % 2 else 1.0}])
    passed += 1
flushed = one.flush(60)
for number in range(20):
    one.publish(ONE, [{"age": 1.0}])
    passed += 1
flushed = one.flush(60) and flushed
report(passed=passed, flushed=flushed, degraded=sum(one.stats.degraded.values()), said=lines.lines, stats=one.stats)
"""


def test_columns_and_kinds_that_change_all_the_time(collector: Collector, child: Start) -> None:
    """Outputs are kept; columns beyond the limit are left out, counted and said."""
    result = child(collector.data, KINDS).result()
    assert result["flushed"]
    assert result["stats"]["acknowledged"] == result["stats"]["sum"] == result["passed"] == 220, result
    assert result["degraded"] > 0
    assert any("new_" in line or "turns" in line or "column" in line for line in result["said"]), result["said"]


FORKED = """
import tracemalloc
tracemalloc.start()
one = publisher()
rows = np.full(1000, 0.9)
while one.stats.queued_bytes < 28 * 2**20 and not one.stats.dropped:
    one.publish(rows, np.ones((1000, 20)))
held = tracemalloc.get_traced_memory()[0]

def forked():
    one.publish(ONE)
    wait_for(lambda: one.stats.published == 1)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    stats = states(one.stats)
    one.close()
    return {"kept": kept, "stats": stats}

report(held=held, forked=isolated(forked), stats=one.stats)
"""


def test_a_forked_child_does_not_keep_its_parents_rows(child: Start) -> None:
    result = child(NOBODY, FORKED).result()
    assert result["held"] > 20 * 2**20
    assert result["forked"]["kept"] < result["held"] - 18 * 2**20
    assert result["forked"]["stats"]["sum"] == 1
    assert result["forked"]["stats"]["queued_bytes"] < 2**16
    assert result["stats"]["sum"] > 1000
