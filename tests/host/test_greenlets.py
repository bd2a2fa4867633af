"""Servers that replace threads by greenlets, or run without threads: gevent, eventlet, uWSGI."""

from __future__ import annotations

import pytest

from tests.host.conftest import Start
from tests.support.children import START
from tests.support.collectors import Collector, delivered
from tests.support.frameworks import require

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
