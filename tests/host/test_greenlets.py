"""Servers that replace threads by greenlets, or run without threads: gevent, eventlet, uWSGI."""

from __future__ import annotations

import pytest

from tests.host.conftest import Start
from tests.support.children import START
from tests.support.collectors import Collector, delivered
from tests.support.frameworks import require, require_in_child

NOBODY = "tcp://127.0.0.1:59996"
PATCH = "from gevent import monkey\nmonkey.patch_all()\n"
GREEN = """
import gevent
one = publisher()
gaps, last, done = [], time.monotonic(), False

def tick():
    global last
    while not done:
        gevent.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now

ticker = gevent.spawn(tick)
tasks = len(os.listdir("/proc/self/task"))

def work():
    for _ in range(20):
        one.publish(TEN)
        gevent.sleep(0)

gevent.joinall([gevent.spawn(work) for _ in range(30)])
assert len(os.listdir("/proc/self/task")) > tasks, "no thread of the operating system"
flushed = one.flush(float(sys.argv[2]))
one.close()
done = True
ticker.join()
print(flushed, len(gaps), max(gaps))
"""


@pytest.mark.parametrize("order", ["patched first", "zmon first"])
def test_under_gevent_the_thread_is_a_real_one_and_waiting_stops_no_greenlet(
    order: str, collector: Collector, child: Start
) -> None:
    require("gevent")
    start = PATCH + START if order == "patched first" else START + PATCH
    one = child(collector.data, GREEN, "10", start=start)
    flushed, _, gap = one.end().split()
    assert flushed == "True", one.said
    assert float(gap) < 1.0, "the hub stood still"
    delivered(collector, 30 * 20 * 10)


def test_under_gevent_without_a_collector(child: Start) -> None:
    require("gevent")
    one = child(NOBODY, GREEN, "0.5", start=PATCH + START)
    flushed, ticks, gap = one.end().split()
    assert flushed == "False"
    assert int(ticks) >= 10, "greenlets run while flush and close wait"
    assert float(gap) < 0.4


def test_under_gevent_a_forked_worker_has_a_thread_of_its_own(collector: Collector, child: Start) -> None:
    """As gunicorn does it with gevent workers and --preload."""
    require("gevent")
    one = child(
        collector.data,
        """
        import gevent
        shared = publisher()
        shared.publish(TEN)
        assert shared.flush(60)
        workers = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                gevent.joinall([gevent.spawn(shared.publish, TEN) for _ in range(10)])
                sys.exit(0 if shared.flush(10) else 1)
            workers.append(pid)
        shared.publish(TEN)
        print([os.waitpid(pid, 0)[1] for pid in workers])
        """,
        start=PATCH + START,
    )
    assert one.end().strip() == "[0, 0, 0]", one.said
    delivered(collector, 2 * 10 + 3 * 100)


EVENTLET = """
import warnings
warnings.simplefilter("ignore")  # it says of itself that it is deprecated
import eventlet
"""
GREENER = """
one = publisher()
gaps, last, done = [], time.monotonic(), False

def tick():
    global last
    while not done:
        eventlet.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now

ticker = eventlet.spawn(tick)
before = tasks()

def work():
    for _ in range(20):
        one.publish(TEN)
        eventlet.sleep(0)

pool = eventlet.GreenPool()
for _ in range(30):
    pool.spawn(work)
pool.waitall()
threads = tasks() - before
flushed = one.flush(float(sys.argv[2]))
stats = states(one.stats)
one.close()
done = True
ticker.wait()
report(flushed=flushed, ticks=len(gaps), longest=max(gaps), threads=threads, stats=stats)
"""


@pytest.mark.parametrize("order", ["patched first", "zmon first"])
def test_under_eventlet_the_thread_is_a_real_one_and_waiting_stops_no_greenlet(
    order: str, collector: Collector, child: Start
) -> None:
    require_in_child("eventlet")
    patch = EVENTLET + "eventlet.monkey_patch()\n"
    start = patch + START if order == "patched first" else START + patch
    result = child(collector.data, GREENER, "60", start=start).result()
    assert result["flushed"], result
    assert result["threads"] > 0, "no thread of the operating system"
    assert result["longest"] < 1.0, "the hub stood still"
    delivered(collector, 30 * 20 * 10)


@pytest.mark.parametrize("patched", ["", "thread=False", "socket=True, thread=True"])
def test_under_eventlet_in_part_and_without_a_collector(patched: str, child: Start) -> None:
    require_in_child("eventlet")
    start = EVENTLET + f"eventlet.monkey_patch({patched})\n" + START
    result = child(NOBODY, GREENER, "0.5", start=start).result()
    assert not result["flushed"]
    assert result["stats"]["sum"] == 30 * 20 * 10
    assert result["longest"] < 1.0 or patched, "greenlets run while flush and close wait"


def test_under_eventlet_a_forked_worker_has_a_thread_of_its_own(collector: Collector, child: Start) -> None:
    require_in_child("eventlet")
    result = child(
        collector.data,
        """
        shared = publisher()
        shared.publish(TEN)
        assert shared.flush(60)
        workers = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                pool = eventlet.GreenPool()
                for _ in range(10):
                    pool.spawn(shared.publish, TEN)
                pool.waitall()
                sys.exit(0 if shared.flush(60) else 1)
            workers.append(pid)
        shared.publish(TEN)
        report(codes=[os.waitpid(pid, 0)[1] for pid in workers])
        """,
        start=EVENTLET + "eventlet.monkey_patch()\n" + START,
    ).result()
    assert result["codes"] == [0, 0, 0]
    delivered(collector, 2 * 10 + 3 * 100)


UWSGI = """
import types
sys.modules["uwsgi"] = types.SimpleNamespace(opt={options}, version=b"2.0.31")
"""
SERVED = """
lines = Lines()
crowd = [publisher(agent_id=f"a{number}") for number in range(3)]
for one in crowd:
    one.publish(TEN)
    one.publish(TEN)
report(said=lines.with_("uwsgi", "uWSGI"))
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{}", 1),
        ('{"enable-threads": b"false"}', 1),
        ('{"enable-threads": True}', 0),
        ('{"enable-threads": b"true"}', 0),
        ('{"threads": b"4"}', 0),
    ],
)
def test_uwsgi_without_threads_is_said_once(options: str, said: int, child: Start) -> None:
    """Its Python threads then run only during requests, and the publisher's is one."""
    start = "import sys\n" + UWSGI.replace("{options}", options) + START
    result = child(NOBODY, SERVED, start=start).result()
    assert len(result["said"]) == said, result
    assert all("enable-threads" in line for line in result["said"])
