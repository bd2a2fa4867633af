"""The publisher's process: it forks, spawns, runs threads, greenlets or a loop, ends, is killed. In real children."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.peer import Peer
from tests.support.processes import ROOT, environment
from tests.support.waiting import until

NOBODY = "tcp://127.0.0.1:59996"
START = """
import os, signal, sys, threading, time
import numpy as np
import zmon

def publisher(**options):
    return zmon.Publisher("m", classes=2, collector=sys.argv[1], **{"agent_id": "host", **options})

TEN = np.full(10, 0.9)
"""


class Child:
    """A script in a process of its own, which must end before the deadline."""

    def __init__(self, folder: Path, collector: str, script: str, *arguments: str, start: str = START) -> None:
        path = folder / "job.py"
        path.write_text(start + textwrap.dedent(script))
        self.process = subprocess.Popen(
            [sys.executable, str(path), collector, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(ROOT),
        )

    def end(self, timeout: float = 90.0) -> str:
        """What it printed; fails when it does not end in time."""
        try:
            out, self.said = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the child hangs: {self.process.communicate()}") from None
        assert "Traceback" not in self.said, self.said
        assert "SyntaxError" not in self.said, self.said
        return out

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


Start = Callable[..., Child]


@pytest.fixture
def child(tmp_path: Path) -> Start:
    return lambda collector, script, *arguments, **options: Child(tmp_path, collector, script, *arguments, **options)


def received(collector: Collector) -> int:
    return collector.service.telemetry.get("rows")


def delivered(collector: Collector, rows: int) -> None:
    """Exactly so many rows arrive, none is lost."""
    until(lambda: received(collector) >= rows, what=f"{rows} rows")
    collector.stop()
    assert received(collector) == rows
    assert collector.service.telemetry.get("lost") == 0
    assert collector.counts("buffer_count", agent_id=None) == rows


@pytest.fixture
def collector(collect: Callable[..., Collector]) -> Collector:
    return collect()


# --- fork and spawn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_deliver_without_flush_or_close(
    method: str, collector: Collector, child: Start
) -> None:
    one = child(
        collector.data,
        """
        import multiprocessing
        shared = publisher()  # at import: a spawned child makes its own

        def work(batches):
            for _ in range(batches):
                shared.publish(TEN)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[2])
            shared.publish(TEN)
            assert shared.flush(60)
            workers = [context.Process(target=work, args=(50,)) for _ in range(3)]
            for worker in workers:
                worker.start()
            shared.publish(TEN)
            for worker in workers:
                worker.join()
            with context.Pool(2) as pool:
                pool.map(work, [5] * 4, chunksize=1)
                pool.close()
                pool.join()
            assert [worker.exitcode for worker in workers] == [0, 0, 0]
        """,
        method,
    )
    one.end()
    assert one.process.returncode == 0, one.said
    delivered(collector, 10 * (2 + 3 * 50 + 4 * 5))


def test_a_preloading_server(collector: Collector, child: Start) -> None:
    """As gunicorn --preload does it: the application, its thread already at work, is loaded before the fork."""
    one = child(
        collector.data,
        """
        shared = publisher()
        shared.publish(TEN)  # a warm-up request
        assert shared.flush(60)

        def serve():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            os.write(1, b"ready\\n")
            threads = [threading.Thread(target=lambda: [shared.publish(TEN) for _ in range(100)]) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.write(served, b".")
            while True:
                time.sleep(1)

        workers = []
        done, served = os.pipe()
        for _ in range(3):
            pid = os.fork()
            if not pid:
                serve()
            workers.append(pid)
        while shared.stats.published < 100:  # the master goes on as well
            shared.publish(TEN)
        for _ in workers:
            os.read(done, 1)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        print([os.waitpid(pid, 0)[1] for pid in workers])
        """,
    )
    assert one.end().splitlines() == [*["ready"] * 3, "[0, 0, 0]"]
    delivered(collector, 100 + 3 * 4 * 100 * 10)


def test_fork_while_other_threads_publish(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        shared = publisher()
        stop = threading.Event()
        counts = []

        def work():
            done = 0
            while not stop.is_set():
                shared.publish(TEN)
                done += 1
                time.sleep(0.0005)
            counts.append(done)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                shared.publish(TEN)
                ok = shared.flush(20)
                shared.close()
                os._exit(0 if ok else 1)
            codes.append(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 8, codes
        assert shared.flush(60)
        print(10 * (sum(counts) + 8))
        """,
    )
    rows = int(one.end() or 0)
    assert rows > 1000
    delivered(collector, rows)


def test_a_publisher_is_not_pickled() -> None:
    with (
        zmon.Publisher("m", classes=2, collector=NOBODY) as one,
        pytest.raises(TypeError, match="construct one in each process"),
    ):
        pickle.dumps(one)


