"""Descriptors and threads run out: the process goes on, says so once, and delivers when they come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered
from tests.support.waiting import until

DESCRIPTORS = """
lines = Lines()

def short(spare):
    one = publisher()
    with few_descriptors(spare):
        for _ in range(3):
            one.publish(TEN)
        settled = wait_for(lambda: one.stats.failed or one.stats.acknowledged == 30)
        time.sleep(1.5)  # the shortage lasts, and so do attempts
        one.publish(TEN)
        failed = one.stats.failed
        said = lines.with_("descriptor")
    one.publish(TEN)
    flushed = one.flush(60)
    stats = one.stats
    one.close()
    return {"settled": settled, "failed": failed, "said": said, "flushed": flushed, "stats": states(stats),
            "spare": spare}

report(runs=[isolated(short, spare) for spare in range(13)])
"""


def served(runs: list[dict[str, Any]], rows: int) -> None:
    """Nothing died, everything was delivered, and what went wrong was said once."""
    for run in runs:
        assert "died" not in run, f"with {run} the process ended"
        assert run["settled"], f"neither delivered nor failed: {run}"
        assert run["flushed"], run
        assert run["stats"]["failed"] == "", run
        assert run["stats"]["acknowledged"] == run["stats"]["sum"] >= rows, run
        assert len(run["said"]) == (1 if run["failed"] else 0), run


def test_few_descriptors_at_the_first_batch(collector: Collector, child: Start) -> None:
    result = child(collector.data, DESCRIPTORS).result()
    runs = result["runs"]
    served(runs, 50)
    assert len(runs) == 13
    assert all("descriptor" in run["failed"] for run in runs[:4]), "the shortage was one"
    delivered(collector, 13 * 50)


def test_descriptors_run_out_while_the_collector_is_away(collect: Any, child: Start, tmp_path: Path) -> None:
    """Its connection is made anew with none left."""
    first = collect()
    one = child(
        first.data,
        """
        one = publisher()
        one.publish(TEN)
        assert one.flush(60)
        with few_descriptors(int(sys.argv[2])):
            print("short", flush=True)
            for _ in range(10):
                one.publish(TEN)
            sys.stdin.readline()
            time.sleep(1.0)  # the shortage lasts while a collector is there again
        flushed = one.flush(100)
        report(flushed=flushed, stats=one.stats)
        """,
        "0",
    )
    assert one.line() == "short"
    first.stop()
    again = collect()
    one.go_on()
    result = one.result()
    assert result["flushed"], result
    assert result["stats"]["acknowledged"] == result["stats"]["sum"] == 110
    until(lambda: again.service.telemetry.get("rows") == 100, what="the rest")


THREADS = """
with_large_stacks()
lines = Lines()

def short(spare):
    one = publisher()
    with few_threads(spare):
        had = threads_to_be_had()
        for _ in range(3):
            one.publish(TEN)
        settled = wait_for(lambda: one.stats.failed or one.stats.acknowledged == 30)
        time.sleep(0.5)  # the shortage lasts, and so do attempts
        one.publish(TEN)
        failed = one.stats.failed
        said = lines.with_("thread")
    settled = settled and wait_for(lambda: one.publish(ONE) or not one.stats.failed)
    one.publish(TEN)
    flushed = one.flush(60)
    stats = one.stats
    one.close()
    return {"settled": settled, "failed": failed, "said": said, "flushed": flushed, "stats": states(stats),
            "spare": spare, "had": had}

report(runs=[isolated(short, spare) for spare in range(5)])
"""


def test_few_threads_at_the_first_batch(collector: Collector, child: Start) -> None:
    runs = child(collector.data, THREADS).result()["runs"]
    served(runs, 50)
    assert [run["had"] for run in runs[:3]] == [0, 1, 2], "the shortage was one"
    assert all("thread" in run["failed"] for run in runs[:3]), runs
    delivered(collector, sum(run["stats"]["sum"] for run in runs))


REFUSED = """
import _thread
lines = Lines()
one = publisher()
refused = 0

def refuse(*_, **__):
    global refused
    refused += 1
    raise RuntimeError("can't start new thread")

start, starts = _thread.start_new_thread, threading._start_new_thread
_thread.start_new_thread = threading._start_new_thread = refuse
for _ in range(1000):
    one.publish(TEN)
waited = one.flush(0.2)
failed = one.stats.failed
sums = accounted(one.stats)
_thread.start_new_thread, threading._start_new_thread = start, starts
came_back = wait_for(lambda: one.publish(ONE) or not one.stats.failed)
flushed = one.flush(60)
report(refused=refused, failed=failed, sums=sums, waited=waited, came_back=came_back, flushed=flushed,
       said=lines.with_("thread"), stats=one.stats)
"""


def test_no_thread_at_the_first_batch(collector: Collector, child: Start) -> None:
    """Later batches start it; a thousand refusals are one line, and not a thousand attempts."""
    result = child(collector.data, REFUSED).result()
    assert 1 <= result["refused"] < 100
    assert "thread" in result["failed"]
    assert result["sums"] == 10_000
    assert not result["waited"]
    assert result["came_back"]
    assert result["flushed"]
    assert len(result["said"]) == 1, result["said"]
    assert result["stats"]["acknowledged"] == result["stats"]["sum"] > 10_000
    delivered(collector, result["stats"]["sum"])


MANY = """
import resource
limit, count = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
before = tasks()
crowd = [publisher(agent_id=f"a{number % 50}") for number in range(count)]
for one in crowd:
    one.publish(TEN)
flushed = sum(one.flush(60) for one in crowd)
threads = tasks() - before
failed = [one.stats.failed for one in crowd if one.stats.failed]
acknowledged = sum(one.stats.acknowledged for one in crowd)
with open("/dev/null"):
    left = limit - descriptors()
for one in crowd:
    one.close(0.2)
report(flushed=flushed, threads=threads, failed=failed, acknowledged=acknowledged, left=left)
"""


@pytest.mark.parametrize(("limit", "count"), [(1024, 70), (1024, 100), (20_000, 600)])
def test_many_publishers_in_one_process(limit: int, count: int, collect: Any, child: Start) -> None:
    """As a server of seventy models has it; one context and one thread serve them all."""
    collector = collect()
    result = child(collector.data, MANY, str(limit), str(count)).result()
    assert result["flushed"] == count
    assert result["failed"] == []
    assert result["acknowledged"] == 10 * count
    assert result["threads"] <= 4
    assert result["left"] > 100
    delivered(collector, 10 * count)