# --- threads, greenlets, a loop -----------------------------------------------------------------------------------


def test_many_threads_on_one_publisher(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        shared = publisher()

        def work(number):
            for _ in range(50):
                shared.publish(np.full(number % 7 + 1, 0.5))
                if number == 0:
                    shared.flush(5)
                    shared.stats

        threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(shared.stats.published)
        """,
    )
    rows = sum(50 * (number % 7 + 1) for number in range(64))
    assert int(one.end() or 0) == rows
    delivered(collector, rows)


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


def test_in_an_asyncio_loop(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        import asyncio

        async def tick(gaps):
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.005)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        async def request(shared):
            for _ in range(20):
                shared.publish(TEN)
                await asyncio.sleep(0)

        async def main():
            gaps = []
            ticker = asyncio.create_task(tick(gaps))
            with publisher() as shared:
                await asyncio.gather(*[request(shared) for _ in range(30)])
                flushed = await asyncio.to_thread(shared.flush, 10)
                ticker.cancel()
            print(flushed, max(gaps))

        asyncio.run(main(), debug=False)
        """,
    )
    flushed, gap = one.end().split()
    assert flushed == "True"
    assert float(gap) < 1.0, "publish() held the loop"
    delivered(collector, 30 * 20 * 10)


# --- the end --------------------------------------------------------------------------------------------------------

ENDS = {
    "the end of the script": "",
    "sys.exit": "sys.exit(3)",
    "an error": "sys.excepthook = lambda *_: None\nraise RuntimeError('broken')",
    "sys.exit under threads": "threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
    "publishing at exit": "import atexit; atexit.register(lambda: one.publish(TEN))",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_without_a_collector_a_process_ends_in_less_than_a_second(end: str, child: Start) -> None:
    took: list[float] = []
    while len(took) < 3 and min(took, default=1.0) >= 1.0:  # a machine that stands still says nothing
        one = child(NOBODY, f"one = publisher()\none.publish(TEN)\nprint(time.monotonic(), flush=True)\n{end}\n")
        began = float(one.end())
        took.append(time.monotonic() - began)
    assert min(took) < 1.0


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_with_a_collector_a_process_delivers_at_its_end(end: str, collector: Collector, child: Start) -> None:
    child(collector.data, f"one = publisher()\nfor _ in range(100):\n    one.publish(TEN)\n{end}\n").end()
    delivered(collector, 1000 + (10 if "atexit" in end else 0))


def test_sigterm_that_ends_the_interpreter_delivers(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        one = publisher()
        for _ in range(100):
            one.publish(TEN)
        print("published", flush=True)
        while True:
            time.sleep(1)
        """,
    )
    assert one.line() == "published"
    one.process.terminate()
    one.end()
    assert one.process.returncode == 0
    delivered(collector, 1000)


def test_a_collector_that_is_slow_to_answer_gets_what_is_left(tmp_path: Path, child: Start) -> None:
    """A process that lives for a moment only waits for the subscription once the connection is up."""
    peer = Peer(str(tmp_path / "z"))
    one = child(peer.endpoint, "one = publisher()\none.publish(TEN)\nprint('published', flush=True)")
    assert one.line() == "published"
    time.sleep(0.8)  # twice what it gives a collector that is not there
    peer.ack(peer.greeting("hello").stream, 0)
    (rows,) = [each.rows for each in peer.messages() if each.kind == "batch"]
    assert rows == 10
    one.end()
    peer.close()
    peer.context.term()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_loses_what_was_not_acknowledged_and_nothing_else(
    number: int, collector: Collector, child: Start
) -> None:
    one = child(
        collector.data,
        """
        one = publisher()
        for _ in range(50):
            one.publish(TEN)
        assert one.flush(60)
        for _ in range(2000):
            one.publish(TEN)
        os.kill(os.getpid(), int(sys.argv[2]))
        """,
        str(int(number)),
    )
    one.end()
    assert one.process.returncode == -number
    again = child(collector.data, "one = publisher()\none.publish(TEN)\nassert one.flush(60)\nprint('ok')")
    assert again.end().strip() == "ok"
    collector.stop()
    rows = received(collector)
    assert 500 + 10 <= rows <= 20_500 + 10
    assert collector.counts("buffer_count", agent_id="host") == rows, "once each"
    assert collector.service.telemetry.get("lost") == 0


def test_the_pages_say_what_a_killed_process_loses() -> None:
    text = re.sub(r"\s+", " ", (Path(__file__).parents[2] / "docs/publisher.md").read_text())
    for said in ("SIGKILL", "SIGTERM", "gevent", "multiprocessing", "spawn", "os._exit"):
        assert said in text
